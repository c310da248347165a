"""`miniml bench tune`: which package, lanes and limits serve the most within a latency goal.

`space` says which settings there are, `race` whether one beats another, `run` starts a server of
each in turn and leads through it, `record` is what is left.
"""
