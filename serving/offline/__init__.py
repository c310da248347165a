"""Offline prediction: rows of any number from files into Parquet parts, on the engine that serves.

`inputs` finds files and cuts them into pieces, `rows` reads a piece, `answering` answers its texts,
`parts` writes them, `job` is the record that makes a run resumable, `worker` does a piece after the
other in an actor of Ray Data, and `run` leads. Inputs and outputs are wherever fsspec reaches.
"""
