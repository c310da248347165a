"""Who may ask, and how much: keys, limits, and the gate that holds callers to them."""
