"""`export.html`: one self-contained page on what was tried, what is served, and what it changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, TypeGuard

import numpy as np

from export.exam import ExamRow
from export.figures import CandidatePoint, Reach, flips_figure, sensitivity_figure, size_figure
from export.gates import decisions
from serving.engine import probabilities
from serving.package import Task
from serving.session import Logits

_TEMPLATE = "report.html.j2"
_SHOWN_CHARS, _SHOWN_NAME_CHARS, _SHOWN_LABELS = 600, 120, 40
_MEGA = 1e6
_NOTHING = "\N{EN DASH}"

Entry = Mapping[str, Any]  # one candidate in `gates.json`


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedRow:
    """An exam row that the served variant answers otherwise than fp32.

    fp32, served: the labels given, each with its probability, most probable first.
    """

    text: str
    text_pair: str | None
    true: tuple[str, ...]
    fp32: tuple[tuple[str, float], ...]
    served: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelFlips:
    """One label. rows: to which fp32 gives it; lost: to which only fp32 does; gained: only served."""

    label: str
    rows: int
    lost: int
    gained: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What the page shows.

    document: `gates.json`. sensitivity: layer -> share of answers (0..1) that differ from fp32
    when it alone is int8. facts: heading -> name -> value.
    """

    title: str
    document: Mapping[str, Any]
    changed: Sequence[ChangedRow]
    label_flips: Sequence[LabelFlips]
    sensitivity: Mapping[str, float]
    facts: Mapping[str, Mapping[str, object]]


def changed_rows(  # noqa: PLR0913 - two answer sheets and what their places mean
    rows: Sequence[ExamRow],
    fp32_logits: Logits,
    served_logits: Logits,
    labels: Sequence[str],
    task: Task,
    *,
    limit: int = 12,
) -> list[ChangedRow]:
    """At most *limit* rows whose decision differs, those whose probability changed most first.

    Logits (N, L) in the order of *rows* and *labels*.
    """
    with np.errstate(invalid="ignore"):  # a broken candidate may give infinities
        sheets = [probabilities(logits, task) for logits in (fp32_logits, served_logits)]
        given = [decisions(logits, task) for logits in (fp32_logits, served_logits)]
        change = np.abs(sheets[0] - sheets[1]).max(axis=1)
    # What is no number changed most.
    order = np.argsort(-np.nan_to_num(change, nan=np.inf), kind="stable")
    differing = (given[0] != given[1]).any(axis=1)

    def answers(sheet: int, row: int) -> tuple[tuple[str, float], ...]:
        chosen = np.flatnonzero(given[sheet][row]).tolist()
        found = [(labels[place], float(sheets[sheet][row, place])) for place in chosen]
        return tuple(sorted(found, key=lambda answer: -answer[1]))

    return [
        ChangedRow(
            text=rows[row].text,
            text_pair=rows[row].text_pair,
            true=tuple(labels[place] for place in rows[row].truth),
            fp32=answers(0, row),
            served=answers(1, row),
        )
        for row in [row for row in order.tolist() if differing[row]][:limit]
    ]


def label_flips(
    fp32_logits: Logits, served_logits: Logits, labels: Sequence[str], task: Task
) -> list[LabelFlips]:
    """One entry a label, in the order of *labels*; logits (N, L)."""
    with np.errstate(invalid="ignore"):
        expected, given = decisions(fp32_logits, task), decisions(served_logits, task)
    sheets = (expected, expected & ~given, given & ~expected)
    counts = zip(labels, *(sheet.sum(axis=0).tolist() for sheet in sheets), strict=True)
    return [
        LabelFlips(label=label, rows=rows, lost=lost, gained=gained)
        for label, rows, lost, gained in counts
    ]


def render_export_report(report: ExportReport) -> str:
    """The page; everything in it that comes from the data is escaped."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {
        "number": _number,
        "percent": _percent,
        "rate": _rate,
        "mb": _mb,
        "cut": _cut,
    }
    source = files("export").joinpath(_TEMPLATE).read_text(encoding="utf-8")
    gates = report.document
    gates = {**gates, **{name: {"speed": None, **gates[name]} for name in ("fp32", "served")}}
    entries = _entries(gates)
    states = {entry["name"]: _state(entry, gates) for entry in entries}
    flips = sorted(report.label_flips, key=lambda flip: -(flip.lost + flip.gained))
    layers = {name: share for name, share in report.sensitivity.items() if _is_number(share)}
    return environment.from_string(source).render(
        title=report.title,
        gates=gates,
        verdict=_verdict(gates),
        entries=entries,
        states=states,
        untimed=[entry["name"] for entry in entries if _speed(entry) is None],
        figures=_figures(gates, entries, states),
        sensitivity=sensitivity_figure(layers) if layers else "",
        layers=len(layers),
        cost=_cost_grid(gates["served"]),
        flips=flips[:_SHOWN_LABELS],
        unshown_flips=flips[_SHOWN_LABELS:],
        changed=report.changed,
        facts=report.facts,
    )


def _entries(gates: Mapping[str, Any]) -> list[Entry]:
    """Every candidate once, fastest first, those never timed last."""
    every = (*gates["candidates"], gates["fp32"], gates["served"])
    named = {entry["name"]: {"speed": None, **entry} for entry in every}
    return sorted(named.values(), key=lambda entry: -(_speed(entry) or 0.0))


def _state(entry: Entry, gates: Mapping[str, Any]) -> Any:
    if entry["name"] == gates["served"]["name"]:
        return "served"
    return "passed" if entry["passed"] else "refused"


def _speed(entry: Entry) -> float | None:
    """Texts a second, or None when it was not timed."""
    value = (entry["speed"] or {}).get("texts_per_s")
    return float(value) if _is_number(value) and value > 0 else None


def _verdict(gates: Mapping[str, Any]) -> str:
    """One sentence: what is served, why, and what that wins and costs."""
    served, fp32 = gates["served"], gates["fp32"]
    named = {entry["name"]: entry["passed"] for entry in _entries(gates)}
    passed = sum(map(bool, named.values()))
    itself = served["name"] == fp32["name"]
    if itself and passed <= 1:
        chosen = "fp32 itself is served, because nothing else passed every gate"
    else:
        name = "fp32 itself" if itself else _cut(served["name"], _SHOWN_NAME_CHARS)
        reason = f"{gates['objective']} among {passed} of {len(named)} variants"
        chosen = f"{name} is served, chosen for {reason} that passed every gate"
    parts = [part for part in (_speed_clause(gates), _flip_clause(gates)) if part]
    size = f"model.onnx has {_mb(served['model_bytes'])} MB"
    if not itself and (share := _ratio(served["model_bytes"], fp32["model_bytes"])):
        size += f", {_percent(share, 0)} % of fp32's"
    return f"{chosen}: {'; '.join([*parts, size])}."


def _speed_clause(gates: Mapping[str, Any]) -> str:
    served, fp32 = (gates[name]["speed"] or {} for name in ("served", "fp32"))
    itself = gates["served"]["name"] == gates["fp32"]["name"]
    if gates["objective"] == "latency":
        clause = f"{_rate(served.get('latency_ms'))} ms for one text"
        times = _ratio(fp32.get("latency_ms"), served.get("latency_ms"))
    else:
        clause = f"{_rate(served.get('texts_per_s'))} texts/s"
        times = _ratio(served.get("texts_per_s"), fp32.get("texts_per_s"))
    if clause.startswith(_NOTHING):
        return "its speed was not measured"
    return clause if itself or not times else f"{clause}, {times:.2f} times as fast as fp32"


def _flip_clause(gates: Mapping[str, Any]) -> str:
    served = gates["served"]
    if served["name"] == gates["fp32"]["name"]:
        return ""
    low, high = (_percent(end) for end in served["flip_interval"] or (None, None))
    share = _percent(served["label_flip_rate"])
    return f"{share} % of its answers differ from fp32's (95 % interval: {low} to {high} %)"


def _figures(
    gates: Mapping[str, Any], entries: Sequence[Entry], states: Mapping[str, Any]
) -> dict[str, str]:
    """Both plots; empty where fewer than two points could be drawn."""
    flips, sizes = [], []
    for number, entry in enumerate(entries, 1):
        if (speed := _speed(entry)) is None:
            continue
        ends = [entry["speed"].get(f"texts_per_s_{end}") for end in ("low", "high")]
        about = {"name": entry["name"], "number": number, "state": states[entry["name"]]}
        about["y"] = _reach(ends, speed)
        if _is_number(entry["label_flip_rate"]):
            interval = entry["flip_interval"] or (None, None)
            low, flip, high = _reach(interval, entry["label_flip_rate"])
            flips.append(CandidatePoint(**about, x=(100 * low, 100 * flip, 100 * high)))
        if _is_number(size_bytes := entry["model_bytes"]):
            sizes.append(CandidatePoint(**about, x=(size_bytes / _MEGA,) * 3))
    return {
        "flips": flips_figure(flips, gates["max_flip_percent"]) if len(flips) > 1 else "",
        "size": size_figure(sizes) if len(sizes) > 1 else "",
    }


def _reach(ends: Sequence[Any], value: float) -> Reach:
    low, high = (end if _is_number(end) else value for end in ends)
    return min(low, value), value, max(high, value)


def _cost_grid(served: Entry) -> dict[str, Any] | None:
    """The cost grid for the page, None without one.

    rows: (batch, cells); a cell: ms, ms a text, and its shade (0..1) by the logarithm of ms a text.
    """
    grid = (served["speed"] or {}).get("grid")
    if not grid or not grid["ms"]:
        return None
    ms = np.array(grid["ms"], dtype=float)  # null becomes nan
    each = ms / np.array(grid["batches"], dtype=float)[:, None]
    logs = np.log(each, out=np.full_like(each, np.nan), where=each > 0)
    low, high = np.nan_to_num([np.fmin.reduce(logs, None), np.fmax.reduce(logs, None)])
    shades = np.nan_to_num((logs - low) / max(high - low, 1e-9))
    spread = [v for line in grid.get("spread") or () for v in line if _is_number(v)]
    return {
        "lengths": grid["lengths"],
        "rows": list(zip(grid["batches"], np.stack([ms, each, shades], 2).tolist(), strict=True)),
        "median_spread": float(np.median(spread)) if spread else None,
        "max_spread": max(spread, default=None),
    }


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _mb(value: Any) -> str:
    return _rate(value / _MEGA) if _is_number(value) else _NOTHING


def _ratio(value: Any, base: Any) -> float | None:
    return value / base if _is_number(value) and _is_number(base) and base > 0 else None


def _number(value: Any, digits: int = 3) -> str:
    return f"{value:,.{digits}f}" if _is_number(value) else _NOTHING


def _percent(value: Any, digits: int = 2) -> str:
    return f"{100 * value:.{digits}f}" if _is_number(value) else _NOTHING


def _rate(value: Any) -> str:
    """A rate or a time, to three digits."""
    if not _is_number(value):
        return _NOTHING
    return f"{value:,.{sum(value < bound for bound in (1, 10, 100))}f}"


def _cut(text: Any, limit: int = _SHOWN_CHARS) -> str:
    whole = str(text)
    return whole if len(whole) <= limit else whole[:limit] + " \N{HORIZONTAL ELLIPSIS}"
