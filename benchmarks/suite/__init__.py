"""`miniml bench all`: every benchmark of one package in turn, within a budget, and a page of them.

`stages` says what is run and for how long at most, `course` runs one stage after another and goes on
when one fails, `budget` shares out time and ends who takes too long, `run` begins and ends it all.
"""
