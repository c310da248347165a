"""Answers that are known already: in a replica's memory, and shared by replicas in Redis."""
