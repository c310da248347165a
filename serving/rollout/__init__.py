"""Which package a server answers with, changed while it runs: wanted, followed, judged, taken back.

`wanted` is the document and `ledger` where its revisions are written down; `following` has a replica do
what it says with the packages on its `shelf`; `witness` and `probation` judge what came of it.
"""
