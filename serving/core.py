"""The heart of one replica: package, tokenizer, lanes and batcher put together.

`ask` is the one way to an answer, whichever protocol asks. Knows nothing of HTTP or Ray.
"""

from __future__ import annotations

import asyncio
import logging
import math
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from serving.batcher import Batcher
from serving.cost import CostModel
from serving.engine import Engine, Prediction, prediction
from serving.errors import PackageError
from serving.gpu import gpus_for
from serving.isa import architecture, cpu_features
from serving.lanes import LanePool, Lanes, filler, measure_cost, time_batch
from serving.line import Priority
from serving.memory import give_back_memory
from serving.package import GOLDEN_TOLERANCE, CostGrid, Package
from serving.pulse import Pulse, process_age_s
from serving.session import Encoding
from serving.settings import ServeSettings
from serving.token_estimate import TokenEstimate

_log = logging.getLogger(__name__)
# Up to here tokenizing takes less time than the hop to a thread and back.
_INLINE_CHARS = 8000
_COST_BUDGET_S = 5.0
# A core has enough to do with so many tokens at once: more of them are no cheaper a token, they only
# leave their memory behind, on each lane. A GPU has not.
_TOKENS_A_THREAD = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Predictions in order, and where the time of the slowest of them went."""

    predictions: tuple[Prediction, ...]
    tokenize_ms: float
    queue_ms: float
    infer_ms: float


class Core:
    """A package ready to answer. Construct it off the hot path: it warms up and proves itself.

    Raises `PackageError` when the package does not reproduce its golden answers here.
    """

    def __init__(self, package: Package, lanes: Lanes, settings: ServeSettings) -> None:
        self.package = package
        self.lanes = lanes
        self._engine = Engine(package, threads=lanes.threads, streams=lanes.count)
        prove_golden_answers(self._engine)
        self._cost = CostModel(self._cost_here())
        warm_up(self._engine, lanes, self._cost)
        give_back_memory()
        self._pool = LanePool(self._engine, lanes)
        self._tokenizers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tokenize")
        self._estimate = TokenEstimate(longest=package.config.max_length)
        self._tokenize_cpu_s = 0.0
        self._pulse = Pulse()
        self._batcher = Batcher(
            self._pool,
            self._cost,
            max_batch=settings.max_batch if package.config.batch_invariant else 1,
            max_tokens=settings.max_batch_tokens or enough_tokens(package, lanes),
            max_queue_ms=settings.max_queue_ms,
        )
        self._start_s = process_age_s()

    async def ask(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        *,
        within_ms: float = math.inf,
        priority: Priority = "normal",
    ) -> Answered:
        """Answers in the order of *texts*, each what the engine says of that text alone.

        within_ms: from now; beyond it `DeadlineExceeded`, without compute where that is foreseen.
        """
        self._pulse.start()
        chars = [len(a) + len(b) for a, b in zip(texts, pairs or repeat(""), strict=False)]
        self._batcher.refuse_without_room([self._estimate.tokens(count) for count in chars])
        start_s = time.perf_counter()
        encodings = await self._tokenize(texts, pairs, sum(chars))
        self._estimate.learn(chars, [len(encoding) for encoding in encodings])
        tokenize_ms = (time.perf_counter() - start_s) * 1e3
        answers = await self._batcher.answer(
            encodings, within_ms=within_ms - tokenize_ms, priority=priority
        )
        return Answered(
            predictions=tuple(prediction(answer.logits, self.package) for answer in answers),
            tokenize_ms=tokenize_ms,
            queue_ms=max(answer.queue_ms for answer in answers),
            infer_ms=max(answer.infer_ms for answer in answers),
        )

    def operations(self) -> dict[str, float]:
        """Live numbers: work that waits, what was run, how well its time was foreseen.

        useful_token_ratio: tokens of texts to tokens with padding. loop_late_*: of the event loop,
        in the last minute. start_s: from the process's start to ready. cost_error: mean of the last
        relative errors of the cost model. *_cpu_s: CPU since the start, of lanes as `Tally` has it.
        """
        tally = self._batcher.tally
        return {
            "queued_ms": round(self._batcher.queued_ms, 3),
            "batches": tally.batches,
            "texts": tally.texts,
            "useful_token_ratio": round(tally.useful_tokens / max(1, tally.padded_tokens), 4),
            "cost_error": round(self._cost.error, 4),
            "loop_late_p50_ms": round(self._pulse.late_ms(50), 3),
            "loop_late_p99_ms": round(self._pulse.late_ms(99), 3),
            "start_s": round(self._start_s, 3),
            "lanes_cpu_s": round(tally.cpu_s, 4),
            "tokenize_cpu_s": round(self._tokenize_cpu_s, 4),
        }

    def healthy(self) -> bool:
        """Whether answers are being computed; false when a lane has stalled."""
        return self._batcher.healthy()

    async def close(self) -> None:
        """Answer what waits, refuse the rest, free the threads."""
        await self._batcher.close()
        self._pulse.stop()
        self._pool.close()
        self._tokenizers.shutdown()

    def _cost_here(self) -> CostGrid:
        """The package's cost grid, or one measured now on a CPU it was not chosen for."""
        missing = sorted(set(self.package.config.isa) - cpu_features())
        if not missing:
            return self.package.cost
        _log.warning(
            "This CPU has no %s, for which %s was chosen: it may be slow here. Its cost is measured"
            " again now; for the fastest variant, run miniml export %s on such a machine.",
            ", ".join(missing),
            self.package.config.precision,
            self.package.manifest.lineage.get("checkpoint", "CHECKPOINT"),
        )
        here = f"{architecture()} without {', '.join(missing)}"
        return measure_cost(self._engine, machine=here, lanes=self.lanes, budget_s=_COST_BUDGET_S)

    async def _tokenize(
        self, texts: Sequence[str], pairs: Sequence[str] | None, chars: int
    ) -> list[Encoding]:
        if chars <= _INLINE_CHARS:
            encodings, cpu_s = self._encode(texts, pairs)
        else:
            loop = asyncio.get_running_loop()
            encodings, cpu_s = await loop.run_in_executor(
                self._tokenizers, self._encode, texts, pairs
            )
        self._tokenize_cpu_s += cpu_s
        return encodings

    def _encode(
        self, texts: Sequence[str], pairs: Sequence[str] | None
    ) -> tuple[list[Encoding], float]:
        """Encodings, and the CPU seconds they took."""
        began_s = time.thread_time()
        encodings = self._engine.tokenizer.encode(texts, pairs)
        return encodings, time.thread_time() - began_s


def enough_tokens(package: Package, lanes: Lanes) -> float:
    """Tokens, with padding, beyond which a batch is no cheaper a token; a text alone may have them."""
    if gpus_for(package.config, "auto"):
        return math.inf
    return max(package.cost.lengths[-1], _TOKENS_A_THREAD * lanes.threads)


def prove_golden_answers(engine: Engine) -> None:
    """Run the golden texts; this is the warm-up, too.

    Raises `PackageError` when an answer differs from the package's own by more than the tolerance.
    """
    golden = engine.package.golden()
    logits = engine.logits([g.text for g in golden], [g.text_pair for g in golden])
    for expected, row in zip(golden, logits, strict=True):
        difference = float(np.abs(row - np.asarray(expected.logits, dtype=np.float32)).max())
        if not difference <= GOLDEN_TOLERANCE:
            raise PackageError(
                f"The package does not reproduce its golden answers on this machine (logits differ"
                f" by {difference:.3f} on {expected.text[:40]!r}); export it again here."
            )
    _log.info("All %d golden answers reproduced", len(golden))


def warm_up(engine: Engine, lanes: Lanes, cost: CostModel, *, budget_s: float = 0.5) -> None:
    """Run the shapes of the cost grid on all lanes, small ones first, and let *cost* learn from them.

    For *budget_s*, and up to as many tokens as a batch will have.
    """
    grid = engine.package.cost
    largest = 1 if not engine.package.config.batch_invariant else max(grid.batches)
    most = enough_tokens(engine.package, lanes)
    shapes = sorted(
        (batch * length, batch, length)
        for batch in grid.batches
        for length in grid.lengths
        if batch <= largest and batch * length <= most
    )
    deadline_s = time.perf_counter() + budget_s
    for _, batch, length in shapes:
        if time.perf_counter() > deadline_s:
            return
        texts = [filler(length)] * batch
        engine.run(texts)  # the first run of a shape allocates
        times_ms = time_batch(engine.run, texts, lanes.count, 1, deadline_s)
        cost.observe(batch, length, statistics.median(times_ms))
