"""What `miniml train` refuses before any work is done, by its options alone."""

from __future__ import annotations

from importlib.util import find_spec

from registry.errors import ArtifactExists
from training.errors import WrongOption
from training.options import TrainOptions

_RAY_TRAIN = ("ray", "pandas", "pyarrow", "requests")
_MIN_LENGTH = 8  # tokens: the special ones and something to read


def check(options: TrainOptions) -> None:
    """Raise `WrongOption` for what cannot work, and `ArtifactExists`, before any work is done."""
    if options.iterations is not None and options.epochs is not None:
        raise WrongOption("--iterations and --epochs contradict each other; give one of them.")
    positive = (
        "batch_size",
        "workers",
        "epochs",
        "learning_rate",
        "early_stopping_patience",
    )
    for name in positive:
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise WrongOption(f"--{name.replace('_', '-')} is {value}; it must be above 0.")
    if options.iterations is not None and options.iterations < 0:
        raise WrongOption(
            f"--iterations is {options.iterations}; give steps, or 0 to take a trained model as it is."
        )
    _check_workers(options)
    if options.max_length < _MIN_LENGTH:
        raise WrongOption(
            f"--max-length is {options.max_length}; at least {_MIN_LENGTH} is needed."
        )
    if not options.model_id.strip():
        raise WrongOption("--model-id is empty; give a hub id or a folder.")
    if options.output is not None and options.output.exists():
        raise ArtifactExists(f"{options.output} already exists; remove it or choose another one.")


def _check_workers(options: TrainOptions) -> None:
    workers, rest = options.workers, options.batch_size % options.workers
    if rest:
        raise WrongOption(
            f"--batch-size {options.batch_size} cannot be divided among --workers {workers}; "
            f"{options.batch_size + workers - rest} can."
        )
    if workers > 1 and not all(map(find_spec, _RAY_TRAIN)):
        raise WrongOption(f"--workers {workers} needs Ray Train; pip install 'miniml[workers]'.")
