"""Load tests of a running endpoint, and the records they leave.

`load` drives Locust against a URL, `record` is what a run leaves behind, `workloads` says what is
sent, `demo` starts a server, asks it and loads it. Nothing of these knows how a server works inside:
they talk HTTP. `engines` measures a package without a server beside its plain peers, and `peak`
what the cores can do at most.
"""
