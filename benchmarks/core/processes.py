"""Which of a server's processes is the replica, and how old one is."""

from __future__ import annotations

from pathlib import Path

from benchmarks.errors import NoReplica
from benchmarks.processes import PROC, ProcessStat, process_tree


def replica_of(root: int, proc: Path = PROC) -> ProcessStat:
    """The one replica below *root*. Raises `NoReplica` when there is none."""
    for stat in process_tree(root, proc):
        try:
            command = (proc / str(stat.pid) / "cmdline").read_text(encoding="utf-8")
        except OSError:
            continue
        if command.startswith("ray::ServeReplica") and "Encoder" in command:
            return stat
    raise NoReplica("The server runs no replica that can be told from its other processes.")


def age_s(stat: ProcessStat, proc: Path = PROC) -> float:
    """Seconds since the process was created."""
    uptime_s = float((proc / "uptime").read_text(encoding="utf-8").split()[0])
    return uptime_s - stat.start_s
