"""From a model package to answers over HTTP.

`app -> protocols -> batcher -> planner, lanes -> cost, engine -> package`; `errors` is below all.
Importing this package imports nothing else; torch and transformers are never imported here.
"""
