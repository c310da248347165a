"""What a replica does before it is ready: prove its golden answers, and run the shapes to come."""

from __future__ import annotations

import logging
import math
import statistics
import time

import numpy as np

from serving.cost import CostModel
from serving.engine import Engine
from serving.errors import PackageError
from serving.gpu import gpus_for
from serving.isa import architecture, cpu_features
from serving.lanes import Lanes, filler, measure_cost, time_batch
from serving.package import GOLDEN_TOLERANCE, CostGrid, Package

_log = logging.getLogger(__name__)
# A core has enough to do with so many tokens at once: more of them are no cheaper a token, they only
# leave their memory behind, on each lane. A GPU has not.
_TOKENS_A_THREAD = 256
_COST_BUDGET_S = 5.0


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


def cost_here(engine: Engine, lanes: Lanes) -> CostGrid:
    """The package's cost grid, or one measured now on a CPU it was not chosen for."""
    package = engine.package
    missing = sorted(set(package.config.isa) - cpu_features())
    if not missing:
        return package.cost
    _log.warning(
        "This CPU has no %s, for which %s was chosen: it may be slow here. Its cost is measured"
        " again now; for the fastest variant, run miniml export %s on such a machine.",
        ", ".join(missing),
        package.config.precision,
        package.manifest.lineage.get("checkpoint", "CHECKPOINT"),
    )
    here = f"{architecture()} without {', '.join(missing)}"
    return measure_cost(engine, machine=here, lanes=lanes, budget_s=_COST_BUDGET_S)
