"""Samples on disk as columns of small integers: compressed, half of what rows of decimals take.

A long list of numbers, or of equally long rows of numbers, becomes `{"packed": [column, ...],
"rows": bool}`; a column is integers, counted in 10^-decimals, and where it ascends only what each
adds to the one before. Numbers are rounded to three decimals, so seconds to 1 ms and milliseconds
to 1 us: `unpack(pack(x))` is x but for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

_MOST_DECIMALS = 3
_LEAST = 64  # shorter lists stay readable


def pack(value: Any) -> Any:
    """*value* with every long list of numbers in columns, at any depth."""
    if isinstance(value, Mapping):
        return {key: pack(inner) for key, inner in value.items()}
    if not isinstance(value, list | tuple):
        return value
    if len(value) >= _LEAST:
        if all(map(_is_number, value)):
            return {"packed": [_pack_column(value)], "rows": False}
        if _are_rows(value):
            return {"packed": [_pack_column(c) for c in zip(*value, strict=True)], "rows": True}
    return [pack(inner) for inner in value]


def unpack(value: Any) -> Any:
    """What `pack` was given, rounded."""
    if isinstance(value, Mapping):
        if set(value) == {"packed", "rows"}:
            columns = [_unpack_column(column) for column in value["packed"]]
            return (
                [list(row) for row in zip(*columns, strict=True)] if value["rows"] else columns[0]
            )
        return {key: unpack(inner) for key, inner in value.items()}
    return [unpack(inner) for inner in value] if isinstance(value, list) else value


def _pack_column(values: Sequence[float]) -> dict[str, Any]:
    decimals = max(map(_decimals, values))
    # Rounded before it is scaled: 0.0005 * 1000 is a tie, which 0.0005 itself is not.
    whole = [round(round(value, _MOST_DECIMALS) * 10**decimals) for value in values]
    ascends = all(first <= second for first, second in pairwise(whole))
    if ascends:
        whole = [whole[0], *(second - first for first, second in pairwise(whole))]
    return {"decimals": decimals, "added": ascends, "values": whole}


def _unpack_column(column: Mapping[str, Any]) -> list[float]:
    whole = accumulate(column["values"]) if column["added"] else column["values"]
    decimals = column["decimals"]
    # A division, since the nearest number to v / 1000 is what three decimals are read as.
    return [value / 10**decimals for value in whole] if decimals else list(whole)


def _decimals(value: float) -> int:
    return next(
        (d for d in range(_MOST_DECIMALS) if round(value, d) == round(value, _MOST_DECIMALS)),
        _MOST_DECIMALS,
    )


def _are_rows(value: Sequence[Any]) -> bool:
    return all(
        isinstance(row, list | tuple)
        and len(row) == len(value[0]) > 0
        and all(map(_is_number, row))
        for row in value
    )


def _is_number(value: Any) -> bool:
    # A bool is an int to Python, but not to JSON; what is not finite has no integer.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12  # noqa: PLR2004
