"""The jobs' chain: the workflows' own lines, one after the other, on this machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from registry.artifact import Manifest, verify

ROOT = Path(__file__).parent.parent.parent


def workflow(name: str) -> dict[Any, Any]:
    """The workflow *name*; `on` is True to YAML 1.1."""
    text = (ROOT / f".github/workflows/{name}.yml").read_text(encoding="utf-8")
    found: dict[Any, Any] = yaml.safe_load(text)
    return found


def run_job(name: str, job: str, inputs: dict[str, str], folder: Path) -> str:
    """Every `run` line of *job* but `make setup`, in *folder*, as a runner would; what was told."""
    told = folder / f"{name}.md"
    defaults = {
        key: str(each.get("default", ""))
        for key, each in workflow(name)[True]["workflow_dispatch"]["inputs"].items()
    }
    values = {f"inputs.{key}": value for key, value in (defaults | inputs).items()}
    for step in workflow(name)["jobs"][job]["steps"]:
        line = step.get("run", "make setup")
        if line == "make setup":  # made the environment that this runs in
            continue
        environment = {
            key: re.sub(r"\$\{\{ ([\w.-]+) \}\}", lambda match: values.get(match[1], ""), value)
            for key, value in step.get("env", {}).items()
        }
        done = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", line],
            cwd=folder,
            env=os.environ | environment | {"GITHUB_STEP_SUMMARY": str(told)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    return told.read_text(encoding="utf-8")


def sealed(folder: Path, kind: str) -> Manifest:
    """The manifest of the artifact that a job left in *folder*, every byte of it hashed."""
    return verify(folder / "artifacts" / kind)


def test_the_chain_runs_here(tmp_path: Path, tiny_encoder: Path) -> None:
    """transform, train, and deploy's export and gate, line by line: each from the one before's digest."""
    folders = [tmp_path / name for name in ("one", "two", "three")]
    for folder in folders:  # a runner each, with nothing but a checkout
        folder.mkdir()
        (folder / ".venv").symlink_to(Path(sys.executable).parent.parent)
    source = {"dataset-id": str(ROOT / "training/sample/reviews.jsonl")}
    base = {"model-id": str(tiny_encoder), "batch-size": "16", "iterations": "8"}

    told = run_job("transform", "transform", source, folders[0])
    told += run_job("train", "train", base, folders[1])
    told += run_job("deploy", "export", {"budget-minutes": "0.05"}, folders[2])
    dataset, checkpoint, package = (
        sealed(folder, kind)
        for folder, kind in zip(folders, ("dataset", "checkpoint", "package"), strict=True)
    )

    assert checkpoint.lineage["dataset_digest"] == dataset.digest
    assert package.lineage["checkpoint_digest"] == checkpoint.digest
    assert package.lineage["dataset_digest"] == dataset.digest
    for manifest in (dataset, checkpoint, package):
        assert f"| **digest** | `{manifest.digest}` |" in told
