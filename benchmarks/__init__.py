"""Load tests of a running endpoint, measurements of a package, and the records they leave.

`load` drives Locust against a URL, `wire` is a lean load client for shared cores, `record` is what a
run leaves behind, `workloads` says what is sent, `server` runs a server for as long as it is needed,
`demo` asks and loads it. Nothing of these knows how a server works inside: they talk HTTP. `core`
holds a server against what its engine can do, `engines` a package without a server against its plain
peers, and `peak` tells what the cores can do at most.
"""
