"""How fast graphs are, beside each other on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from serving.engine import Encoding, Session

_TEXTS = 32
_ROUNDS = 3  # each graph in turn, so that what else this machine does hits all alike


def texts_per_second(
    graphs: Mapping[str, Path], encodings: Sequence[Encoding], *, pad_token_id: int
) -> dict[str, float]:
    """For each graph, by name: alone, one thread, over texts of the exam's own lengths.

    Of each text the fastest run counts: others only ever slow it down.
    """
    texts = encodings[:: -(-len(encodings) // _TEXTS)]
    sessions = {name: Session(graph, threads=1) for name, graph in graphs.items()}
    fastest_s = {name: [float("inf")] * len(texts) for name in graphs}
    for _ in range(_ROUNDS):
        for name, session in sessions.items():
            for place, encoding in enumerate(texts):
                start_s = time.perf_counter()
                session.run([encoding], pad_token_id=pad_token_id)
                run_s = time.perf_counter() - start_s
                fastest_s[name][place] = min(fastest_s[name][place], run_s)
    return {name: len(texts) / sum(times_s) for name, times_s in fastest_s.items()}
