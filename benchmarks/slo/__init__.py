"""`miniml bench slo`: the highest rate that keeps a latency goal, and how sure that is.

`search` says which rate to try next and what is known; `trials` tries one; `run` leads through it
and `record` is what is left. Only open loops: in a closed one the rate is no choice.
"""
