"""`bench.html`: one self-contained page on what was measured and where each number comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.pages import render
from benchmarks.report.evidence import Evidence, ModelEvidence, by_model
from benchmarks.report.figures import (
    agreement_figure,
    bars_figure,
    colours,
    rate_figure,
    tail_figure,
)
from benchmarks.report.findings import Curve, Finding, Loop
from benchmarks.report.numbers import number
from benchmarks.report.results import goal_sheets, loop_sheets
from benchmarks.report.sheets import Sheet, certificates_sheet, gates_sheet

_LEAST_TIMED = 100  # fewer answers show no tail
_GROUPS: dict[Loop, tuple[str, str]] = {
    "open": (
        "Over HTTP, open loop",
        "Requests arrive at a rate that was chosen, and latency counts from when they were due.",
    ),
    "closed": (
        "Over HTTP, closed loop",
        "Each connection waits for its answer before it asks again, so the rate is a result.",
    ),
    "engine": ("The engine alone", "No HTTP: what the hardware and the graph allow."),
    "simulated open": (
        "The planner, simulated, open loop",
        "Ways to batch on the same arrivals, with measured costs and no server.",
    ),
    "simulated closed": (
        "The planner, simulated, closed loop",
        "The same with callers that wait for their answer.",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A figure with what it shows and how to read it."""

    title: str
    about: str
    svg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One number in large."""

    name: str
    value: str
    about: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PageGroup:
    """Figures and tables of one kind of loop, or of none. rows: figures that stand side by side."""

    title: str
    about: str
    rows: tuple[tuple[Drawing, ...], ...]
    sheets: tuple[Sheet, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPart:
    """What the page shows of one model."""

    model: ModelEvidence
    tiles: tuple[Tile, ...]
    groups: tuple[PageGroup, ...]


def render_page(evidence: Sequence[Evidence], *, usd_per_hour: float) -> str:
    """The page; everything in it that comes from the data is escaped."""
    machines = list(dict.fromkeys(one.certificate.machine_line for one in evidence))
    return render(
        "benchmarks.report",
        parts=[_part(model, usd_per_hour) for model in by_model(evidence)],
        certificates=certificates_sheet(evidence),
        machines=machines,
        days=sorted({one.certificate.recorded_at[:10] for one in evidence}),
        samples=sum(one.found.samples for one in evidence),
    )


def _part(model: ModelEvidence, usd_per_hour: float) -> ModelPart:
    palette = _palette(model)
    groups = [
        PageGroup(
            title=title,
            about=about,
            rows=tuple(row for row in _rows(model, loop, palette) if row),
            sheets=tuple(loop_sheets(model, loop, usd_per_hour)),
        )
        for loop, (title, about) in _GROUPS.items()
    ]
    judged = [sheet for sheet in (gates_sheet(model), *goal_sheets(model)) if sheet]
    if judged:
        title = "Accuracy, and the goals of the server"
        groups.append(PageGroup(title=title, about="", rows=(), sheets=tuple(judged)))
    return ModelPart(model=model, tiles=tuple(_tiles(model)), groups=tuple(groups))


def _palette(model: ModelEvidence) -> Mapping[str, str]:
    found = [finding for loop in _GROUPS for _, finding in model.findings(loop)]
    ours = [finding.system for finding in found if finding.ours]
    return colours(list(dict.fromkeys(finding.system for finding in found)), ours)


def _tiles(model: ModelEvidence) -> Iterator[Tile]:
    """What is asked first: ours, on each workload."""
    for loop in ("open", "closed"):
        for workload in model.workloads(loop):
            ours = [
                finding
                for _, finding in model.findings(loop)
                if finding.ours and finding.workload == workload and finding.rate
                if loop == "closed" or finding.goal_ms
            ]
            if ours:
                best = max(ours, key=lambda finding: finding.rate or 0)
                about = f"{best.setting}, {loop} loop"
                yield Tile(name=f"{workload}, texts/s", value=number(best.rate, 0), about=about)
    gates = model.gates
    if "label_flip_rate" in gates:
        share = f"{100 * (1 - gates['label_flip_rate']):.1f} %"
        about = f"of {gates['exam_rows']} held-out rows"
        yield Tile(name="same label as fp32", value=share, about=about)


def _rows(
    model: ModelEvidence, loop: Loop, palette: Mapping[str, str]
) -> Iterator[tuple[Drawing, ...]]:
    """A row for each kind of figure, with all workloads of all records.

    What one figure compares is of one record: of one machine, taken in turns. A simulation has a
    page of its own.
    """
    if loop.startswith("simulated"):
        return
    if loop == "open":
        yield tuple(_rate_drawings(model, palette))
    for maker in (_bars, _agreement, _tails) if loop == "closed" else (_bars, _tails):
        yield tuple(
            drawing
            for one in model.records
            for found in _by_workload(one, loop)
            if (drawing := maker(_labelled(found), palette, one.number))
        )


def _by_workload(one: Evidence, loop: Loop) -> list[list[Finding]]:
    seen = [finding for finding in one.found.findings if finding.loop == loop and finding.rate]
    workloads = dict.fromkeys(finding.workload for finding in seen)
    return [[finding for finding in seen if finding.workload == w] for w in workloads]


def _labelled(found: Sequence[Finding]) -> dict[str, Finding]:
    """By a name that tells them apart, fastest first."""
    ordered = sorted(found, key=lambda finding: -(finding.rate or 0))
    systems = Counter(finding.system for finding in ordered)
    return {
        finding.system
        if systems[finding.system] == 1
        else f"{finding.system}, {finding.setting}": (finding)
        for finding in ordered
    }


def _bars(found: Mapping[str, Finding], palette: Mapping[str, str], record: int) -> Drawing | None:
    shown = list(found.values())
    ceilings = any(finding.ceiling_per_s for finding in shown)
    if len(shown) == 1 and not ceilings:
        return None  # one bar compares nothing
    return Drawing(
        title=f"Throughput, {shown[0].workload}",
        about="The bar is the median of the rounds, a dot is a round."
        + (" The red line is the ceiling." if ceilings else "")
        + f" Record {record}.",
        svg=bars_figure(found, palette, f"bars {record} {shown[0].loop} {shown[0].workload}"),
    )


def _agreement(
    found: Mapping[str, Finding], palette: Mapping[str, str], record: int
) -> Drawing | None:
    shown = {name: finding for name, finding in found.items() if finding.agreement}
    if not shown:
        return None
    first = next(iter(shown.values()))
    return Drawing(
        title=f"Accuracy beside speed, {first.workload}",
        about=f"Up and right is better: the share of texts that get fp32's label. Record {record}.",
        svg=agreement_figure(shown, palette, f"agreement {record} {first.loop} {first.workload}"),
    )


def _tails(found: Mapping[str, Finding], palette: Mapping[str, str], record: int) -> Drawing | None:
    shown = {
        n: finding for n, finding in found.items() if len(finding.latencies_ms) >= _LEAST_TIMED
    }
    if not shown:
        return None
    first = next(iter(shown.values()))
    at = " At each system's own highest rate within the goal." if first.goal_ms else ""
    return Drawing(
        title=f"Tails, {first.workload}",
        about=f"A line ends where three samples are left beyond it.{at} Record {record}.",
        svg=tail_figure(shown, palette, f"tails {record} {first.loop} {first.workload}"),
    )


def _rate_drawings(model: ModelEvidence, palette: Mapping[str, str]) -> Iterator[Drawing]:
    """A figure for each record, workload and goal: the curves of one figure are of one run."""
    groups: dict[tuple[int, str, float], list[Curve]] = {}
    for one, curve in model.curves():
        if curve.points():
            groups.setdefault((one.number, curve.workload, curve.goal_ms), []).append(curve)
    for (record, workload, goal_ms), curves in groups.items():
        knee = " Dotted: the knee." if any(curve.knee_per_s for curve in curves) else ""
        yield Drawing(
            title=f"Latency against rate, {workload}",
            about="A full dot held the goal, an empty one did not; the triangle is the highest rate"
            f" that held, the median of the searches.{knee} Record {record}.",
            svg=rate_figure(curves, palette, f"rates {model.name} {record} {workload} {goal_ms}"),
        )
