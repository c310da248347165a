"""Dataset hub and model registry: sealed folders, references, versions and aliases.

`artifact` is the folder format every stage writes and every stage verifies; `reference` is how a
user names one; `store` keeps versions, aliases, runs and lineage in MLflow. Nothing here knows what
a dataset, a checkpoint or a package contains. Importing any of it is cheap: MLflow is imported by
functions of `registry.connection` and `registry.backend`, when there is something to read or write.
"""
