"""Clients of others' making, as they are installed, get our answers over a real socket."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest

from serving.engine import Engine, prediction
from serving.package import Package

ROOT = Path(__file__).parent.parent.parent
PYTHON = ROOT / ".venv" / "clients" / "bin" / "python"
SCHEMATHESIS = PYTHON.parent / "schemathesis"
CONFORMANCE = "status_code_conformance,content_type_conformance,response_schema_conformance"
CHECKS = f"not_a_server_error,{CONFORMANCE}"
SCRIPT = Path(__file__).parent / "foreign" / "ask.py"
TEXTS = ["good", "the soup was very bad and cold", "not warm " * 40, "ünïcode ✓ 好"]


@pytest.mark.skipif(not PYTHON.exists(), reason="no environment for clients: make clients")
def test_their_clients_get_our_answers(
    package: Package, listening: Callable[[Package], AbstractContextManager[str]]
) -> None:
    """Labels and scores of each are the engine's, raw tensors or JSON, with asyncio or without."""
    given = [prediction(row, package) for row in Engine(package).logits(TEXTS)]
    with listening(package) as url:
        asked = subprocess.run(
            [PYTHON, SCRIPT, url, package.config.name],
            input=json.dumps(TEXTS),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            # Offline it would not even ask this machine.
            env={key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"},
        )
    assert asked.returncode == 0, asked.stderr[-3000:]
    answers = json.loads(asked.stdout.splitlines()[-1])

    hub = answers.pop("hub")
    labels = package.config.labels
    by_label = [dict(zip(labels, one.scores, strict=True)) for one in given]
    assert hub["label"] == [one.label for one in given]
    assert hub["by_label"] == [pytest.approx(scores, abs=1e-6) for scores in by_label]
    assert set(answers) == {"triton, raw", "triton, JSON", "triton, asyncio", "kserve"}
    for client, answer in answers.items():
        assert answer["label"] == [one.label for one in given], client
        np.testing.assert_allclose(
            answer["scores"], [one.scores for one in given], atol=1e-6, err_msg=client
        )


@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="no environment for clients: make clients")
@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_the_contract_is_kept_whatever_is_sent(
    make_package: Callable[..., Package],
    listening: Callable[[Package], AbstractContextManager[str]],
    tmp_path: Path,
    task: str,
) -> None:
    """Right and wrong requests made of it: no 5xx, and every answer has a shape that stands there."""
    with listening(make_package(task=task)) as url:
        command = [str(SCHEMATHESIS), "run", f"{url}/openapi.json", "--checks", CHECKS]
        command += ["--max-examples", "25", "--seed", "1", "--no-color"]
        ran = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(SCRIPT.parent)},
            cwd=tmp_path,
        )

    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-1000:]
