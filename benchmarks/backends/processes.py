"""Starting `worker` and reading what it saw; a worker that breaks is one sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.errors import EngineBroke

_SHOWN_CHARS = 200


def ask_worker(task: str, *, threads: int = 1, **job: Any) -> dict[str, Any]:
    """Run one task of `worker` in a fresh process whose libraries may take *threads* threads.

    Raises `EngineBroke` with its last word.
    """
    with tempfile.TemporaryDirectory(prefix="miniml-backend-") as folder:
        result_path = Path(folder) / "result.json"
        result = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "benchmarks.backends.worker", str(result_path)],
            input=json.dumps({"task": task, "threads": threads, **job}).encode(),
            capture_output=True,
            check=False,
            env={**os.environ, **_environment(threads)},
        )
        if result.returncode != 0:
            raise EngineBroke(_last_word(result))
        return dict(json.loads(result_path.read_bytes()))


def _environment(threads: int) -> dict[str, str]:
    """The budget, for those who read it before anybody can tell them; and no hub."""
    return {
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }


def _last_word(result: subprocess.CompletedProcess[bytes]) -> str:
    if result.returncode < 0:
        return f"its process was ended by signal {-result.returncode}"
    lines = result.stderr.decode(errors="replace").strip().splitlines()
    said = lines[-1].strip() if lines else "it said nothing"
    return f"it failed: {said[:_SHOWN_CHARS]}"
