"""`miniml shadow report|start|stop`: how a candidate does beside what a server serves."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import msgspec
from rich.console import Console, Group

from serving.amounts import share
from serving.caching.commands import Absent, ask
from serving.conversation import RemoteError
from serving.locate import pin
from serving.options import ShadowOptions, StartShadowOptions
from serving.shadow.report import ShadowReport
from serving.shadow.showing import shown

_START_S = 600.0
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedShadow:
    """What the server says. exit_code: 1 where the candidate does not run."""

    report: ShadowReport

    @property
    def exit_code(self) -> int:
        """As a shell has it."""
        return int(set(self.report.replicas) == {"failed"})

    def document(self) -> dict[str, Any]:
        """As `GET /shadow` gives it."""
        document: dict[str, Any] = msgspec.to_builtins(self.report)
        return document

    def __rich__(self) -> Group:
        """Tables."""
        return shown(self.report)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowEnded:
    """No candidate is wanted any more. revision: of what is wanted."""

    revision: int

    def document(self) -> dict[str, int]:
        """As JSON."""
        return {"revision": self.revision}

    def __rich__(self) -> str:
        """One sentence."""
        return "No candidate runs beside what is served."


def report(options: ShadowOptions) -> ReportedShadow:
    """Ask the server. Raises `RemoteError` when it does not answer or has no candidate."""
    return ReportedShadow(report=fetch(options.url))


def start(options: StartShadowOptions) -> ReportedShadow:
    """Put the candidate there, and wait until every replica compares, or cannot.

    Raises `NoAmount`, `RemoteError`, and what `pin` does. Ctrl-C leaves it starting.
    """
    part_of = share(options.share, flag="--share")
    reference, digest = pin(options.package)
    part = {"package": reference, "digest": digest, "share": part_of}
    ask(options.url, "PUT", "/rollout", {"shadow": part})
    deadline_s = time.monotonic() + _START_S
    with Console(stderr=True).status(f"Starting {reference} beside what is served"):
        while time.monotonic() < deadline_s:
            found = _started(options.url, digest)
            if found:
                return ReportedShadow(report=found)
            time.sleep(_LOOK_S)
    raise RemoteError(
        f"{reference} did not start within {_START_S:.0f} s.", hint="See miniml shadow report."
    )


def stop(options: ShadowOptions) -> ShadowEnded:
    """End it, and forget what it found. Raises `RemoteError`."""
    return ShadowEnded(revision=ask(options.url, "PUT", "/rollout", {"shadow": None})["revision"])


def fetch(url: str) -> ShadowReport:
    """`GET /shadow`. Raises `RemoteError`."""
    try:
        return msgspec.convert(ask(url, "GET", "/shadow"), ShadowReport)
    except msgspec.ValidationError as error:
        raise RemoteError(f"{url} answered, but not as miniml does ({error}).") from error


def _started(url: str, digest: str) -> ShadowReport | None:
    """The report, once all replicas have this candidate and none starts."""
    try:
        found = fetch(url)
    except Absent:  # this replica does not know yet
        return None
    if found.candidate != digest or found.elsewhere or "starting" in found.replicas:
        return None
    return found
