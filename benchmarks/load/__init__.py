"""`miniml bench load`: a load of a running endpoint, and the record it leaves.

`run` leads through it, `locusts` drives Locust (`wire` is the other client), `record` is what is
left, `endpoint` asks a server what it is.
"""

from __future__ import annotations

from benchmarks.load.endpoint import examples, fetch_info
from benchmarks.load.run import run_load

__all__ = ["examples", "fetch_info", "run_load"]
