"""Load tests of a running endpoint, measurements of a package, and the records they leave.

`load` loads a URL, closed or open loop; `slo` finds the highest rate within a latency goal, `tune` the
settings that hold the highest. They send `workloads` by `schedule`, through Locust (`locustfile`,
`locusts`) or through `wire`, a lean client for shared cores, and follow them through `samples`.
`record` is what every run leaves behind, `server` runs a server for as long as it is needed, `demo`
asks and loads it. Nothing of these knows how a server works inside: they talk HTTP. `core` holds a
server against what its engine can do, `engines` a package without a server against its plain peers,
and `peak` tells what the cores can do at most.
"""
