"""What a load saw, whichever client sent it: one shot a request, and what is derived from them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.record import percentile
from benchmarks.samples import SampleRow
from benchmarks.workloads.bodies import Body

OK = 200
NO_ANSWER = 0  # the status of a request whose connection ended or that nobody answered in time


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One request. body: which of the bodies was sent. status: of HTTP, or `NO_ANSWER`.

    sent_s: since the load began, the scheduled time in an open loop, the real one otherwise.
    latency_ms: from then to the last byte of the answer. late_ms: how long after the scheduled time
    it was sent, infinite when it never was. The three parts are what the server said in its
    `x-...-ms` headers, None when it did not. answer: the body, when answers are kept.
    """

    sent_s: float
    latency_ms: float
    status: int
    texts: int
    body: int = 0
    late_ms: float = 0.0
    tokenize_ms: float | None = None
    queue_ms: float | None = None
    infer_ms: float | None = None
    answer: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientProcess:
    """One process of the client. lags_ms: how late each beat of its clock was, 50 a second."""

    cpu_s: float
    lags_ms: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WireRun:
    """What one load saw.

    shots: sent in the window, which lasts *duration_s* after *warmup_s*, in the order sent. early:
    sent in the warm-up and answered in the window; they count for the rate and for nothing else.
    requests: all of the load, warm-up included. client_cpu_s: CPU time of the load client from the
    first request to the last answer, which took *load_s*; clients: its processes. began_s: by
    `time.perf_counter`, which all processes of a Linux machine share. interrupted: the window ends
    where it was.
    """

    shots: tuple[Shot, ...]
    early: tuple[Shot, ...] = ()
    warmup_s: float = 0.0
    duration_s: float
    requests: int
    load_s: float
    client_cpu_s: float
    clients: tuple[ClientProcess, ...] = ()
    began_s: float = 0.0
    interrupted: bool = False

    @property
    def client_core_share(self) -> float:
        """Of a core, by that process of the client which took most."""
        most_s = max((client.cpu_s for client in self.clients), default=0.0)
        return most_s / self.load_s if self.load_s else 0.0

    @property
    def client_lag_ms(self) -> float:
        """How late the client's clock was: the 99th percentile of its beats; 0 without any."""
        lags_ms = [lag for client in self.clients for lag in client.lags_ms]
        return percentile(lags_ms, 99) if lags_ms else 0.0

    @property
    def latencies_ms(self) -> list[float]:
        """Latencies of the shots answered with 200."""
        return [shot.latency_ms for shot in self.shots if shot.status == OK]

    @property
    def errors(self) -> Mapping[int, int]:
        """Status -> number of shots, of every status but 200."""
        return dict(Counter(shot.status for shot in self.shots if shot.status != OK))

    @property
    def texts_per_s(self) -> float:
        """Texts whose answer of 200 was whole within the window, a second."""
        begin_s, end_s = self.warmup_s, self.warmup_s + self.duration_s
        texts = sum(
            shot.texts
            for shot in (*self.early, *self.shots)
            if shot.status == OK and begin_s < shot.sent_s + shot.latency_ms / 1e3 <= end_s
        )
        return texts / self.duration_s

    @property
    def steady_texts_per_s(self) -> float:
        """The same for a closed loop, without the luck of where the window cuts.

        A call that straddles an edge counts by the share of its time inside: it may hold many texts,
        and whether it ends just before or just after is chance. Only where as much is under way at
        both edges: of a queue that grows it would count what is not done yet.
        """
        texts = sum(self._texts_inside(shot) for shot in (*self.early, *self.shots))
        return texts / self.duration_s

    @property
    def requests_per_s(self) -> float:
        """Shots answered with 200, a second of the window."""
        return len(self.latencies_ms) / self.duration_s

    @property
    def sent_per_s(self) -> float:
        """Requests that really went out within the window, a second: late ones when they went."""
        begin_s, end_s = self.warmup_s, self.warmup_s + self.duration_s
        sent_s = (shot.sent_s + shot.late_ms / 1e3 for shot in (*self.early, *self.shots))
        return sum(begin_s <= at < end_s for at in sent_s) / self.duration_s

    def window(self, begin_s: float, end_s: float) -> WireRun:
        """The same load, but only what was sent from *begin_s* to *end_s*."""
        shots = (*self.early, *self.shots)
        return replace(
            self,
            shots=tuple(shot for shot in shots if begin_s <= shot.sent_s < end_s),
            early=tuple(s for s in shots if s.sent_s < begin_s < s.sent_s + s.latency_ms / 1e3),
            warmup_s=begin_s,
            duration_s=end_s - begin_s,
        )

    def percentile_ms(self, percent: float) -> float:
        """Nearest-rank percentile of `latencies_ms`. Raises ValueError when there are none."""
        return percentile(self.latencies_ms, percent)

    def _texts_inside(self, shot: Shot) -> float:
        if shot.status != OK:
            return 0.0
        end_s = shot.sent_s + shot.latency_ms / 1e3
        inside_s = min(end_s, self.warmup_s + self.duration_s) - max(shot.sent_s, self.warmup_s)
        length_s = end_s - shot.sent_s
        return shot.texts * (inside_s / length_s if length_s > 0 else 1.0) if inside_s >= 0 else 0.0


def run_of(
    rows: Iterable[SampleRow],
    end: Mapping[str, Any],
    bodies: Sequence[Body],
    *,
    warmup_s: float,
    duration_s: float | None,
) -> WireRun:
    """What a client left as rows and at its *end*; duration_s None takes all of the load's time."""
    answers = end.get("answers") or {}
    shots = sorted(
        (_shot(row, bodies, answers.get(str(place))) for place, row in enumerate(rows)),
        key=lambda shot: shot.sent_s,
    )
    duration_s = end["load_s"] if duration_s is None else duration_s
    if interrupted := bool(end.get("interrupted")):
        duration_s = min(duration_s, max(end["load_s"] - warmup_s, 0.0))
    early = (s for s in shots if s.sent_s < warmup_s < s.sent_s + s.latency_ms / 1e3)
    return WireRun(
        shots=tuple(s for s in shots if warmup_s <= s.sent_s < warmup_s + duration_s),
        early=tuple(early),
        warmup_s=warmup_s,
        duration_s=duration_s,
        requests=len(shots),
        load_s=end["load_s"],
        client_cpu_s=sum(client["cpu_s"] for client in end["clients"]),
        clients=tuple(
            ClientProcess(cpu_s=client["cpu_s"], lags_ms=tuple(client["lags_ms"]))
            for client in end["clients"]
        ),
        began_s=end["began_s"],
        interrupted=interrupted,
    )


def _shot(row: SampleRow, bodies: Sequence[Body], answer: str | None) -> Shot:
    return Shot(
        sent_s=row.sent_s,
        latency_ms=row.latency_ms,
        status=row.status,
        texts=bodies[row.body].texts,
        body=row.body,
        late_ms=row.late_ms,
        tokenize_ms=_told(row.tokenize_ms),
        queue_ms=_told(row.queue_ms),
        infer_ms=_told(row.infer_ms),
        answer=None if answer is None else answer.encode("latin-1"),
    )


def _told(number: float) -> float | None:
    return None if math.isnan(number) else number
