"""A root of one's own for a stage, and an image's start in it, as a container engine would.

Overlays whose lowest layer is this machine, less what no base image has. Needs Linux and root.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Folders of this machine that a base image has, too; all else is hidden from the image.
_OF_A_BASE = ("bin", "etc", "lib", "lib32", "lib64", "libx32", "opt", "sbin", "usr", "var")
_EMPTY = ("dev", "proc", "sys", "tmp")
_DEVICES = ("full", "null", "random", "urandom", "zero")
_SHM_BYTES = 64 * 2**20  # an engine's default
_UNTIL_ANSWER_S, _UNTIL_ENDED_S = 300, 60
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_ASK = f"""
import json, time, urllib.request as u
last = time.time() + {_UNTIL_ANSWER_S}
asked = u.Request("http://127.0.0.1:8000/predict", json.dumps({{"text": "Warm welcome"}}).encode(),
    {{"content-type": "application/json"}})
while True:
    try:
        answer = json.load(u.urlopen(asked, timeout=30))
        break
    except OSError:
        if time.time() > last:
            raise
        time.sleep(0.02)
print(json.dumps({{"answer": answer, "at_s": time.time()}}))
"""


@dataclass(slots=True, kw_only=True)
class ImageStage:
    """What a stage is after its instructions. layers: folders, the newest first."""

    layers: list[Path]
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    user: str = "0"
    folder: str = "/"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)


def base_layer(work: Path) -> Path:
    """The layer on this machine's files that hides what no base image has; *work* becomes a memory disk.

    Overlays refuse layers that lie within each other, and the lowest of ours is the root.
    """
    _do("mount", "-t", "tmpfs", "tmpfs", str(work))
    layer = work / ".machine"
    layer.mkdir()
    for path in Path("/").iterdir():
        if path.name in _OF_A_BASE or path.is_symlink():
            continue
        hidden = layer / path.name
        if path.is_dir():
            hidden.mkdir()
            os.setxattr(hidden, "trusted.overlay.opaque", b"y")
        else:
            hidden.touch()
    (layer / "tmp").chmod(0o1777)
    return layer


def mount_root(work: Path, name: str, layers: list[Path], *, writable: bool) -> Path:
    """A root of *layers*: writes go to the first, or are refused."""
    root, scratch = work / "roots" / name, work / f"{name}.overlay"
    root.mkdir(parents=True)
    scratch.mkdir(parents=True)
    upper, *lower = layers
    if writable:
        options = f"upperdir={upper},workdir={scratch}"
    else:
        lower, options = layers, "ro"
    places = ":".join(map(str, [*lower, "/"]))
    _do("mount", "-t", "overlay", "overlay", "-o", f"lowerdir={places},{options}", str(root))
    if writable:
        _do("mount", "--rbind", "/dev", str(root / "dev"))
        _do("mount", "-t", "tmpfs", "tmpfs", str(root / "tmp"))
    return root


def unmount(work: Path) -> None:
    """All roots, and the disk itself."""
    subprocess.run(["umount", "--recursive", str(work)], check=False)  # noqa: S603, S607


def start(stage: ImageStage, work: Path) -> dict[str, Any]:
    """Start the image, ask it, stop it. Raises where it does not answer, or writes where it may not."""
    root = mount_root(work, "image", stage.layers, writable=False)
    _fill_devices(root / "dev")
    _do("mount", "-t", "tmpfs", "-o", "noexec,nosuid,nodev,mode=1777", "tmpfs", str(root / "tmp"))
    spaces = ["--pid", "--net", "--ipc", "--uts"]
    alone = ["unshare", "--fork", "--kill-child", *spaces]
    inner = [sys.executable, "-m", "deploy.docker.jail", str(root), *_command(stage)]
    began_s = time.time()
    process = subprocess.Popen([*alone, *inner], stdout=sys.stderr, env=os.environ | _told(stage))  # noqa: S603 - our own command
    try:
        first = _first_child(process)
        seen = _asked(stage, first, began_s) | {"command": _command(stage)}
        seen["written"] = sorted(path.name for path in (root / "tmp").iterdir())
        os.kill(first, signal.SIGTERM)
        seen["exit_code"] = process.wait(timeout=_UNTIL_ENDED_S)
    finally:
        process.kill()
        process.wait()
    return seen


def _asked(stage: ImageStage, first: int, began_s: float) -> dict[str, Any]:
    """What the image answers, and what it may: *first* is its first process."""
    answer = json.loads(_inside(stage, first, "python3", "-c", _ASK))
    return {
        "server_start_to_answer_s": round(answer["at_s"] - began_s, 2),
        **_replica(first, answer["at_s"]),
        "answer": answer["answer"],
        "health_check": _inside(stage, first, *stage.health) == "",
        "machine_load": os.getloadavg()[0],
        "user": _inside(stage, first, "id", "-u").strip(),
        "root_is_read_only": "Read-only" in _inside(stage, first, "sh", "-c", "touch /x 2>&1; :"),
    }


def _command(stage: ImageStage) -> list[str]:
    return [*stage.entrypoint, *stage.command, "--insecure"]  # nobody but us is on its network


def _told(stage: ImageStage) -> dict[str, str]:
    return {"IMAGE_STAGE": json.dumps({"env": stage.environment, "user": stage.user})}


def _fill_devices(folder: Path) -> None:
    _do("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(folder))
    for name in _DEVICES:
        (folder / name).touch()
        _do("mount", "--bind", f"/dev/{name}", str(folder / name))
    (folder / "shm").mkdir()
    _do("mount", "-t", "tmpfs", "-o", f"mode=1777,size={_SHM_BYTES}", "tmpfs", str(folder / "shm"))


def _first_child(process: subprocess.Popen[bytes]) -> int:
    """The pid here of the first process in there."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None:
        if pids := children.read_text().split():
            return int(pids[0])
        time.sleep(0.01)
    raise RuntimeError(f"unshare ended with {process.returncode}")


def _inside(stage: ImageStage, first: int, *command: str) -> str:
    """What *command* prints, run beside the image's first process as the image's user."""
    enter = ["nsenter", "--target", str(first), *("--pid", "--net", "--ipc", "--uts", "--root")]
    asked = subprocess.run(  # noqa: S603 - our own command
        [*enter, *_as_user(stage.user), *command],
        env=stage.environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=_UNTIL_ANSWER_S + 60,
    )
    return asked.stdout


def _as_user(user: str) -> list[str]:
    name, _, group = user.partition(":")
    rights = ["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    return ["setpriv", f"--reuid={name}", f"--regid={group or name}", *rights]


def _replica(first: int, answered_s: float) -> dict[str, Any]:
    """Of the process that answers: seconds from its start to the first answer, and of CPU."""
    space = Path(f"/proc/{first}/ns/pid").readlink()
    ticks = os.sysconf("SC_CLK_TCK")
    booted = next(
        int(line.split()[1])
        for line in Path("/proc/stat").read_text().splitlines()
        if line.startswith("btime")
    )
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            ours = (folder / "ns/pid").readlink() == space
            if ours and (folder / "cmdline").read_bytes().startswith(b"ray::ServeReplica"):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                return {
                    "replica_start_to_answer_s": round(
                        answered_s - booted - int(fields[19]) / ticks, 2
                    ),
                    "replica_cpu_s": (int(fields[11]) + int(fields[12])) / ticks,
                }
        except OSError:  # it ended meanwhile
            continue
    raise RuntimeError("no replica is there")


def _do(*command: str) -> None:
    subprocess.run(command, check=True)  # noqa: S603 - our own commands


def _enter(root: str, command: list[str]) -> None:
    """Become *command* in *root*; the namespaces are there already."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as loopback:  # it is down in a new one
        fcntl.ioctl(loopback, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
    _do("mount", "-t", "proc", "proc", f"{root}/proc")
    told = json.loads(os.environ["IMAGE_STAGE"])
    os.chroot(root)
    os.chdir("/tmp")  # noqa: S108 - the image's
    os.execvpe("setpriv", [*_as_user(told["user"]), *command], told["env"])  # noqa: S606, S607


if __name__ == "__main__":
    _enter(sys.argv[1], sys.argv[2:])
