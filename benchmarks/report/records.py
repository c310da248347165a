"""A file as a record: where its numbers come from, and the document itself.

The envelope is the same for every kind; what is inside, `kinds` reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import NoRecord
from benchmarks.report.files import KEPT, read_document

# kind -> the newest schema version that is read.
VERSIONS = {
    "load": 1,
    "slo": 1,
    "core": 1,
    "engine": 1,
    "cache": 1,
    "backends": 1,
    "peers": 1,
    "planner": 1,
    "scaling": 1,
    "soak": 1,
    "tune": 1,
    "offline": 1,
}

_ENVELOPE = {
    "scenario": Mapping,
    "machine": Mapping,
    "versions": Mapping,
    "commit": str,
    "package_digest": str,
    "recorded_at": str,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Where the numbers of a record come from. name: of its file.

    package: what the record says of the package it measured, empty when it says nothing. scenario:
    what was asked for, goals included. partial: the run was cut short.
    """

    name: str
    kind: str
    recorded_at: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str]
    commit: str
    package_digest: str
    package: Mapping[str, Any]
    scenario: Mapping[str, Any]
    partial: bool

    @property
    def seed(self) -> int | None:
        """Of texts and arrivals."""
        return self.scenario.get("seed")

    @property
    def machine_line(self) -> str:
        """CPU, cores, memory; the GPU where there is one."""
        gpu = self.machine.get("gpu")
        memory_gib = int(self.machine.get("memory_bytes", 0)) / 2**30
        return (
            f"{self.machine['cpu']}, {self.machine['cores']} cores, {memory_gib:.0f} GiB"
            f"{f', {gpu}' if gpu else ''}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One run, as it was left."""

    certificate: Certificate
    document: Mapping[str, Any]


def read_record(path: Path) -> Record:
    """The record in *path*. Raises `NoRecord` with one sentence on what is wrong with it."""
    return parse_record(read_document(path), path.name.removesuffix(KEPT).removesuffix(".json"))


def parse_record(document: Mapping[str, Any], name: str) -> Record:
    """*document* as a record. Raises `NoRecord` for an unknown kind, a newer version, a gap."""
    kind, version = document.get("kind"), document.get("schema_version")
    if kind not in VERSIONS:
        known = ", ".join(VERSIONS)
        raise NoRecord(f"{name} is of kind {kind!r}; this miniml reads {known}.")
    if not isinstance(version, int) or not 1 <= version <= VERSIONS[kind]:
        raise NoRecord(
            f"{name} is a {kind} record of schema version {version}; this miniml reads up to"
            f" {VERSIONS[kind]}, so read it with the miniml that wrote it."
        )
    for key, kind_of_value in _ENVELOPE.items():
        if not isinstance(document.get(key), kind_of_value):
            raise NoRecord(f"{name} is no record: its {key!r} is {document.get(key)!r}.")
    if missing := {"cpu", "cores"} - set(document["machine"]):
        raise NoRecord(
            f"{name} is no record: its machine has no {' and no '.join(sorted(missing))}."
        )
    return Record(certificate=_certificate(document, name), document=document)


def _certificate(document: Mapping[str, Any], name: str) -> Certificate:
    goals = {key: document[key] for key in ("goal", "goals_ms") if key in document}
    scenario = {**document["scenario"], **goals}
    return Certificate(
        name=name,
        kind=document["kind"],
        recorded_at=document["recorded_at"],
        machine=document["machine"],
        versions=document["versions"],
        commit=document["commit"],
        package_digest=document["package_digest"],
        # A load of somebody's endpoint knows the package by what the endpoint says at /info.
        package=document.get("package") or document.get("server") or {},
        scenario=scenario,
        partial=bool(document.get("partial")) or scenario.get("complete") is False,
    )
