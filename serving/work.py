"""The nouns of batching: a call, its texts, a batch that runs, an answer. They only hold values."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving.line import Priority
from serving.session import Encoding, Logits

# Up to and with so many texts batches are counted together, and then those beyond: powers of two.
BATCH_EDGES = (1, 2, 4, 8, 16, 32, 64)

if TYPE_CHECKING:  # for those who trace; nobody else need know of it
    from opentelemetry.trace import SpanContext

# The span of whoever asks just now, where it is traced: a batch is linked to those whose texts it runs.
# Not a parameter, since all between a request and its batch have no use for it.
TRACED: ContextVar[SpanContext | None] = ContextVar("traced", default=None)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ran:
    """When a batch ran, of `time.perf_counter`, and its span where it is traced."""

    started_s: float
    ended_s: float
    span: SpanContext | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Logits (labels,) of one text, how long it waited and how long its batch ran; or it was known.

    ran: its batch, or those of its windows; none where it was known.
    """

    logits: Logits
    queue_ms: float
    infer_ms: float
    cached: bool = False
    ran: tuple[Ran, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Since the start: batches that were run, their texts, tokens of these, and with padding.

    sizes: batches by their texts, as `BATCH_EDGES` has them. busy_s: that batches ran, over all
    lanes. work_ms: what their texts would have taken each for itself, by the cost model. cpu_s: of the lanes' own threads while they ran; of a lane of several threads, the first.
    """

    batches: int = 0
    texts: int = 0
    useful_tokens: int = 0
    padded_tokens: int = 0
    sizes: tuple[int, ...] = (0,) * (len(BATCH_EDGES) + 1)
    busy_s: float = 0.0
    work_ms: float = 0.0
    cpu_s: float = 0.0


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """One caller: answers by place, and how many are still missing; all of them or an exception.

    traced: the caller's span, where it is traced.
    """

    future: asyncio.Future[list[Answer]]
    answers: dict[int, Answer]
    count: int
    traced: SpanContext | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Text:
    """One text of a call, as the line and the planner see it; times as in `serving.planner.Waiting`."""

    encoding: Encoding
    call: Call
    place: int
    tokens: int
    work_ms: float
    arrived_s: float
    rank_s: float
    due_s: float
    priority: Priority
    passed_ms: float = 0.0

    @property
    def wanted(self) -> bool:
        """Whether the caller still waits for it."""
        return not self.call.future.done()


@dataclass(slots=True, kw_only=True, eq=False)
class RunningBatch:
    """A batch on a lane, padded to *longest* tokens. cpu_s: of the lane's thread, once it has run.

    halved: it failed and is run again in two halves.
    """

    batch: list[Text]
    longest: int
    started_s: float
    expected_ms: float
    cpu_s: float = 0.0
    halved: bool = False


def one_more(sizes: tuple[int, ...], texts: int) -> tuple[int, ...]:
    """*sizes* of a tally, and a batch of so many texts."""
    place = min((texts - 1).bit_length(), len(BATCH_EDGES))
    return (*sizes[:place], sizes[place] + 1, *sizes[place + 1 :])
