"""One step of one candidate in a process of its own: `python -m export.trial FOLDER NAME STEP {}`.

Its memory is its own, so it can be measured; what it breaks or leaks ends with it. FOLDER is a
`Workshop`. The answer and time steps load neither ONNX nor a quantizer.

Rows done, or pieces of other work, are reported on stdout, a number a line. Exit codes: 0; 4 for a full disk; those of FAILURES
for what is raised by that name. The last line of stderr says why.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from export.answers import answer_exam
from export.errors import CheckpointError, ExportError, ExportMismatch, RecipeUnfit
from export.speed import time_graph
from export.workshop import Workshop
from serving.session import open_session

FULL = 4
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
FAILURES: dict[int, type[ExportError]] = {3: RecipeUnfit, 5: CheckpointError, 6: ExportMismatch}


def main(arguments: list[str]) -> int:
    """Run the step; the exit code."""
    folder, name, step, given = arguments
    if sys.platform == "linux":  # die with the parent, even when that is killed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    reports = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # quantizers print; stdout is for numbers
    try:
        workshop = Workshop(Path(folder))
        {"export": _export, "make": _make, "answer": _answer, "time": _time}[step](
            workshop, name, json.loads(given), partial(print, file=reports)
        )
    except tuple(FAILURES.values()) as error:
        sys.stderr.write(f"{error}\n")
        return next(code for code, kind in FAILURES.items() if isinstance(error, kind))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return FULL
    return 0


def _export(workshop: Workshop, _: str, given: dict[str, Any], __: Any) -> None:
    from export.checkpoint import read_checkpoint
    from export.preparing import prepare_graphs

    prepare_graphs(workshop, read_checkpoint(Path(given["checkpoint"])))


def _make(workshop: Workshop, name: str, _: dict[str, Any], report: Any) -> None:
    from export.candidates import CANDIDATES

    candidate = next(candidate for candidate in CANDIDATES if candidate.name == name)
    graph = workshop.graph(name)
    part = graph.with_name("part.onnx")
    part.unlink(missing_ok=True)
    try:
        candidate.make(replace(workshop.material(), advance=report), part)
    except RecipeUnfit as error:  # as unfit the next time: a search may have taken minutes
        workshop.write_text(workshop.unfit(name), str(error))
        raise
    part.replace(graph)


def _answer(workshop: Workshop, name: str, given: dict[str, Any], report: Any) -> None:
    answers = answer_exam(
        _open(workshop, name),
        workshop.exam()[given["start"] : given["stop"]],
        pad_token_id=workshop.settings.pad_token_id,
        streams=workshop.settings.lanes.count,
        mixed_rows=given["mixed"],
        advance=report,
    )
    answers.save(workshop.answers(name, given["start"], given["stop"]))


def _time(workshop: Workshop, name: str, given: dict[str, Any], _: Any) -> None:
    timing = time_graph(
        partial(_open, workshop, name),
        workshop.settings.lengths,
        workshop.settings.lanes,
        given["budget_s"],
    )
    workshop.write_json(workshop.timing(name, given["round"]), timing.document())


def _open(workshop: Workshop, name: str) -> Any:
    lanes = workshop.settings.lanes
    how = workshop.settings.runtimes[name]
    return open_session(
        workshop.graph(name),
        threads=lanes.threads,
        streams=lanes.count,
        runtime=how["runtime"],
        options=how["options"],
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
