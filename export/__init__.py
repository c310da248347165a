"""From a checkpoint to the fastest package that still gives the same answers, and proves it.

`from export import ExportOptions, export_package`: `pipeline` is the stage, `candidates` the recipes
it chooses from, `gates` what each must pass. Importing this package imports nothing heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from export.options import ExportOptions

if TYPE_CHECKING:
    from export.pipeline import export_package

__all__ = ["ExportOptions", "export_package"]


def __getattr__(name: str) -> Any:
    """`export_package`, on first use: it imports torch, optimum and ONNX Runtime."""
    if name == "export_package":
        from export.pipeline import export_package

        return export_package
    raise AttributeError(name)
