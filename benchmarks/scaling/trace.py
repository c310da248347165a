"""Traces of load: texts a second and what a text costs, a number a second; made, or read from a file."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.errors import BadTrace

Floats = npt.NDArray[np.float64]
QUERY_MS, REVIEW_MS = 3.0, 30.0
_HOUR_S = 3600
_COLUMNS = ("texts_per_s", "text_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTrace:
    """What arrives in each of S seconds.

    texts_per_s (S,): on average; they come at random. text_ms (S,): of one replica, a text on average.
    """

    name: str
    texts_per_s: Floats
    text_ms: Floats

    @property
    def load(self) -> Floats:
        """Replicas that it would keep busy, (S,)."""
        return self.texts_per_s * self.text_ms / 1e3


def steps(peak: float, seed: int) -> LoadTrace:  # noqa: ARG001 - all makers are called alike
    """A tenth of the peak, eight tenths, three tenths and the peak, ten minutes each, and back."""
    shares = np.repeat([0.1, 0.8, 0.3, 1.0, 0.1, 0.1], _HOUR_S // 6)
    return _of_queries("steps", peak * shares)


def diurnal(peak: float, seed: int) -> LoadTrace:
    """A day in an hour: night, morning and evening peaks, and a ripple that is never the same."""
    hours = np.linspace(0, 24, _HOUR_S, endpoint=False)
    day = 0.08 + 0.62 * _hump(hours, 11, 3.0) + 0.8 * _hump(hours, 19.5, 2.0)
    ripple = _smooth(np.random.default_rng(seed).normal(0, 1, _HOUR_S), 30)
    return _of_queries("diurnal", peak * np.clip(day * (1 + 0.15 * ripple), 0.02, 1.0))


def flash_crowd(peak: float, seed: int) -> LoadTrace:
    """A twentieth of the peak; three times, within 20 seconds, all of it, which then ebbs away."""
    chance = np.random.default_rng(seed)
    seconds = np.arange(_HOUR_S)
    share = np.full(_HOUR_S, 0.05)
    for begin in (600, 1500, 2500):
        since = seconds - begin - chance.integers(0, 60)
        rise = np.clip(since / 20, 0, 1)
        share = np.maximum(share, np.where(since > 0, rise * np.exp(-since / 180), 0))
    return _of_queries("flash crowd", peak * share)


def mixed_lengths(peak: float, seed: int) -> LoadTrace:
    """Always as many texts; what share of them is long, ten times the work, wanders."""
    long_share = np.clip(
        0.45 + 0.4 * _smooth(np.random.default_rng(seed).normal(0, 1, _HOUR_S), 120), 0, 1
    )
    text_ms = QUERY_MS + long_share * (REVIEW_MS - QUERY_MS)
    rate = np.full(_HOUR_S, peak * 1e3 / REVIEW_MS)
    return LoadTrace(name="mixed lengths", texts_per_s=rate, text_ms=text_ms)


MAKERS: Mapping[str, Callable[[float, int], LoadTrace]] = {
    "steps": steps,
    "diurnal": diurnal,
    "flash crowd": flash_crowd,
    "mixed lengths": mixed_lengths,
}


def read_trace(path: Path) -> LoadTrace:
    """A CSV file of `texts_per_s` and `text_ms`, a row a second. Raises `BadTrace`."""
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = [[float(row[name]) for name in _COLUMNS] for row in csv.DictReader(lines)]
    except OSError as error:
        raise BadTrace(f"{path} cannot be read ({error.strerror}); give a CSV file.") from error
    except (KeyError, TypeError, ValueError) as error:  # not UTF-8 is a ValueError, too
        raise BadTrace(
            f"{path} holds no load ({error!r}); give a CSV file with the columns"
            f" {' and '.join(_COLUMNS)}, a row a second."
        ) from error
    table = np.asarray(rows, dtype=np.float64).reshape(-1, len(_COLUMNS))
    if len(table) < 60 or not (np.isfinite(table).all() and (table >= 0).all()):  # noqa: PLR2004
        raise BadTrace(f"{path} must have 60 rows or more of numbers that are not negative.")
    return LoadTrace(name=path.stem, texts_per_s=table[:, 0], text_ms=table[:, 1])


def _of_queries(name: str, load: Floats) -> LoadTrace:
    text_ms = np.full(len(load), QUERY_MS)
    return LoadTrace(name=name, texts_per_s=load * 1e3 / text_ms, text_ms=text_ms)


def _hump(hours: Floats, at: float, width: float) -> Floats:
    return np.asarray(np.exp(-(((hours - at) / width) ** 2)))


def _smooth(noise: Floats, width_s: int) -> Floats:
    """Moving average, scaled to a deviation of 1."""
    smooth = np.convolve(noise, np.ones(width_s) / width_s, mode="same")
    return np.asarray(smooth / smooth.std())
