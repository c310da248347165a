"""Several models in one replica: their `names`, which of them is asked (`routing`), which stay loaded."""
