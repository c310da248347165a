"""`miniml bench soak`: a server under a steady load for long, and what of it grows.

`run` starts the server and leads through it, `sampling` looks at its memory meanwhile, `growth` says
what grew, `record` is what is left, `tables`, `figures` and `page` show it.
"""
