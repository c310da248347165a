"""What an image holds, in bytes: by Python distribution, and in all."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

_ABSENT = ("torch", "transformers", "pandas", "pyarrow", "mlflow", "pip", "setuptools")


def contents(layers: Iterable[Path]) -> dict[str, Any]:
    """Bytes of all *layers*, and by distribution, the largest first; which are absent.

    listed: how many components the bill of materials has.
    """
    found = list(layers)
    sizes: dict[str, int] = {}
    listed = 0
    for layer in found:
        for bill in layer.glob("opt/miniml/sbom.cdx.json"):
            listed = len(json.loads(bill.read_bytes())["components"])
        for site in layer.glob("opt/miniml/lib/python3*/site-packages"):
            sizes |= distribution_bytes(site)
    largest = sorted(sizes.items(), key=lambda item: item[1], reverse=True)
    return {
        "installed_bytes": sum(map(tree_bytes, found)),
        "distribution_bytes": dict(largest),
        "listed": listed,
        "absent": [name for name in _ABSENT if name not in sizes],
    }


def distribution_bytes(site: Path) -> dict[str, int]:
    """Bytes of each distribution of *site*, compiled files included, by its normal name."""
    return {
        each.name.lower().replace("_", "-"): sum(
            place.stat().st_size
            for place in (Path(str(each.locate_file(file))) for file in each.files or ())
            if place.is_file()
        )
        for each in distributions(path=[str(site)])
    }


def tree_bytes(folder: Path) -> int:
    """Bytes of every file below *folder*; links count nothing."""
    return sum(
        path.lstat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    )
