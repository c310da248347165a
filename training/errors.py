"""What can stop a transform or a training run.

TrainingError            exit code 1; every message is one sentence with the way out
├── TransformError       rows -> dataset
│   ├── SourceError      the source is missing, empty or cannot be read
│   ├── ColumnError      a column is missing, or which one is meant is not certain
│   └── LabelError       the labels cannot make a classifier
└── TrainError           dataset -> checkpoint
    ├── BaseModelError   the base model is missing, unsafe, or not an encoder we can load
    ├── DeviceError      the device asked for is not there
    ├── DatasetError     the folder is not a dataset of this schema
    ├── WrongOption      an option is out of range, or contradicts another
    └── FitFailed        diverged, out of memory, or the same run is at work elsewhere
"""

from __future__ import annotations


class TrainingError(Exception):
    """Base of all; `exit_code` marks it as something the user can mend (see `miniml.py`)."""

    exit_code = 1


class TransformError(TrainingError):
    """Rows could not become a dataset."""


class SourceError(TransformError):
    """The source is missing, empty or cannot be read."""


class ColumnError(TransformError):
    """A column is missing, or which one is meant is not certain."""


class LabelError(TransformError):
    """The labels cannot make a classifier."""


class TrainError(TrainingError):
    """A dataset could not become a checkpoint."""


class BaseModelError(TrainError):
    """The base model is missing, unsafe, or not an encoder that can be loaded."""


class DeviceError(TrainError):
    """The device asked for is not there."""


class DatasetError(TrainError):
    """The folder is not a dataset of this schema."""


class WrongOption(TrainError):
    """An option is out of range, or contradicts another."""


class FitFailed(TrainError):
    """The fit diverged, ran out of memory, or the same run is at work in another process."""
