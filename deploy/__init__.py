"""The platform around the model: images, compose, and the commands that automation runs.

Knows packages and the registry, not how anything is trained or served.
"""
