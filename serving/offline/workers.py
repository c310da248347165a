"""Ray, and workers on it: one a machine, with all its cores, fed by Ray Data."""

from __future__ import annotations

import logging
import os
import signal
import sys
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.environment import set_environment
from serving.lanes import usable_cores
from serving.offline.errors import OfflineError, WorkerLost
from serving.offline.worker import Duty, Worker, WorkerUpdate, heard

_OBJECT_STORE_BYTES = 80 * 2**20  # no text passes through it; Ray's least is 75 MiB
_STDERR = 2
_TRIES = 3  # on one piece: what kills workers again and again would go on for ever


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """Workers that fit: how many at once, and the cores and GPUs of each."""

    count: int
    cores: int
    gpus: int


def fleet(nodes: Sequence[dict[str, Any]], *, gpus: int) -> WorkerPlan:
    """One worker a machine, larger machines take several: *nodes* as Ray tells them.

    Raises `OfflineError` when none has a core, or none a GPU that is needed.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    if gpus:
        count = int(sum(node.get("GPU", 0) for node in alive))
        if not count:
            raise OfflineError("The package was exported for a GPU, and Ray finds none here.")
        return WorkerPlan(count=count, cores=1, gpus=gpus)
    cores = [int(node.get("CPU", 0)) for node in alive if node.get("CPU", 0) >= 1]
    if not cores:
        raise OfflineError("Ray has no node with a core to work on.")
    each = min(cores)
    return WorkerPlan(count=sum(node // each for node in cores), cores=each, gpus=0)


@contextmanager
def connected(cluster: str | None) -> Iterator[None]:
    """Ray: the *cluster* at this address, or one of our own on this machine, stopped afterwards.

    Where this process is connected already, that one.
    """
    handlers = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    if cluster is None:
        set_environment(haproxy=False)
    import ray as untyped_ray

    ray: Any = untyped_ray
    if ray.is_initialized():
        yield
        return
    try:
        _start(ray, cluster)
        for number, handler in handlers.items():  # Ray's own, below Python's, would abort
            signal.signal(number, handler)
        # As Ctrl-C: whoever stops a job gently need not wait for Ray's processes to notice.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        yield
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, handlers[signal.SIGTERM])


def _start(ray: Any, cluster: str | None) -> None:
    told = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cluster is None:
        ray.init(
            address="local",  # never a cluster that RAY_ADDRESS names or that runs here already
            num_cpus=usable_cores(),
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            **told,
        )
        return
    # What `set_environment` says where Ray is our own.
    variables = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    try:
        ray.init(address=cluster, runtime_env={"env_vars": variables}, **told)
    except ConnectionError as error:
        raise OfflineError(f"There is no Ray at {cluster} ({error}).") from error


def work_here(duty: Duty, numbers: Sequence[int]) -> Generator[WorkerUpdate]:
    """As `work`, in this process: for what is done before Ray would have started."""
    worker = Worker(duty, usable_cores())
    for number in numbers:
        for batch in worker({"item": [number]}):
            yield heard({name: values[0] for name, values in batch.items()})


def work(duty: Duty, numbers: Sequence[int], *, gpus: int) -> Generator[WorkerUpdate]:
    """What workers tell while they do the pieces of these *numbers*, in no order.

    Raises `WorkerLost` when they die too often on one piece.
    """
    import ray as untyped_ray
    from ray import data as untyped_data

    ray: Any = untyped_ray
    data: Any = untyped_data
    _quieten(data)
    size = fleet(ray.nodes(), gpus=gpus)
    # A piece a block, and a block a task: who is done takes the next one.
    pieces = data.from_items(list(numbers), override_num_blocks=len(numbers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # in 2.60 there is no other way to bound retries
        told = pieces.map_batches(
            Worker,
            batch_size=None,
            fn_constructor_args=(duty, size.cores),
            compute=data.ActorPoolStrategy(
                size=min(size.count, len(numbers)), max_tasks_in_flight_per_actor=2
            ),
            num_cpus=size.cores,
            num_gpus=size.gpus,
            max_task_retries=_TRIES,
        )
    try:
        with _core_unheard():
            for row in told.iter_rows():
                yield heard(row)
    except ray.exceptions.RayActorError as error:
        raise WorkerLost(
            f"Workers died {_TRIES + 1} times on one part ({str(error).splitlines()[0]}).",
            hint="Is memory short? The next run goes on; --part-rows makes parts smaller.",
        ) from error


@contextmanager
def _core_unheard() -> Iterator[None]:
    """What Ray's core says past Python is only in its logs; Python's own words still come out.

    It calls an error what Ray Data does always: give an actor objects to begin with.
    """
    python, core = sys.stderr, os.dup(_STDERR)
    with (
        os.fdopen(core, "w", buffering=1, closefd=False) as direct,
        Path(os.devnull).open("w") as null,
    ):
        try:
            ours = python.fileno() == _STDERR
        except (OSError, ValueError):  # somebody collects what we say, and reads no file
            ours = False
        os.dup2(null.fileno(), _STDERR)
        sys.stderr = direct if ours else python
        try:
            yield
        finally:
            sys.stderr = python
            os.dup2(core, _STDERR)
    os.close(core)


def _quieten(data: Any) -> None:
    """Let Ray Data tell us alone: no bars, and each row as soon as a worker says it."""
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = 1  # bytes: else it would be kept back until there are 128 MiB
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
