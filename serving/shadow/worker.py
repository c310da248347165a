"""A shadow's candidate, in a process of its own: `python -m serving.shadow.worker FD`.

So nothing it does reaches the replica: it has no part in the replica's interpreter lock, a crash, a leak
or a hang ends with it, and it runs at a niceness at which the champion's lanes go first. It answers by the
very core that would serve the package. One JSON document a line over the socket FD: `Start`, answered by
`Began`, then `Given`, each answered by `Opinions`. It ends when the socket does, and with its parent.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
from io import BufferedRWPair
from pathlib import Path

import msgspec
from msgspec import Struct

from serving.agreement import Opinion
from serving.core import Core
from serving.engine import prediction
from serving.errors import BadRequest, PackageError, ServingError
from serving.lanes import Lanes
from serving.package import Package, open_package
from serving.reading import Aggregate, Reading, Window
from serving.settings import ServeSettings
from serving.work import Answer

# As good as any that yields to niceness 0: the kernel gives it a tenth of what a busy lane gets.
NICENESS = 10
BATCH = 8
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Start(Struct, frozen=True, kw_only=True):
    """Which package, on how many threads. allow_code: as in `ServeSettings`."""

    folder: str
    digest: str
    threads: int
    allow_code: str | None = None


class Began(Struct, frozen=True, kw_only=True):
    """It is ready; or, as `error`, why the package cannot be served."""

    error: str = ""


class Given(Struct, frozen=True, kw_only=True):
    """Texts, and how they are read: as in `Reading`."""

    texts: list[str]
    pairs: list[str] | None = None
    truncate: bool = True
    stride: int | None = None
    aggregate: Aggregate = "mean"

    @property
    def reading(self) -> Reading:
        """As the core takes it."""
        window = None
        if self.stride is not None:
            window = Window(stride=self.stride, aggregate=self.aggregate)
        return Reading(truncate=self.truncate, window=window)


class Opinions(Struct, frozen=True, kw_only=True):
    """One opinion a text, in order; or, as `error`, why there are none. refused: the texts' own fault."""

    opinions: list[Opinion] = []
    error: str = ""
    refused: bool = False


def opinion(answer: Answer, package: Package) -> Opinion:
    """What an answer means, whatever options its caller asked with."""
    found = prediction(answer.logits, package)
    if found.labels is not None:
        given = tuple(name for name, _ in found.labels)
    else:
        given = () if found.label is None else (found.label,)
    return Opinion(
        given=given,
        scores=dict(zip(package.config.labels, found.scores, strict=True)),
        infer_ms=None if answer.cached else answer.infer_ms,
    )


def main(arguments: list[str]) -> None:
    """Until there is nobody to answer."""
    if sys.platform == "linux":  # die with the parent, even when that is killed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to hear
    os.nice(NICENESS)
    line = socket.socket(fileno=int(arguments[0])).makefile("rwb")
    with line, asyncio.Runner() as runner:
        core = _begin(line)
        if core is None:
            return
        decoder = msgspec.json.Decoder(Given)
        while heard := line.readline():
            _say(line, _answer(runner, core, decoder.decode(heard)))


def _begin(line: BufferedRWPair) -> Core | None:
    start = msgspec.json.decode(line.readline(), type=Start)
    try:
        package = open_package(Path(start.folder))
        if package.digest != start.digest:
            raise PackageError(f"It is package {package.digest[:12]}, not {start.digest[:12]}.")
        settings = ServeSettings(
            package=start.folder,
            cache_bytes=0,
            max_batch=BATCH,
            otlp_endpoint=None,
            allow_code=start.allow_code,
        )
        core = Core(package, Lanes(count=1, threads=start.threads), settings)
    except ServingError as error:
        _say(line, Began(error=str(error)))
        return None
    _say(line, Began())
    return core


def _answer(runner: asyncio.Runner, core: Core, given: Given) -> Opinions:
    try:
        answered = runner.run(
            core.ask(given.texts, given.pairs, reading=given.reading, priority="bulk")
        )
    except ServingError as error:
        return Opinions(error=str(error), refused=isinstance(error, BadRequest))
    return Opinions(opinions=[opinion(answer, core.package) for answer in answered.answers])


def _say(line: BufferedRWPair, what: Struct) -> None:
    line.write(msgspec.json.encode(what) + b"\n")
    line.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
