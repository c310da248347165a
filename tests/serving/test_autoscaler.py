"""Laws of the autoscaler: it decides as the pure function does, and a real Ray follows."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from ray.serve.config import AutoscalingContext

from serving.autoscaler import QueuedWorkPolicy, replicas_for, reported_by
from serving.client import Client
from serving.environment import free_ports
from serving.errors import ServingError
from serving.options import ServeOptions
from serving.package import Package
from serving.scaling import ScalingGoal, ScalingMemory, decide
from serving.server import refuse_too_many_replicas
from serving.settings import ServeSettings, most_replicas

START_S = 120.0
NAMES = ("load", "texts", "waiting_s", "batch_ms")


class Point:
    """As Ray's `TimeStampedValue`."""

    def __init__(self, value: float) -> None:
        self.value = value


def told(*replicas: tuple[float, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Means and points of replicas that say (load, texts, waiting_s, batch_ms) all the time."""
    columns = list(zip(*replicas, strict=True)) if replicas else []
    means = {
        name: dict(enumerate(column)) for name, column in zip(NAMES, columns, strict=bool(replicas))
    }
    points = {
        name: {place: [Point(0.0), Point(value)] for place, value in column.items()}
        for name, column in means.items()
    }
    return means, points


def asked(state: dict[str, Any], now_s: float, *replicas: tuple[float, ...]) -> AutoscalingContext:
    """What Ray's controller tells a policy."""
    means, points = told(*replicas)
    nobody: Any = None
    return AutoscalingContext(
        deployment_id=nobody,
        deployment_name="Encoder",
        app_name="miniml",
        current_num_replicas=len(replicas),
        target_num_replicas=7,
        running_replicas=[],
        total_num_requests=0.0,
        total_queued_requests=0.0,
        aggregated_metrics=means,
        raw_metrics=points,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=10,
        policy_state=state,
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=now_s,
        config=nobody,
    )


def test_it_decides_as_the_pure_function_does() -> None:
    """Over a rise and a fall, with Ray's state kept as JSON in between, every decision is the same."""
    goal = {"least": 1, "most": 10, "queue_ms": 50.0}
    policy = QueuedWorkPolicy(**goal)
    state: dict[str, Any] = {}
    memory = ScalingMemory(busy_at_s=0.0)
    for second, load in enumerate([0.5, 0.5, 2.5, 2.5, 1.0, *[0.2] * 80, 0.0]):
        replicas = [(load, 300 * load, 0.1, 12.0)] * 2
        wanted, state = policy(asked(json.loads(json.dumps(state)), float(second), *replicas))
        reported = reported_by(*told(*replicas), over_s=10.0)
        assert reported
        expected, memory = decide(reported, ScalingGoal(**goal), memory, float(second))  # type: ignore[arg-type]

        assert wanted == expected


def test_silence_changes_nothing() -> None:
    """Before any replica has reported, as many are wanted as were."""
    wanted, state = QueuedWorkPolicy(least=1, most=10)(asked({"kept": 1}, 5.0))

    assert (wanted, state) == (7, {"kept": 1})


def test_a_fixed_number_is_not_scaled() -> None:
    """Where least is most there is no autoscaling; more at least than at most is refused."""
    assert replicas_for(ServeSettings(package="p", min_replicas=3, max_replicas=3)) == {
        "num_replicas": 3
    }
    with pytest.raises(ServingError, match="min_replicas is 2"):
        replicas_for(ServeSettings(package="p", min_replicas=2))


def test_what_does_not_fit_is_refused() -> None:
    """More cores than this machine has would be waited for for ever: one sentence says what to do."""
    with pytest.raises(ServingError, match="do not fit") as refused:
        refuse_too_many_replicas(ServeOptions(max_replicas=1000, lanes=1))

    assert "--write-config" in refused.value.hint
    refuse_too_many_replicas(ServeOptions(max_replicas=1))


@pytest.mark.parametrize(("least", "most"), [(1, 0), (0, 0), (-1, 2), (3, 2)])
def test_impossible_bounds_are_refused(least: int, most: int) -> None:
    """Before anything is started, in one sentence."""
    with pytest.raises(ServingError, match=f"cannot be {least} to {most}"):
        most_replicas(ServeOptions(min_replicas=least, max_replicas=most))


@pytest.fixture
def scaled(package: Package, tmp_path: Path) -> Iterator[tuple[str, Callable[[], int]]]:
    """A real server of none to two replicas, which lets go quickly: its URL, and how many there are.

    So small a model is never busy: the goal is so strict that a little work is too much for one.
    """
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "miniml", "serve", str(package.folder), "--port", str(port)]
    sizes = ["--lanes", "1", "--threads", "1", "--min-replicas", "0", "--max-replicas", "2"]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MINIML_"))}
    quick = {"MINIML_KEEP_S": "2", "MINIML_IDLE_S": "4", "MINIML_HOME": str(tmp_path)}
    with (tmp_path / "log").open("wb") as log:
        process = psutil.Popen(
            [*command, *sizes, "--cache-mb", "0", "--queue-goal-ms", "0.001"],
            env=kept | quick,
            stdout=log,
            stderr=log,
        )

    def replicas() -> int:
        names = [" ".join(_command(child)) for child in process.children(recursive=True)]
        return sum("ServeReplica" in name for name in names)

    try:
        with Client(f"http://127.0.0.1:{port}") as client:
            client.wait_ready(timeout_s=START_S, alive=lambda: process.poll() is None)
        yield f"http://127.0.0.1:{port}", replicas
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(START_S) == 0


def test_a_real_server_grows_shrinks_to_none_and_comes_back(
    scaled: tuple[str, Callable[[], int]],
) -> None:
    """With work for more than one there are two; without any, none; the next text is answered."""
    url, replicas = scaled
    texts = ["not warm " * 60] * 512
    with httpx.Client(base_url=url, timeout=START_S) as client:
        deadline_s = time.monotonic() + START_S
        while replicas() < 2 and time.monotonic() < deadline_s:
            client.post("/predict", json={"texts": texts})
        assert replicas() == 2

        deadline_s = time.monotonic() + START_S
        while replicas() and time.monotonic() < deadline_s:
            time.sleep(0.2)
        assert replicas() == 0

        answer = client.post("/predict", json={"text": "good"})
        assert answer.status_code == 200
        assert replicas() == 1


def _command(process: psutil.Process) -> list[str]:
    try:
        found: list[str] = process.cmdline()
    except psutil.Error:  # it has just ended
        return []
    return found
