"""Findings as tables of text, which the page and `docs/results.md` show alike. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.report.evidence import Evidence, ModelEvidence
from benchmarks.report.expected import WANTED, WORKLOADS
from benchmarks.report.findings import TAILS, Finding, Loop, tails
from benchmarks.report.numbers import dollars, number, percent_share, span

GAP = "not yet measured"
_CORE = "The serving core"
_JUDGED = {"soak": "A steady load for long"}  # by kind of record
_TEXTS = ("system", "load", "same label as fp32", "measure", "texts", "held")
_TITLES: dict[Loop, str] = {
    "engine": "The engine alone, no HTTP",
    "closed": "Over HTTP, closed loop",
    "open": "Over HTTP, open loop",
    "simulated open": "Simulated, open loop",
    "simulated closed": "Simulated, closed loop",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SheetRow:
    """Cells in the order of the headings. ours: miniml's own. gap: not measured yet."""

    cells: tuple[str, ...]
    ours: bool = False
    gap: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """One table. numeric: which columns hold numbers."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[SheetRow, ...]

    @property
    def numeric(self) -> tuple[bool, ...]:
        """By column."""
        return tuple(heading not in _TEXTS for heading in self.headings)


def speed_sheets(model: ModelEvidence, loop: Loop, usd_per_hour: float) -> list[Sheet]:
    """How many texts a second: a table a workload, with the gaps."""
    headings = (
        *("system", "load", "texts/s", "range", "miniml is", "of the ceiling"),
        *("same label as fp32", f"$ a million texts at ${usd_per_hour:g}/h", "record"),
    )
    return [
        _sheet(
            f"{_TITLES[loop]}: {workload}",
            headings,
            [
                *(
                    _speed_row(one, finding, usd_per_hour)
                    for one, finding in _of_workload(model, loop, workload)
                ),
                *_gaps(model, loop, workload, len(headings)),
            ],
        )
        for workload in _workloads(model, loop)
    ]


def tail_sheets(model: ModelEvidence, loop: Loop) -> list[Sheet]:
    """How long an answer takes, and what it costs the server: a table a workload."""
    headings = (
        *("system", "load", *(f"p{percent:g} ms" for percent in TAILS), "errors"),
        *("CPU ms a request", "memory MB", "all processes MB", "samples", "record"),
    )
    found = {workload: _of_workload(model, loop, workload) for workload in _workloads(model, loop)}
    return [
        _sheet(f"{_TITLES[loop]}: {workload}, latency and cost", headings, rows)
        for workload, pairs in found.items()
        if (rows := [_tail_row(one, finding) for one, finding in pairs if _costs(finding)])
    ]


def goals_sheet(one: Evidence) -> Sheet | None:
    """The figures of a record that have goals of their own."""
    if not one.found.goal_lines:
        return None
    rows = [
        SheetRow(
            cells=(
                line.name,
                line.workload,
                number(statistics.median(line.values), line.digits) if line.values else "",
                span(line.values, line.digits),
                "" if line.goal is None else f"{_sign(less=line.less_is_better)} {line.goal:g}",
                {None: "", True: "yes", False: "no"}[line.held],
            )
        )
        for line in one.found.goal_lines
    ]
    title = f"{_JUDGED.get(one.certificate.kind, _CORE)} against its goals (record {one.number})"
    return _sheet(title, ("measure", "texts", "seen", "low to high", "goal", "held"), rows)


def gates_sheet(model: ModelEvidence) -> Sheet | None:
    """fp32 beside what is served, on the held-out rows of the export."""
    gates = model.gates
    if not {"fp32", "served"} <= set(gates):
        return None
    fp32, served = gates["fp32"], gates["served"]
    rows = [
        SheetRow(cells=(name, number(fp32.get(key), 3), number(served.get(key), 3)))
        for name, key in (("accuracy", "accuracy"), ("macro-F1", "macro_f1"))
    ]
    flips, company = gates.get("label_flip_rate"), gates.get("batch_flip_rate")
    sizes = [number(_mega(entry.get("model_bytes")), 1) for entry in (fp32, served)]
    rows += [
        SheetRow(cells=("labels that differ from fp32", "", percent_share(flips))),
        SheetRow(cells=("labels that differ in company", "", percent_share(company))),
        SheetRow(cells=("model, MB", *sizes)),
    ]
    title = f"What is served, judged on {gates.get('exam_rows', '?')} held-out rows"
    return _sheet(title, ("measure", "fp32", "served"), rows)


def certificates_sheet(evidence: Sequence[Evidence]) -> Sheet:
    """Where every number comes from."""
    headings = ("record", "kind", "file", "recorded", "machine", "commit", "package", "seed")
    rows = []
    for one in evidence:
        said = one.certificate
        rows.append(
            SheetRow(
                cells=(
                    str(one.number),
                    said.kind + (", cut short" if said.partial else ""),
                    said.name,
                    said.recorded_at,
                    said.machine_line,
                    said.commit or "none",
                    said.package_digest[:12],
                    "" if said.seed is None else str(said.seed),
                    f"{one.found.samples:,}",
                )
            )
        )
    return _sheet("Where the numbers come from", (*headings, "samples"), rows)


def _workloads(model: ModelEvidence, loop: Loop) -> list[str]:
    wanted = WORKLOADS if model.wanted and WANTED.get(loop) else ()
    return list(dict.fromkeys((*wanted, *model.workloads(loop))))


def _of_workload(model: ModelEvidence, loop: Loop, workload: str) -> list[tuple[Evidence, Finding]]:
    """Fastest first; in a simulation load by load, since there every policy meets every load."""
    found = [
        (one, finding) for one, finding in model.findings(loop) if finding.workload == workload
    ]
    if loop.startswith("simulated"):
        return sorted(found, key=lambda pair: (pair[1].setting, -(pair[1].rate or 0)))
    return sorted(found, key=lambda pair: -(pair[1].rate or 0))


def _speed_row(one: Evidence, finding: Finding, usd_per_hour: float) -> SheetRow:
    rate, top = finding.rate, finding.ceiling_per_s
    agreement = finding.agreement
    notes = [finding.note] if finding.note else []
    notes += ["run cut short"] if one.certificate.partial else []
    return SheetRow(
        cells=(
            finding.system + "".join(f" ({note})" for note in notes),
            finding.setting,
            number(rate, 1),
            span(finding.reach or finding.rates, 1),
            _times(one, finding),
            f"{100 * rate / top:.0f} %" if rate and top else "",
            f"{agreement.agreed} of {agreement.asked}" if agreement else "",
            dollars(usd_per_hour, rate),
            str(one.number),
        ),
        ours=finding.ours,
    )


def _times(one: Evidence, finding: Finding) -> str:
    """How many times as fast as *finding* ours is, in the same run under the same load.

    Of engines each is at its own best: lanes and batch are no load.
    """
    rates = [
        other.rate or 0.0
        for other in one.found.findings
        if other.ours
        and (other.workload, other.loop) == (finding.workload, finding.loop)
        and (finding.loop == "engine" or other.setting == finding.setting)
    ]
    ours = max(rates, default=0.0)
    return f"{ours / finding.rate:.2f} x" if not finding.ours and ours and finding.rate else ""


def _gaps(model: ModelEvidence, loop: Loop, workload: str, columns: int) -> list[SheetRow]:
    """What the report wants and no record has, with the reason when one says it."""
    if workload not in WORKLOADS or not model.wanted:
        return []
    seen = {finding.system for _, finding in _of_workload(model, loop, workload)}
    blank = ("",) * (columns - 3)
    return [
        SheetRow(cells=(system, model.why_missing(loop, system), GAP, *blank), gap=True)
        for system in WANTED.get(loop, ())
        if system not in seen
    ]


def _costs(finding: Finding) -> bool:
    return bool(finding.trials or finding.cpu_ms or finding.memory_mb)


def _tail_row(one: Evidence, finding: Finding) -> SheetRow:
    shown = tails(finding.latencies_ms)
    cpu_ms = statistics.median(finding.cpu_ms) if finding.cpu_ms else None
    return SheetRow(
        cells=(
            finding.system,
            finding.setting,
            *(number(shown[percent], 1) for percent in TAILS),
            str(finding.errors) if finding.trials else "",
            number(cpu_ms, 2),
            number(finding.memory_mb, 0),
            number(finding.server_memory_mb, 0),
            f"{finding.samples:,}",
            str(one.number),
        ),
        ours=finding.ours,
    )


def _sheet(title: str, headings: Sequence[str], rows: Sequence[SheetRow]) -> Sheet:
    """Without the columns in which no row has anything."""
    kept = [
        place for place in range(len(headings)) if not rows or any(row.cells[place] for row in rows)
    ]
    return Sheet(
        title=title,
        headings=tuple(headings[place] for place in kept),
        rows=tuple(
            SheetRow(cells=tuple(row.cells[place] for place in kept), ours=row.ours, gap=row.gap)
            for row in rows
        ),
    )


def _sign(*, less: bool) -> str:
    return "at most" if less else "at least"


def _mega(size_bytes: float | None) -> float | None:
    return None if size_bytes is None else size_bytes / 1e6
