"""What a record says of the package it measured: enough to put accuracy beside speed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from serving.package import Package

_JUDGED = ("accuracy", "macro_f1", "calibration_error", "model_bytes")
_GATES = ("exam_rows", "label_flip_rate", "flip_interval", "batch_flip_rate", "batch_bit_equal")


def about_package(package: Package) -> dict[str, Any]:
    """Name, base model, precision, runtime, and the figures of its gates without the candidates."""
    return {
        "name": package.config.name,
        "base_model": _public(package.config.base_model),
        "precision": package.config.precision,
        "runtime": package.config.runtime,
        "gates": slim_gates(package.gates),
    }


def _public(base_model: str) -> str:
    """A hub id as it is; of a folder its name: where it lies is nobody's business."""
    return Path(base_model).name if Path(base_model).is_absolute() else base_model


def slim_gates(gates: Mapping[str, Any]) -> dict[str, Any]:
    """`gates.json` without the candidates that are not served; what is missing stays missing."""
    return {
        **{name: gates[name] for name in _GATES if name in gates},
        **{
            variant: {name: gates[variant][name] for name in _JUDGED if name in gates[variant]}
            for variant in ("fp32", "served")
            if isinstance(gates.get(variant), Mapping)
        },
    }
