"""Recipes: fp32 graph in, candidate graph out. Each file is one idea; none knows another's gates."""
