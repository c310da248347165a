"""Ray's autoscaler asks here how many replicas there should be; `serving.scaling` decides.

In HAProxy mode Ray does not see what is queued at a replica, and behind our shortcut it counts no
requests at all: what replicas report themselves is all there is.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from serving.errors import ServingError
from serving.scaling import Reported, ScalingGoal, ScalingMemory, decide
from serving.settings import ServeSettings

if TYPE_CHECKING:
    from ray.serve.config import AutoscalingContext

# Seconds over which Ray averages what replicas report once a second (`serving.environment`).
_LOOK_BACK_S, _TELL_S = 10.0, 1.0
_NEEDED, _BUSY_AT_S = "miniml_needed", "miniml_busy_at_s"


def replicas_for(settings: ServeSettings) -> dict[str, Any]:
    """Options of Ray's deployment: always as many replicas, or as many as the work needs.

    Raises `ServingError` when there should be more at least than at most.
    """
    least, most = settings.min_replicas, settings.max_replicas
    if least > most:
        raise ServingError(f"min_replicas is {least}, more than max_replicas, {most}.")
    if least == most:
        return {"num_replicas": most}
    goal = {
        "least": least,
        "most": most,
        "queue_ms": settings.queue_goal_ms,
        "keep_s": settings.keep_s,
        "idle_s": settings.idle_s,
    }
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    with warnings.catch_warnings():  # Ray means to rename metrics_interval_s, and has not yet
        warnings.simplefilter("ignore", DeprecationWarning)
        config = AutoscalingConfig(
            min_replicas=least,
            initial_replicas=max(1, least),
            max_replicas=most,
            metrics_interval_s=_TELL_S,
            look_back_period_s=_LOOK_BACK_S,
            # When to act is the policy's to say; Ray would only make it wait.
            upscale_delay_s=0,
            downscale_delay_s=0,
            downscale_to_zero_delay_s=0,
            policy=AutoscalingPolicy(  # type: ignore[no-untyped-call]
                policy_function=f"{__name__}:QueuedWorkPolicy", policy_kwargs=goal
            ),
        )
    return {"autoscaling_config": config}


class QueuedWorkPolicy:
    """Ray makes one in its controller, with the goal's fields as keywords."""

    def __init__(self, **goal: float) -> None:
        self._goal = ScalingGoal(**goal)  # type: ignore[arg-type]

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Replicas from now on, and what Ray keeps until it asks again."""
        kept: Mapping[str, Any] = context.policy_state or {}
        now_s = context.current_time or 0.0
        reported = reported_by(
            context.aggregated_metrics or {}, context.raw_metrics or {}, over_s=_LOOK_BACK_S
        )
        if reported is None:  # nobody has said anything yet
            return context.target_num_replicas, dict(kept)
        memory = ScalingMemory(
            needed=tuple((at_s, count) for at_s, count in kept.get(_NEEDED, ())),
            busy_at_s=kept.get(_BUSY_AT_S, now_s),
        )
        wanted, memory = decide(reported, self._goal, memory, now_s)
        return wanted, {_NEEDED: list(memory.needed), _BUSY_AT_S: memory.busy_at_s}


def reported_by(
    means: Mapping[str, Mapping[Any, float]],
    points: Mapping[str, Mapping[Any, Sequence[Any]]],
    *,
    over_s: float,
) -> Reported | None:
    """All replicas together, by their means over *over_s* and their last points; None without any."""
    load = means.get("load")
    if not load:
        return None
    latest = {name: _last(points.get(name, {})) for name in ("load", "texts", "waiting_s")}
    batch_ms = [ms for ms in means.get("batch_ms", {}).values() if ms > 0]
    return Reported(
        load=sum(load.values()),
        over_s=over_s,
        latest=sum(latest["load"]),
        latest_texts=sum(latest["texts"]),
        batch_ms=sum(batch_ms) / len(batch_ms) if batch_ms else 0.0,
        waiting_s=sum(latest["waiting_s"]),
    )


def _last(points: Mapping[Any, Sequence[Any]]) -> list[float]:
    return [float(series[-1].value) for series in points.values() if series]
