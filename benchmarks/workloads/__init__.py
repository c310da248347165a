"""What a load test sends: texts, and request bodies in an order that the seed repeats.

`files` reads the user's own texts, `making` makes texts as long as real ones from `phrases`,
`bodies` turns texts into requests, `lengths` tells how long they are. None of them knows a server.
"""

from __future__ import annotations

from benchmarks.workloads.bodies import MOST_TEXTS_PER_CALL, Body, call_bodies, row_bodies
from benchmarks.workloads.files import Row, read_rows
from benchmarks.workloads.lengths import describe_lengths, length_histogram
from benchmarks.workloads.making import REPEATED, WORKLOADS, Quantiles, queries, reviews, zipf

__all__ = [
    "MOST_TEXTS_PER_CALL",
    "REPEATED",
    "WORKLOADS",
    "Body",
    "Quantiles",
    "Row",
    "call_bodies",
    "describe_lengths",
    "length_histogram",
    "queries",
    "read_rows",
    "reviews",
    "row_bodies",
    "zipf",
]
