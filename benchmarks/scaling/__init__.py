"""Autoscaling policies on the same traces of load, simulated: how many replicas, what waited, what was wasted."""
