"""An image's build and start without a container engine: `python -m deploy.docker.rehearsal CONTEXT`.

Each stage of the Dockerfile runs as it stands there, in a root of its own: an overlay on this
machine's files, which stand in for the base image. The result is then started as an engine would:
as the image's user without any capability, its root read-only, with a network and processes of its
own, and asked by its own health check and by a client. Needs Linux and root, for the mounts.

What it says is JSON: bytes by distribution, and seconds until the first answer. Sizes are what the
image adds to its base. Times are of this machine and of what else runs on it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from dockerfile_parse import DockerfileParser

from deploy.docker.jail import ImageStage, base_layer, mount_root, start, unmount
from deploy.docker.sizes import contents

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_VARIABLE = re.compile(r"\$\{?(\w+)\}?")


def main() -> None:
    """Rehearse, and print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("context", type=Path, help="made by miniml image build --dry-run")
    parser.add_argument("--target", default="serve")
    parser.add_argument("--starts", type=int, default=1, help="how often it is started")
    parser.add_argument("--tell", nargs="*", default=(), help="for its command: lanes=2 threads=1")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit(
            "The rehearsal mounts folders, which only root may; use sudo, or a container engine."
        )
    if "REHEARSAL" not in os.environ:  # mounts of our own, which end with us
        os.environ["REHEARSAL"] = "1"
        again = [sys.executable, "-m", "deploy.docker.rehearsal", *sys.argv[1:]]
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", *again])  # noqa: S606, S607
    work = Path(tempfile.mkdtemp(prefix="rehearsal-"))
    try:
        stages = Build(options.context.absolute(), work).run(options.target)
        seen = contents(stages[options.target].layers)
        stage = stages[options.target]
        stage.command += [f"--{each}" for each in options.tell]
        seen["starts"] = [start(stage, work / f"start-{each}") for each in range(options.starts)]
    finally:
        unmount(work)
        work.rmdir()
    sys.stdout.write(json.dumps(seen) + "\n")


class Build:
    """The stages of a context's Dockerfile, one after the other."""

    def __init__(self, context: Path, work: Path) -> None:
        self._context, self._work = context, work
        self._stages: dict[str, ImageStage] = {}
        self._stage = ImageStage(layers=[])
        self._root = Path()
        self._base = ImageStage(layers=[base_layer(work)], environment={"PATH": _PATH})

    def run(self, target: str) -> dict[str, ImageStage]:
        """All that *target* needs, by name."""
        parser = DockerfileParser(str(self._context), env_replace=False)
        steps = [
            (step["instruction"], step["value"])
            for step in parser.structure
            if step["instruction"] != "COMMENT"
        ]
        wanted = needed(steps, target)
        active = False
        for instruction, value in steps:
            if instruction == "FROM":
                base, _, name = value.partition(" AS ")
                active = name in wanted
                if active:
                    self._begin(base, name)
            elif active:
                sys.stderr.write(f"{instruction} {value[:100]}\n")
                getattr(self, f"_{instruction.lower()}", self._nothing)(value)
        return self._stages

    def _begin(self, base: str, name: str) -> None:
        before = self._stages.get(base, self._base)
        layer = self._work / name
        layer.mkdir()
        self._stage = ImageStage(
            layers=[layer, *before.layers],
            environment=dict(before.environment),
            user=before.user,
            folder=before.folder,
            entrypoint=before.entrypoint,
            command=before.command,
            health=before.health,
        )
        self._stages[name] = self._stage
        self._root = mount_root(self._work, name, self._stage.layers, writable=True)

    def _arg(self, value: str) -> None:
        name, _, default = value.partition("=")
        if given := os.environ.get(name, default):
            self._stage.arguments[name] = given

    def _env(self, value: str) -> None:
        for name, text in re.findall(r"(\w+)=(\S+)", value):
            self._stage.environment[name] = expanded(text, self._stage.environment)

    def _copy(self, value: str) -> None:
        *options, source, target = value.split()
        start = self._context
        for option in options:
            start = self._work / "roots" / option.removeprefix("--from=")
        path, place = start / source.lstrip("/"), self._root / target.lstrip("/")
        if path.is_dir():
            shutil.copytree(path, place, symlinks=True, dirs_exist_ok=True)
        else:
            place = place / path.name if target.endswith("/") else place
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, place)

    def _run(self, value: str) -> None:
        environment = self._stage.environment | self._stage.arguments
        subprocess.run(  # noqa: S603 - what the Dockerfile says
            ["chroot", str(self._root), "/bin/sh", "-c", value],  # noqa: S607
            env=environment,
            stdout=sys.stderr,
            check=True,
        )

    def _user(self, value: str) -> None:
        self._stage.user = value

    def _workdir(self, value: str) -> None:
        self._stage.folder = value
        (self._root / value.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _entrypoint(self, value: str) -> None:
        self._stage.entrypoint = json.loads(value)

    def _cmd(self, value: str) -> None:
        self._stage.command = json.loads(value)

    def _healthcheck(self, value: str) -> None:
        _, found, command = value.partition("CMD ")
        self._stage.health = json.loads(command) if found else []

    def _nothing(self, value: str) -> None:
        """EXPOSE, LABEL and VOLUME change no file."""


def needed(steps: list[tuple[str, str]], target: str) -> set[str]:
    """*target* and every stage that it is built on or copies from."""
    needs: dict[str, set[str]] = {}
    name = ""
    for instruction, value in steps:
        if instruction == "FROM":
            base, _, name = value.partition(" AS ")
            needs[name] = {base}
        elif instruction == "COPY" and name:
            needs[name] |= set(re.findall(r"--from=(\S+)", value))
    wanted, open_ = set(), [target]
    while open_:
        stage = open_.pop()
        if stage in needs and stage not in wanted:
            wanted.add(stage)
            open_ += needs[stage]
    return wanted


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """*text* with its variables' values."""
    return _VARIABLE.sub(lambda match: environment.get(match[1], ""), text)


if __name__ == "__main__":
    main()
