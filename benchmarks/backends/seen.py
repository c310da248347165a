"""What a run has seen so far; grows while it runs, and is worth a record at any time."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from benchmarks.backends.measures import AnswerAgreement
from benchmarks.backends.speeds import GridRun
from benchmarks.backends.variant import Variant
from benchmarks.peers.runs import PeerRun

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """missing, http_missing: variant -> why it could not run, or not to the end."""

    missing: dict[str, str] = field(default_factory=dict)
    answers: dict[str, AnswerAgreement] = field(default_factory=dict)
    runs: list[GridRun] = field(default_factory=list)
    peaks: dict[str, Any] = field(default_factory=dict)
    http_runs: list[PeerRun] = field(default_factory=list)
    http_missing: dict[str, str] = field(default_factory=dict)

    def miss(self, variant: Variant, reason: str) -> None:
        """*variant* cannot run, or goes on no further."""
        self.missing[variant.name] = reason
        _log.info("%s: %s", variant.name, reason)

    def miss_server(self, variant: Variant, reason: str) -> None:
        """Its server cannot."""
        self.http_missing[variant.name] = reason
        _log.info("%s over HTTP: %s", variant.name, reason)
