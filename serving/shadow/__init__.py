"""A candidate that answers live texts beside the champion, in a process of its own, and is never heard.

`observer` samples and compares, `process` and `worker` are the two ends of the candidate, `report` adds up.
"""
