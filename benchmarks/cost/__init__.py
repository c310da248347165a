"""From a record and list prices to dollars a million texts, CPU against GPU; runs nothing."""
