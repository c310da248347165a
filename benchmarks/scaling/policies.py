"""The policies beside each other: ours, and Ray's own code with the metrics that its replicas push."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any

from benchmarks.scaling.simulator import Observed, ReplicaKind, ScalingPolicy
from serving.scaling import Reported, ScalingGoal, ScalingMemory, decide

MakeScaling = Callable[[], ScalingPolicy]
# Ours, as the server sets it: seconds over which a rate is taken.
LONG_S = 10
# Ray's defaults: a point every 6 s (a fifth of the look-back), pushed every 10 s, mean over 30 s.
_POINT_S, _PUSH_S, _LOOK_BACK_S = 6, 10, 30


class OnQueuedWork:
    """Ours, told once a second what replicas counted in it."""

    def __init__(self, goal: ScalingGoal, kind: ReplicaKind) -> None:
        self._goal = goal
        self._batch_ms = kind.batch_ms
        self._memory = ScalingMemory()
        self._work: deque[float] = deque(maxlen=LONG_S)

    def wanted(self, observed: Observed, target: int, now_s: float) -> int:  # noqa: ARG002
        """See `serving.scaling.decide`."""
        self._work.append(observed.work_s)
        reported = Reported(
            load=sum(self._work) / len(self._work),
            over_s=len(self._work),
            latest=observed.work_s,
            latest_texts=observed.texts,
            batch_ms=self._batch_ms,
            waiting_s=observed.waiting_s,
        )
        wanted, self._memory = decide(reported, self._goal, self._memory, now_s)
        return wanted


class OnOngoingRequests:
    """Ray's default policy, run by Ray's own code; *config* as its `AutoscalingConfig`."""

    def __init__(self, goal: ScalingGoal, **config: Any) -> None:
        from ray.serve.config import AutoscalingConfig

        self._config = AutoscalingConfig(min_replicas=goal.least, max_replicas=goal.most, **config)
        self._points: deque[tuple[float, float]] = deque()
        self._pushed = 0.0
        self._state: dict[str, Any] = {}

    def wanted(self, observed: Observed, target: int, now_s: float) -> int:
        """From what was pushed last."""
        if now_s % _POINT_S == 0:
            self._points.append((now_s, observed.waiting_texts + observed.working_texts))
        while self._points and now_s - self._points[0][0] > _LOOK_BACK_S:
            self._points.popleft()
        if now_s % _PUSH_S == 0 and self._points:
            self._pushed = sum(count for _, count in self._points) / len(self._points)
        return self._decided(observed.running, target, now_s)

    def _decided(self, running: int, target: int, now_s: float) -> int:
        from ray.serve.autoscaling_policy import (
            _apply_delay_logic,
            _apply_scaling_factors,
            replica_queue_length_autoscaling_policy,
        )
        from ray.serve.config import AutoscalingContext

        untold: Any = None
        context = AutoscalingContext(
            deployment_id=untold,
            deployment_name="simulated",
            app_name=untold,
            current_num_replicas=running,
            target_num_replicas=target,
            running_replicas=[],
            total_num_requests=self._pushed,
            total_queued_requests=0.0,
            aggregated_metrics=untold,
            raw_metrics=untold,
            capacity_adjusted_min_replicas=self._config.min_replicas,
            capacity_adjusted_max_replicas=self._config.max_replicas,
            policy_state=self._state,
            last_scale_up_time=untold,
            last_scale_down_time=untold,
            current_time=now_s,
            config=self._config,
        )
        desired, _ = replica_queue_length_autoscaling_policy(context)
        scaled = _apply_scaling_factors(desired, running, self._config)
        wanted, self._state = _apply_delay_logic(
            max(0, math.ceil(scaled)), target, self._config, self._state, _now=now_s
        )
        return min(max(wanted, self._config.min_replicas), self._config.max_replicas)
