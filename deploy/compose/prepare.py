"""Secrets for compose.yaml, made where there are none: `python deploy/compose/prepare.py`.

Leaves alone what is there. `.env` is its owner's alone. The files in `secrets/` are mounted into
containers whose users are others, so they may be read by all, in a folder that only its owner may
enter.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
_CALLERS = ("prometheus", "load")


def prepare(folder: Path) -> None:
    """Make `.env` and `secrets/` in *folder*, a copy of this one or this one."""
    hidden = folder / "secrets"
    hidden.mkdir(mode=0o700, exist_ok=True)
    keys = {name: _key(hidden / "keys.json", name) for name in _CALLERS}
    (hidden / "keys.json").chmod(0o644)
    if key := keys["prometheus"]:
        (hidden / "prometheus.key").write_text(key, encoding="utf-8")
    environment = folder / ".env"
    if environment.exists():
        return
    example = (folder / ".env.example").read_text(encoding="utf-8")
    filled = re.sub(
        r"^(\w+)=$",
        lambda match: f"{match[1]}={secrets.token_hex(24)}",
        example,
        flags=re.MULTILINE,
    )
    if key := keys["load"]:
        filled = re.sub(r"^LOAD_KEY=.*$", f"LOAD_KEY={key}", filled, flags=re.MULTILINE)
    descriptor = os.open(environment, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(filled)


def _key(path: Path, name: str) -> str | None:
    """A new API key of *name* in the file at *path*; None where it has one."""
    if path.exists() and any(row["name"] == name for row in json.loads(path.read_bytes())["keys"]):
        return None
    made = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "miniml", "keys", "create", name, "--keys", str(path), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    secret: str = json.loads(made.stdout.splitlines()[-1])["secret"]
    return secret


if __name__ == "__main__":
    prepare(HERE)
