"""Instance types and what they cost an hour: the table that comes along, or one's own."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from benchmarks.errors import ImpossibleOption

_TEXTS = {"name": str, "source": str, "chip": str}
_NUMBERS = ("vcpus", "memory_gib", "usd_per_hour")
_YOURS = "you"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A type that can be rented. gpu: its model, empty where it has none. source: of its price."""

    name: str
    vcpus: int
    memory_gib: float
    chip: str
    usd_per_hour: float
    source: str
    gpu: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceTable:
    """as_of: the day; sources: what the rows' `source` means."""

    as_of: str
    region: str
    sources: Mapping[str, str]
    instances: tuple[Instance, ...]

    def with_prices(self, given: Sequence[str]) -> PriceTable:
        """With what was given as NAME=DOLLARS an hour. Raises `ImpossibleOption`."""
        told = named_numbers(given, option="--price")
        self.refuse_unknown(told, option="--price")
        rows = tuple(
            replace(each, usd_per_hour=told[each.name], source=_YOURS)
            if each.name in told
            else each
            for each in self.instances
        )
        sources = {**self.sources, **({_YOURS: "given with --price"} if told else {})}
        return replace(self, instances=rows, sources=sources)

    def refuse_unknown(self, told: Mapping[str, float], *, option: str) -> None:
        """Raise `ImpossibleOption` for a name that is not in the table."""
        names = [each.name for each in self.instances]
        for name in told:
            if name not in names:
                raise ImpossibleOption(
                    f"{option}: there is no {name} in the table, which has {', '.join(names)};"
                    " add it to a table of your own and give that with --prices."
                )


def named_numbers(given: Sequence[str], *, option: str) -> dict[str, float]:
    """Each NAME=NUMBER, the number above 0. Raises `ImpossibleOption`."""
    found = {}
    for each in given:
        name, _, value = each.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not (name and number > 0 and math.isfinite(number)):
            raise ImpossibleOption(f"{option} is NAME=NUMBER, the number above 0, not {each!r}.")
        found[name] = number
    return found


def read_prices(path: Path | None) -> PriceTable:
    """The table in *path*, or the one that comes along. Raises `ImpossibleOption`."""
    source = path or files("benchmarks.cost").joinpath("prices.toml")
    try:
        return _table(tomllib.loads(source.read_text(encoding="utf-8")))
    except OSError as error:
        raise ImpossibleOption(f"--prices: {path} cannot be read ({error.strerror}).") from error
    except (KeyError, TypeError, ValueError) as error:  # broken TOML is a ValueError
        raise ImpossibleOption(
            f"{path} is no table of prices ({error!r}); write it as benchmarks/cost/prices.toml."
        ) from error


def _table(document: Mapping[str, Any]) -> PriceTable:
    table = PriceTable(
        as_of=str(document["as_of"]),
        region=str(document["region"]),
        sources=dict(document["sources"]),
        instances=tuple(_instance(row) for row in document["instances"]),
    )
    names = [each.name for each in table.instances]
    if not names or len(set(names)) < len(names):
        raise ValueError("no type, or one twice")
    if unknown := {each.source for each in table.instances} - set(table.sources):
        raise ValueError(f"no line for the sources {sorted(unknown)}")
    return table


def _instance(row: Mapping[str, Any]) -> Instance:
    wrong = [name for name, kind in _TEXTS.items() if not isinstance(row[name], kind)]
    wrong += [name for name in _NUMBERS if not (_is_number(row[name]) and row[name] > 0)]
    if wrong:
        raise ValueError(f"{row['name']}: {', '.join(wrong)}")
    return Instance(**row)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
