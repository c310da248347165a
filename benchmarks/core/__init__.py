"""`miniml bench core`: the serving core against what its engine can do.

`run` starts a server and leads through the rounds, `scenarios` and `overload` are the loads,
`ceiling` is the bare engine in a process of its own, `processes` reads CPU and memory from /proc,
`measures` derives what is shown and knows the goals, `record` is what a run leaves behind.
"""
