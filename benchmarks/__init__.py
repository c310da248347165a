"""Load tests of a running endpoint, and the records they leave.

`load` drives Locust against a URL, `record` is what a run leaves behind, `workloads` says what is
sent, `demo` starts a server, asks it and loads it. Nothing here knows how a server works inside:
it talks HTTP.
"""
