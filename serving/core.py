"""The heart of one replica: package, tokenizer, lanes and batcher put together.

`ask` is the one way to an answer, whichever protocol asks. Knows nothing of HTTP or Ray.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving.batcher import Batcher
from serving.caching.cache import Cache
from serving.cost import CostModel
from serving.engine import Engine
from serving.lanes import LanePool, Lanes
from serving.line import Priority
from serving.memory import give_back_memory
from serving.offered import Reporter
from serving.package import Package
from serving.pulse import Pulse, process_age_s
from serving.readiness import cost_here, enough_tokens, prove_golden_answers, warm_up
from serving.reading import CUT, Reader, Reading, characters, put_together
from serving.settings import ServeSettings
from serving.token_estimate import TokenEstimate
from serving.work import Answer

if TYPE_CHECKING:
    from serving.observing.spans import Spans


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One answer a text, in order. tokens: read in all. tokenize_ms: of all together.

    began_s: of `time.perf_counter`, when tokenizing did.
    """

    answers: tuple[Answer, ...]
    tokens: int
    tokenize_ms: float
    began_s: float = 0.0

    @property
    def cached(self) -> int:
        """How many were known before."""
        return sum(answer.cached for answer in self.answers)

    @property
    def queue_ms(self) -> float:
        """How long the one that waited longest did."""
        return max(answer.queue_ms for answer in self.answers)

    @property
    def infer_ms(self) -> float:
        """Of the slowest batch."""
        return max(answer.infer_ms for answer in self.answers)


class Core:
    """A package ready to answer. Construct it off the hot path: it warms up and proves itself.

    replica: its name, for those who trace. Raises `PackageError` when the package does not reproduce its
    golden answers here.
    """

    def __init__(
        self, package: Package, lanes: Lanes, settings: ServeSettings, *, replica: str = ""
    ) -> None:
        self.package = package
        self.lanes = lanes
        self.spans = _spans(settings, replica)
        self._engine = Engine(
            package,
            threads=lanes.threads,
            streams=lanes.count,
            allow_code=settings.allow_code,
        )
        prove_golden_answers(self._engine)
        self._cost = CostModel(cost_here(self._engine, lanes))
        warm_up(self._engine, lanes, self._cost)
        give_back_memory()
        self._pool = LanePool(self._engine, lanes)
        self._reader = Reader(
            self._engine.tokenizer, package.tokenizer_path, max_length=package.config.max_length
        )
        self._estimate = TokenEstimate(longest=package.config.max_length)
        self._pulse = Pulse()
        self._batcher = Batcher(
            self._pool,
            self._cost,
            max_batch=settings.max_batch if package.config.batch_invariant else 1,
            max_tokens=settings.max_batch_tokens or enough_tokens(package, lanes),
            max_queue_ms=settings.max_queue_ms,
            trace=self.spans.batch if self.spans else None,
        )
        self._cache = _cache(self._batcher, package, settings)
        self._reporter = Reporter(
            self._batcher.offered,
            lanes=lanes.count,
            tally=lambda: self._batcher.tally,
            queued_ms=lambda: self._batcher.queued_ms,
            now_s=time.monotonic(),
        )
        self._start_s = process_age_s()

    async def ask(  # noqa: PLR0913 - every one but the first two has a default that is right
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        *,
        reading: Reading = CUT,
        fresh: bool = False,
        within_ms: float = math.inf,
        priority: Priority = "interactive",
    ) -> Answered:
        """Answers in the order of *texts*, each what the engine says of that text alone.

        within_ms: from now; beyond it `DeadlineExceeded`, without compute where that is foreseen.
        fresh: computed now, though the answer may be known. Raises what `Reader.read` and `Batcher.answer` do.
        """
        self._pulse.start()
        chars = characters(texts, pairs)
        # Where many answers are known, a text is worth reading though there is no room for its work.
        if fresh or self._cache is None or not self._cache.pays:
            self._batcher.refuse_without_room([self._estimate.tokens(count) for count in chars])
        start_s = time.perf_counter()
        read = await self._reader.read(texts, pairs, reading)
        tokens = [len(encoding) for encoding in read.encodings]
        if read.counts is None:
            self._estimate.learn(chars, tokens)
        tokenize_ms = (time.perf_counter() - start_s) * 1e3
        within_ms -= tokenize_ms
        if self._cache:
            answers = await self._cache.answer(
                read.encodings, within_ms=within_ms, priority=priority, fresh=fresh
            )
        else:
            answers = await self._batcher.answer(
                read.encodings, within_ms=within_ms, priority=priority
            )
        if window := reading.window:
            answers = put_together(answers, read.counts, window.aggregate)
        return Answered(
            answers=tuple(answers), tokens=sum(tokens), tokenize_ms=tokenize_ms, began_s=start_s
        )

    def operations(self) -> dict[str, float]:
        """Live numbers: work that waits, what was run, how well its time was foreseen.

        useful_token_ratio: tokens of texts to tokens with padding. loop_late_*: of the event loop,
        in the last minute. start_s: from the process's start to ready. cost_error: mean of the last
        relative errors of the cost model. *_cpu_s: CPU since the start, of lanes as `Tally` has it.
        healthy: 1 or 0.
        """
        tally = self._batcher.tally
        return {
            "queued_ms": round(self._batcher.queued_ms, 3),
            "batches": tally.batches,
            "texts": tally.texts,
            "useful_tokens": tally.useful_tokens,
            "padded_tokens": tally.padded_tokens,
            "useful_token_ratio": round(tally.useful_tokens / max(1, tally.padded_tokens), 4),
            "cost_error": round(self._cost.error, 4),
            "loop_late_p50_ms": round(self._pulse.late_ms(50), 3),
            "loop_late_p99_ms": round(self._pulse.late_ms(99), 3),
            "start_s": round(self._start_s, 3),
            **({} if self._cache is None else self._cache.numbers()),
            **({} if self.spans is None else self.spans.numbers()),
            "healthy": float(self.healthy()),
            "lanes": self.lanes.count,
            "lanes_busy_s": round(tally.busy_s, 4),
            "lanes_cpu_s": round(tally.cpu_s, 4),
            "tokenize_cpu_s": round(self._reader.cpu_s, 4),
        }

    @property
    def queued_ms(self) -> float:
        """Milliseconds of work that wait, spread over the lanes."""
        return self._batcher.queued_ms

    def batch_sizes(self) -> Sequence[int]:
        """Batches by their texts, as in `Tally`."""
        return self._batcher.tally.sizes

    def report(self) -> dict[str, float]:
        """Work since the last report, for the autoscaler; see `Reporter`."""
        return self._reporter.report(time.monotonic())

    @property
    def cache(self) -> Cache | None:
        """Where answers are kept, if they are."""
        return self._cache

    def healthy(self) -> bool:
        """Whether answers are being computed; false when a lane has stalled."""
        return self._batcher.healthy()

    async def close(self) -> None:
        """Answer what waits, refuse the rest, free the threads and what was loaded."""
        await self._batcher.close()
        if self._cache:
            await self._cache.close()
        self._pulse.stop()
        self._pool.close()
        self._reader.close()
        # By hand: FastAPI keeps its last thousands of handlers, and with them all that they know.
        self._engine.close()


def _spans(settings: ServeSettings, replica: str) -> Spans | None:
    """What the settings want, or the environment; none unless they say where to."""
    if not settings.traced:
        return None
    from serving.observing.spans import Spans  # memory that only those pay who trace

    return Spans(settings.otlp_endpoint, share=settings.trace_share, replica=replica)


def _cache(batcher: Batcher, package: Package, settings: ServeSettings) -> Cache | None:
    """What the settings want; none without bytes for it."""
    if not settings.cache_bytes:
        return None
    shared = None
    if settings.redis_url:
        from serving.caching.shared_cache import (
            SharedCache,  # memory that only those pay who use it
        )

        shared = SharedCache(
            settings.redis_url, ttl_s=settings.cache_ttl_s, budget_ms=settings.redis_budget_ms
        )
    return Cache(
        batcher,
        package_digest=package.digest,
        labels=len(package.config.labels),
        max_bytes=settings.cache_bytes,
        ttl_s=settings.cache_ttl_s,
        shared=shared,
    )
