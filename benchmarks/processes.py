"""CPU time and memory of a server's processes, as the kernel tells them in /proc (Linux).

Who descends from a server's first process is the server: Ray's own processes and workers do, too.
Elsewhere than on Linux a tree is empty.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat after the name in brackets, which may itself hold spaces and brackets.
_PARENT, _CPU, _START = 1, slice(11, 15), 19


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStat:
    """cpu_s: user and system time, with that of children that ended. start_s: since the boot."""

    pid: int
    parent: int
    cpu_s: float
    start_s: float


def read_stat(line: str) -> ProcessStat:
    """One line of /proc/PID/stat."""
    fields = line.rpartition(")")[2].split()
    return ProcessStat(
        pid=int(line.split(" ", 1)[0]),
        parent=int(fields[_PARENT]),
        cpu_s=sum(map(int, fields[_CPU])) / _TICKS_PER_S,
        start_s=int(fields[_START]) / _TICKS_PER_S,
    )


def process_tree(root: int, proc: Path = PROC) -> list[ProcessStat]:
    """*root* and all that descend from it, as they are now."""
    stats = {stat.pid: stat for stat in _stats(proc)}
    found = [stats[root]] if root in stats else []
    for stat in found:  # grows while it is walked
        found.extend(child for child in stats.values() if child.parent == stat.pid)
    return found


def tree_cpu_s(root: int, proc: Path = PROC) -> float:
    """CPU seconds that *root* and all that descend from it have taken."""
    return sum(stat.cpu_s for stat in process_tree(root, proc))


def tree_pss_bytes(root: int, proc: Path = PROC) -> int:
    """Memory of *root* and all that descend from it; shared pages count once."""
    return sum(pss_bytes(stat.pid, proc) for stat in process_tree(root, proc))


def pss_bytes(pid: int, proc: Path = PROC) -> int:
    """Proportional set size: shared pages by this process's share. 0 when it has ended."""
    return memory_bytes(pid, proc).get("Pss", 0)


def memory_bytes(pid: int, proc: Path = PROC) -> dict[str, int]:
    """What the kernel adds up of a process (`Pss`, `Pss_Anon`, ...); nothing when it has ended."""
    try:
        lines = (proc / str(pid) / "smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    told = (line.split() for line in lines if line.endswith(" kB"))
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in told}


def _stats(proc: Path) -> Iterator[ProcessStat]:
    for folder in proc.iterdir() if proc.is_dir() else ():
        if folder.name.isdigit():
            try:
                yield read_stat((folder / "stat").read_text(encoding="utf-8", errors="replace"))
            except OSError:  # ended meanwhile
                continue
