"""Images: their locks, their Dockerfile, the context that is built, and what is said of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shlex
import stat
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from deploy.docker.context import lay_out
from deploy.docker.image import build_image
from deploy.docker.rehearsal import Build, needed
from deploy.errors import DeployError, NoEngine
from deploy.options import ImageOptions, Target
from registry.artifact import verify
from registry.errors import RegistryError

ROOT = Path(__file__).parent.parent.parent
DOCKER = ROOT / "deploy/docker"
HADOLINT = Path(sys.executable).with_name("hadolint")
TARGETS: tuple[Target, ...] = ("serve", "serve-gpu", "jobs", "load")
# What an image may hold that a development machine does not.
ONLY_IN_IMAGES = {"build": re.compile("."), "serve-gpu": re.compile(r"^(nvidia-|onnxruntime-gpu$)")}


def pins(path: Path) -> dict[str, str]:
    """Names and versions of a lock file."""
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def steps() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile."""
    return [
        (step["instruction"], step["value"])
        for step in DockerfileParser(str(DOCKER), env_replace=False).structure
        if step["instruction"] != "COMMENT"
    ]


def files(folder: Path) -> dict[str, str]:
    """Relative path and digest of every file below *folder*."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("image", ["build", *TARGETS])
def test_locks_agree(image: str) -> None:
    """What an image holds is at the version that tests ran with."""
    tested, held = pins(ROOT / "requirements.lock"), pins(DOCKER / f"requirements-{image}.lock")
    allowed = ONLY_IN_IMAGES.get(image)

    assert len(held) > 30
    assert {name: (held[name], tested[name]) for name in held.keys() & tested.keys()} == {
        name: (held[name], held[name]) for name in held.keys() & tested.keys()
    }
    assert [n for n in held.keys() - tested.keys() if not (allowed and allowed.search(n))] == []


@pytest.mark.parametrize(
    ("image", "extra"), [("serve", "serving"), ("jobs", "training"), ("load", "benchmarks")]
)
def test_locks_hold_what_the_extra_wants(image: str, extra: str) -> None:
    """A requirement that is changed in pyproject.toml, but not locked anew, is seen."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"][extra]]
    held = pins(DOCKER / f"requirements-{image}.lock")
    missing = [
        requirement
        for requirement in map(Requirement, wanted)
        if requirement.name != "miniml"
        and not requirement.specifier.contains(
            Version(held.get(canonicalize_name(requirement.name), "0"))
        )
    ]

    assert missing == []


@pytest.mark.parametrize("image", ["serve", "serve-gpu"])
def test_servers_are_small(image: str) -> None:
    """No library of training is in an image that serves."""
    held = pins(DOCKER / f"requirements-{image}.lock")

    assert not held.keys() & {"torch", "transformers", "mlflow", "datasets", "pandas", "pyarrow"}
    assert {"ray", "tokenizers"} <= held.keys()
    assert ("onnxruntime-gpu" if image == "serve-gpu" else "onnxruntime") in held
    assert len(held.keys() & {"onnxruntime", "onnxruntime-gpu"}) == 1


@pytest.mark.parametrize(
    ("pattern", "instead", "rule"),
    [
        (r"$^", "", ""),
        (r"^FROM \S+ AS tools", "FROM python AS tools", "DL3006"),
        (r"^VOLUME /data", "USER root", "DL3002"),
        (r'CMD \["--help"\]', "CMD --help", "DL3025"),
        (r"^WORKDIR /tmp", "WORKDIR tmp", "DL3000"),
    ],
    ids=["as it is", "no base", "root", "a shell's command", "a relative folder"],
)
def test_the_linter_agrees(tmp_path: Path, pattern: str, instead: str, rule: str) -> None:
    """The Dockerfile passes hadolint, and does not when one line is broken."""
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    path = tmp_path / "Dockerfile"
    path.write_text(re.sub(pattern, instead, text, flags=re.MULTILINE), encoding="utf-8")
    done = subprocess.run([HADOLINT, path], capture_output=True, text=True, check=False)

    assert rule in done.stdout
    assert bool(done.returncode) == bool(rule), done.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_images_run_without_rights(target: Target) -> None:
    """Each ends as a user by number, from a base of one version; servers say whether they are ready."""
    lines = steps()
    stages = needed(lines, target)
    active, users, health = False, [], []
    for instruction, value in lines:
        if instruction == "FROM":
            active = value.partition(" AS ")[2] in stages
        elif instruction == "USER" and active:
            users.append(value)
        elif instruction == "HEALTHCHECK" and active:
            health.append(value)

    assert re.fullmatch(r"BASE=python:3\.\d+\.\d+-slim-\w+", lines[0][1])
    assert users[-1] == "65532:65532"
    assert ("/readyz" in health[-1]) == target.startswith("serve")


def test_the_rehearsal_knows_every_instruction() -> None:
    """Whatever the Dockerfile says is either done or known to change no file."""
    used = {instruction for instruction, _ in steps()}
    unknown = {
        name
        for name in used - {"FROM", "EXPOSE", "VOLUME", "LABEL"}
        if not hasattr(Build, f"_{name.lower()}")
    }

    assert unknown == set()
    assert needed(steps(), "serve") == {
        "base",
        "server",
        "serve",
        "serve-built",
        "serve-libraries",
        "tools",
    }


@pytest.mark.parametrize("target", TARGETS)
def test_the_context_is_whole(tmp_path: Path, package: Path, target: Target) -> None:
    """It holds all that the image's stages copy, nothing of tests or clusters, and no bytecode."""
    context = lay_out(tmp_path / "c", target=target, package=package)
    stages, active, wanted = needed(steps(), target), False, set()
    for instruction, value in steps():
        if instruction == "FROM":
            active = value.partition(" AS ")[2] in stages
        elif instruction == "COPY" and active and "--from" not in value:
            wanted.add(value.split()[0])
    names = set(files(context))

    assert [name for name in wanted if not (context / name).exists()] == []
    assert "src/serving/app.py" in names
    assert "src/deploy/docker/Dockerfile" in names
    assert not [name for name in names if re.search(r"pycache|\.pyc$|/tests/|k8s|results/", name)]


def test_equal_inputs_give_equal_contexts(tmp_path: Path, package: Path) -> None:
    """Laid out twice, every file is the same; the package in it is the package."""
    one = lay_out(tmp_path / "one", target="serve", package=package)
    other = lay_out(tmp_path / "other", target="serve", package=package)

    assert files(one) == files(other)
    assert verify(one / "package", kind="package") == verify(package, kind="package")


def test_the_source_in_the_context_is_a_wheel(tmp_path: Path, package: Path) -> None:
    """What the wheel takes by pyproject.toml is all in the context's source."""
    source = lay_out(tmp_path / "c", target="serve", package=package) / "src"
    project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))
    taken = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]

    assert [name for name in taken if not (source / name).exists()] == []


def test_a_changed_package_is_not_put_in(tmp_path: Path, package: Path) -> None:
    """A flipped byte is refused by name before anything is laid out."""
    (package / "model.onnx").write_bytes(b"b graph")
    options = ImageOptions(package=str(package), output=tmp_path / "c", dry_run=True)

    with pytest.raises(RegistryError, match=r"model\.onnx was changed"):
        build_image(options)
    assert not (tmp_path / "c").exists()


def test_labels_say_what_is_inside(tmp_path: Path, package: Path) -> None:
    """The digest and every step of the lineage stand in the labels, and these in the command."""
    manifest = verify(package, kind="package")
    image = build_image(ImageOptions(package=str(package), output=tmp_path / "c", dry_run=True))
    words = shlex.split(image.command)

    assert image.labels["miniml.package.digest"] == manifest.digest == image.package
    assert {
        key.removeprefix("miniml.lineage."): value
        for key, value in image.labels.items()
        if key.startswith("miniml.lineage.")
    } == dict(manifest.lineage)
    assert [f"{key}={value}" for key, value in image.labels.items()] == [
        after for word, after in pairwise(words) if word == "--label"
    ]
    assert image.tag == f"miniml-serve:{manifest.digest[:12]}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": "jobs"}, "holds no package"),
        ({"target": "serve-gpu"}, "--target serve"),
        ({"build_args": ("PIP_INDEX_URL",)}, "NAME=VALUE"),
    ],
    ids=["jobs", "another device", "an argument"],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, package: Path, options: dict[str, object], words: str
) -> None:
    """Jobs with a package, a package for another device, an argument without a value."""
    told = ImageOptions(package=str(package), output=tmp_path / "c", dry_run=True, **options)  # type: ignore[arg-type]

    with pytest.raises(DeployError, match=words):
        build_image(told)


def test_a_gpu_package_wants_its_own_image(tmp_path: Path, gpu_package: Path) -> None:
    """It is built for `serve-gpu`, and refused for `serve`."""
    told = ImageOptions(package=str(gpu_package), output=tmp_path / "c", dry_run=True)

    with pytest.raises(DeployError, match="--target serve-gpu"):
        build_image(told)
    built = build_image(
        ImageOptions(
            package=str(gpu_package), target="serve-gpu", output=tmp_path / "c", dry_run=True
        )
    )
    assert built.target == "serve-gpu"


def test_without_an_engine_it_says_what_to_do(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no engine answers, the context stays and the message has the command for elsewhere."""
    for name in ("docker", "podman"):
        engine = tmp_path / "bin" / name
        engine.parent.mkdir(exist_ok=True)
        engine.write_text("#!/bin/sh\nexit 1\n")  # as docker does where its daemon is not running
        engine.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    context = tmp_path / "c"

    with pytest.raises(NoEngine, match="docker build --target serve"):
        build_image(ImageOptions(package=str(package), output=context))
    assert verify(context / "package", kind="package")


def test_the_engine_runs_what_was_said(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that answers is called with the very command, then to push; the context goes again."""
    engine, told = tmp_path / "podman", tmp_path / "told.jsonl"
    engine.write_text(
        f"#!{sys.executable}\nimport json, os, sys\n"
        "if sys.argv[1] == 'inspect': print('here/reviews@sha256:0a')\n"
        f"print(json.dumps([sys.argv[1:], os.path.isdir(sys.argv[-1])]), file=open({str(told)!r}, 'a'))\n"
    )
    engine.chmod(engine.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    image = build_image(ImageOptions(package=str(package), tag="here/reviews:1", push=True))
    (info, _), (build, was_there), (push, _), _ = map(json.loads, told.read_text().splitlines())

    assert info == ["info"]
    assert ["podman", *build] == shlex.split(image.command)
    assert was_there
    assert not Path(build[-1]).exists()
    assert push == ["push", "here/reviews:1"]
    assert image.built
    assert image.pushed_digest == "sha256:0a"
    assert (tmp_path / "output").read_text() == "name=here/reviews\ndigest=sha256:0a\n"


def test_the_install_script_is_a_shell_script() -> None:
    """`sh` reads it."""
    subprocess.run(["sh", "-n", DOCKER / "install.sh"], check=True)


def test_the_page_names_what_there_is() -> None:
    """docs/deploy.md uses targets that the Makefile has, and options that the command has."""
    text = (ROOT / "docs/deploy.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"`make ([a-z-]+)", text))
    flags = {
        flag
        for line in re.findall(r"miniml image build(.*)", text)
        for flag in re.findall(r"--[a-z-]+", line)
    }
    known = {
        field.metadata.get("flag", "--" + field.name.replace("_", "-"))
        for field in dataclasses.fields(ImageOptions)
    }

    assert len(targets) >= 5
    assert [target for target in targets if f"\n{target}:" not in makefile] == []
    assert flags
    assert flags - known == set()
