"""From raw rows to a fine-tuned checkpoint.

`transform` (rows -> dataset) and `train` (dataset -> checkpoint) are the stages; `options` is what
they can be told; `dataset` is the contract between them. Importing this package imports nothing.
"""
