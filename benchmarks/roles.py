"""What each process of a server is, by its command line: replica, controller, HAProxy, and so on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from benchmarks.processes import PROC, ProcessStat, memory_bytes, process_tree

FIRST, OTHER = "miniml serve", "other"
# The first whose words stand in the command is it. Ray names its workers by what runs in them.
_ROLES = (
    ("replica", "ray::ServeReplica"),
    ("controller", "ray::ServeController"),
    ("spare proxy", "ray::ProxyActor"),
    ("HAProxy's manager", "ray::HAProxyManager"),
    ("dashboard agent", "ray::DashboardAgent"),
    ("runtime env agent", "ray::RuntimeEnvAgent"),
    ("idle worker", "ray::IDLE"),
    ("HAProxy", "haproxy -db"),
    ("GCS", "gcs_server"),
    ("raylet", "raylet/raylet "),
    ("dashboard", "dashboard/dashboard.py"),
    ("log monitor", "log_monitor.py"),
    ("monitor", "monitor.py"),
)


def role_of(command: str) -> str:
    """The role of the process that was started as *command*; `OTHER` when it is none of a server's."""
    return next((role for role, words in _ROLES if words in command), OTHER)


def roles_of(root: int, proc: Path = PROC) -> Iterator[tuple[str, ProcessStat]]:
    """*root*, which is `FIRST`, and all that descend from it; those that end meanwhile are left out."""
    for stat in process_tree(root, proc):
        if stat.pid == root:
            yield FIRST, stat
            continue
        try:
            words = (proc / str(stat.pid) / "cmdline").read_bytes()
        except OSError:
            continue
        yield role_of(words.replace(b"\0", b" ").decode(errors="replace")), stat


def memory_by_role(root: int, proc: Path = PROC) -> tuple[dict[str, int], dict[str, int]]:
    """Of *root* and all that descend from it, in bytes by role: own memory, and PSS.

    Own is what they allocated and share with each other alone. PSS counts their libraries, too, by
    their share: it falls when a neighbour comes that has mapped the same, and rises when one goes.
    """
    own: dict[str, int] = defaultdict(int)
    pss: dict[str, int] = defaultdict(int)
    for role, stat in roles_of(root, proc):
        found = memory_bytes(stat.pid, proc)
        own[role] += found.get("Pss_Anon", 0) + found.get("Pss_Shmem", 0)
        pss[role] += found.get("Pss", 0)
    return dict(own), dict(pss)
