"""A fit shared by several processes, which Ray Train starts here or on the cluster of RAY_ADDRESS.

Model, rows and plan travel through Ray's object store, so a worker needs neither dataset nor base
model. What comes back lies in the work folder, as resume points: all machines must see that folder.
Imported only when more than one worker is wanted; Ray is imported when a fit begins.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shutil
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed import DistError
from transformers import TrainerCallback

from training.callbacks import Bar, ProgressFile
from training.device import Device, usable_cores
from training.errors import FitFailed, TrainError
from training.resume import last_complete, step_of
from training.shared import Share
from training.trainer import Fit, FitData, FitPlan, fit, state_if_over

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_log = logging.getLogger(__name__)
_LOOK_EVERY_S = 0.5
_START_MINUTES = 30  # Ray tries for a minute at a time; a cluster may have to fetch machines
_FULL = (errno.ENOSPC, errno.EDQUOT)
# For a Ray of our own. A token keeps its ports closed to others; Ray would run workers at nice 15, and
# watch for a cloud that takes machines back, and look only every 2 s whether a run has ended.
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """What every worker is given. told: a file that is there already, and says how far they are."""

    model: PreTrainedModel
    data: FitData
    plan: FitPlan
    told: Path


def fit_over_workers(
    model: PreTrainedModel, data: FitData, plan: FitPlan, bar: Bar, *, workers: int
) -> Fit:
    """As `training.trainer.fit`, in *workers* processes that divide each batch among them.

    Raises `FitFailed` when a worker dies or sees no work folder; interrupted, all workers end.
    """
    if not (plan.resume_from and state_if_over(plan, plan.resume_from)):
        _run(model, data, plan, bar, workers)
        plan = replace(plan, resume_from=last_complete(plan.work))
        over = plan.resume_from and state_if_over(plan, plan.resume_from)
        assert over, "the workers ended before the run did; this is a bug"
    done = fit(model, data, plan, bar)
    model.to(torch.device(plan.device))  # type: ignore[arg-type]  # transformers' wrapper hides it
    return done


def _run(model: PreTrainedModel, data: FitData, plan: FitPlan, bar: Bar, workers: int) -> None:
    """Train until the last resume point is there. Nothing of Ray's is left in the work folder."""
    name = secrets.token_hex(8)
    told = plan.work / f"{name}.told"
    told.touch()
    store = plan.work / name
    try:
        with _ray(workers, plan.device) as ray, _shown(told, bar):
            task = ray.put(_Task(model=model, data=data, plan=plan, told=told))
            _train(task, workers=workers, device=plan.device, store=store)
    except Exception as error:
        if ours := _as_ours(error, plan.work):
            raise ours from error
        raise
    finally:
        told.unlink(missing_ok=True)
        shutil.rmtree(store, ignore_errors=True)


def _train(task: Any, *, workers: int, device: Device, store: Path) -> None:
    """Run `_work` in every worker. Raises Ray's `TrainingFailedError`."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    failures: Any = FailureConfig  # to mypy it is that of Ray Train's first version

    class Interruptible(TorchTrainer):
        def _register_sigint_handler(self, _: Any) -> None:
            """None: Ray's would exit with 0. KeyboardInterrupt ends this process's Ray, or job."""

    Interruptible(
        _work,
        train_loop_config={"task": task},
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=device == "cuda", placement_strategy="SPREAD"
        ),
        run_config=RunConfig(
            name="fit",
            storage_path=str(store),
            # Of itself nothing is begun again: the plan knows only where this try began.
            failure_config=failures(
                max_preemption_failures=0, controller_failure_limit=_START_MINUTES
            ),
        ),
    ).fit()


def _work(config: Mapping[str, Any]) -> None:
    """One worker. Raises what `fit` raises, and `FitFailed` where the work folder is another."""
    import ray
    from ray import train

    task: _Task = ray.get(config["task"])
    if not task.told.exists():
        raise FitFailed(
            f"{socket.gethostname()} does not see {task.plan.work}; let MINIML_HOME name a folder "
            "that all machines of the cluster share."
        )
    context = train.get_context()
    torch.set_num_threads(max(1, usable_cores() // context.get_local_world_size()))
    share = Share(rank=context.get_world_rank(), count=context.get_world_size())
    watcher = ProgressFile(task.told) if share.rank == 0 else TrainerCallback()
    fit(task.model, task.data, task.plan, watcher, share)


@contextmanager
def _ray(workers: int, device: Device) -> Iterator[Any]:
    """Ray, connected: the cluster that RAY_ADDRESS names, else one of our own on this machine."""
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray as untyped_ray

    ray: Any = untyped_ray
    logging.getLogger("ray").setLevel(logging.ERROR)
    own = {"num_cpus": max(usable_cores(), workers), "include_dashboard": False}
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.ERROR,
            **({} if address else own),
        )
    except ConnectionError as error:
        raise FitFailed(
            f"No Ray cluster answers at RAY_ADDRESS={address}; correct it, or unset it to train here."
        ) from error
    try:
        _say(ray, address, workers, device)
        yield ray
    finally:
        ray.shutdown()


def _say(ray: Any, address: str | None, workers: int, device: Device) -> None:
    _log.info(
        "Ray runs the workers on %s.", f"the cluster at {address}" if address else "this machine"
    )
    kind = "GPU" if device == "cuda" else "CPU"
    here = int(ray.cluster_resources().get(kind, 0))
    if here < workers:
        _log.info("It has %d %ss; waiting until there is one for each worker.", here, kind)


@contextmanager
def _shown(told: Path, bar: Bar) -> Iterator[None]:
    """Meanwhile, show on *bar* what the first worker writes to *told*."""
    ended = threading.Event()

    def look() -> None:
        over = False
        while not over:
            over = ended.wait(_LOOK_EVERY_S)
            if known := ProgressFile.read(told):
                bar.show(*known)

    looker = threading.Thread(target=look, name="progress")
    looker.start()
    try:
        yield
    finally:
        ended.set()
        looker.join()


def _as_ours(error: Exception, work: Path) -> Exception | None:
    """What a user can mend, of what Ray Train raised; None when it is a bug."""
    from ray.exceptions import RayError
    from ray.train import ControllerError, WorkerGroupError

    if isinstance(error, ControllerError):
        said = str(error.controller_failure).strip().partition("\n")[0]
        return FitFailed(f"Ray could not start the workers: {said}")
    if not isinstance(error, WorkerGroupError):
        return None
    causes = [getattr(cause, "_base_exc", cause) for cause in error.worker_failures.values()]
    for cause in causes:
        if isinstance(cause, TrainError) or getattr(cause, "errno", None) in _FULL:
            return cause
    # Where one dies, the others hear no more of it, and may be the first to say so.
    if any(isinstance(cause, RayError | DistError) or "gloo" in str(cause) for cause in causes):
        point = last_complete(work)
        goes_on = f"goes on at step {step_of(point)}" if point else "starts anew"
        return FitFailed(
            f"A worker died or its machine went away; the same with --resume {goes_on}."
        )
    return None
