"""Clients of others' making, as they are installed, get our answers over a real socket."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.access.keys import create_key
from serving.engine import Engine, prediction
from serving.package import Package

ROOT = Path(__file__).parent.parent.parent
PYTHON = ROOT / ".venv" / "clients" / "bin" / "python"
SCHEMATHESIS = PYTHON.parent / "schemathesis"
CONFORMANCE = "status_code_conformance,content_type_conformance,response_schema_conformance"
CHECKS = f"not_a_server_error,{CONFORMANCE}"
SCRIPTS = Path(__file__).parent / "foreign"
Listening = Callable[..., AbstractContextManager[str]]


def run_script(script: str, *arguments: str, given: str = "") -> dict[str, Any]:
    """The JSON document on the last line that *script* prints in the clients' environment."""
    ran = subprocess.run(
        [PYTHON, SCRIPTS / script, *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        # Offline the hub's client would not even ask this machine.
        env={key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"},
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    document: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return document


def check(answers: dict[str, Any], package: Package, texts: list[str]) -> None:
    """Each client's labels and scores of *texts* are the engine's."""
    given = [prediction(row, package) for row in Engine(package).logits(texts)]
    for client, answer in answers.items():
        assert answer["label"] == [one.label for one in given], client
        np.testing.assert_allclose(
            answer["scores"], [one.scores for one in given], atol=1e-6, err_msg=client
        )


@pytest.mark.skipif(not PYTHON.exists(), reason="no environment for clients: make clients")
def test_their_clients_get_our_answers(
    package: Package, listening: Listening, listening_grpc: Listening, texts: list[str]
) -> None:
    """200 texts, the engine's answers: raw tensors or JSON, gRPC or HTTP, with asyncio or without."""
    with listening(package) as url, listening_grpc(package) as grpc:
        name = package.config.name
        answers = run_script("ask.py", url, grpc, name, given=json.dumps(texts))
    hub = answers.pop("hub")

    assert set(answers) == {
        *("triton, raw", "triton, JSON", "triton, asyncio"),
        *("kserve", "kserve, gRPC", "kserve, gRPC, raw", "open inference"),
    }
    check(answers, package, texts)
    labels = package.config.labels
    by_label = [prediction(row, package).scores for row in Engine(package).logits(texts)]
    wanted = [dict(zip(labels, scores, strict=True)) for scores in by_label]
    assert hub["label"] == answers["kserve"]["label"]
    assert hub["by_label"] == [pytest.approx(scores, abs=1e-6) for scores in wanted]


@pytest.mark.skipif(not PYTHON.exists(), reason="no environment for clients: make clients")
def test_tritons_grpc_clients_get_our_answers_and_codes(
    package: Package, listening_grpc: Listening, texts: list[str], tmp_path: Path
) -> None:
    """200 texts, the engine's answers, with a key; what is wrong with a call has its code."""
    _, key = create_key(tmp_path / "keys.json", "web")
    name = package.config.name
    with listening_grpc(package, keys=str(tmp_path / "keys.json")) as grpc:
        told = run_script("triton_grpc.py", grpc, name, key, given=json.dumps(texts))

    assert len(told["answers"]) == 2
    check(told["answers"], package, texts)
    assert told["codes"] == {
        "no key": "StatusCode.UNAUTHENTICATED",
        "wrong key": "StatusCode.UNAUTHENTICATED",
        "wrong model": "StatusCode.NOT_FOUND",
        "wrong version": "StatusCode.NOT_FOUND",
        "empty text": "StatusCode.INVALID_ARGUMENT",
        "too many texts": "StatusCode.INVALID_ARGUMENT",
        "too late": "StatusCode.DEADLINE_EXCEEDED",
    }


@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="no environment for clients: make clients")
@pytest.mark.parametrize("task", ["single_label", "multi_label"])
def test_the_contract_is_kept_whatever_is_sent(
    make_package: Callable[..., Package],
    listening: Callable[[Package], AbstractContextManager[str]],
    tmp_path: Path,
    task: str,
) -> None:
    """Right and wrong requests made of it: no 5xx but a deadline's 504, every answer in its shape."""
    with listening(make_package(task=task)) as url:
        command = [str(SCHEMATHESIS), "--config-file", str(SCRIPTS / "schemathesis.toml")]
        command += ["run", f"{url}/openapi.json", "--checks", CHECKS]
        command += ["--max-examples", "25", "--seed", "1", "--no-color"]
        ran = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(SCRIPTS)},
            cwd=tmp_path,
        )

    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-1000:]
