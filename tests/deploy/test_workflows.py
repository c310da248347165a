"""GitHub's workflows: valid, least in rights, and made of commands that run here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / ".github/workflows"
CHECKER = Path(sys.executable).with_name("check-jsonschema")
NAMES = ("ci", "deploy", "release", "train", "transform")
INPUTS = {
    "transform": {"dataset-id", "train-test-split-ratio"},
    "train": {"model-id", "batch-size", "iterations", "device"},
    "deploy": {"budget-minutes", "overlay"},
}


def workflow(name: str) -> dict[Any, Any]:
    """The workflow *name*; `on` is True to YAML 1.1."""
    found: dict[Any, Any] = yaml.safe_load((FOLDER / f"{name}.yml").read_text(encoding="utf-8"))
    return found


def steps(name: str) -> list[tuple[str, dict[str, Any]]]:
    """Each step of *name* with its job."""
    return [
        (job, step)
        for job, document in workflow(name)["jobs"].items()
        for step in document["steps"]
    ]


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_agrees(name: str) -> None:
    """Each file is a workflow by GitHub's schema."""
    done = subprocess.run(
        [CHECKER, "--builtin-schema", "vendor.github-workflows", FOLDER / f"{name}.yml"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("runs-on: ", "run-on: "),
        ("timeout-minutes: 120", "timeout-minutes: long"),
        ("contents: read", "contents: some"),
        ("run: make setup", "run: [make, setup]"),
    ],
)
def test_a_broken_field_fails(tmp_path: Path, line: str, instead: str) -> None:
    """The schema refuses a misspelt key, a time in words, an unknown right, a run that is no line."""
    path = tmp_path / "transform.yml"
    text = (FOLDER / "transform.yml").read_text(encoding="utf-8")
    path.write_text(text.replace(line, instead, 1), encoding="utf-8")
    done = subprocess.run(
        [CHECKER, "--builtin-schema", "vendor.github-workflows", path],
        capture_output=True,
        text=True,
        check=False,
    )

    assert line in text
    assert done.returncode != 0


@pytest.mark.parametrize("name", NAMES)
def test_rights_and_time_are_least(name: str) -> None:
    """No job may more than it says, run for ever, or run twice at once; actions have a version."""
    document = workflow(name)

    assert document["permissions"] in ({}, {"contents": "read"}) or name == "train"
    assert document["concurrency"]["group"].startswith(f"{name}-")
    assert all(job["timeout-minutes"] <= 350 for job in document["jobs"].values())
    for job, step in steps(name):
        if "uses" in step:
            assert re.fullmatch(r"[\w.-]+/[\w./-]+@v\d+", step["uses"]), job
        if step.get("uses", "").startswith("actions/checkout"):
            assert step["with"] == {"persist-credentials": False}, job


@pytest.mark.parametrize("name", NAMES)
def test_steps_are_commands_of_ours(name: str) -> None:
    """Every `run` is one line of make or miniml, and takes inputs from its environment alone."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = [step["run"] for _, step in steps(name) if "run" in step]

    assert lines
    for line in lines:
        assert re.fullmatch(r"(make [a-z-]+|\.venv/bin/miniml [^\n;&|]+)", line), line
        assert "${{" not in line
        if line.startswith("make "):
            assert f"\n{line.removeprefix('make ')}:" in makefile


@pytest.mark.parametrize("name", sorted(INPUTS))
def test_jobs_take_what_they_say(name: str) -> None:
    """The inputs of a job, and no other is read by its steps."""
    text = (FOLDER / f"{name}.yml").read_text(encoding="utf-8")

    assert workflow(name)[True]["workflow_dispatch"]["inputs"].keys() == INPUTS[name]
    assert set(re.findall(r"\binputs\.([\w-]+)", text)) == INPUTS[name]


def test_each_job_hands_on_what_it_made() -> None:
    """What is uploaded is the folder that was made and told of, under the name the next one takes."""
    for name, kind in (("transform", "dataset"), ("train", "checkpoint"), ("deploy", "package")):
        runs = [step["run"] for _, step in steps(name) if "run" in step]
        uploads = [
            step["with"] for _, step in steps(name) if "upload-artifact" in step.get("uses", "")
        ]

        assert [(each["name"], each["path"]) for each in uploads] == [(kind, f"artifacts/{kind}")]
        assert any(run.endswith(f"--output artifacts/{kind}") for run in runs)
        assert f".venv/bin/miniml job summary artifacts/{kind}" in runs
    assert any("job fetch dataset" in step.get("run", "") for _, step in steps("train"))
    assert any("job fetch checkpoint" in step.get("run", "") for _, step in steps("deploy"))
