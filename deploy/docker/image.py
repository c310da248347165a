"""`miniml image build`: a package and a target become an image, or the way to one.

The reference is resolved here, once; the image holds that very package, and its labels say which,
and what it was made from. Where there is no engine the context is laid out all the same.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from deploy.docker.context import ROOT, lay_out
from deploy.errors import BuildFailed, DeployError, NoEngine
from deploy.options import Builder, ImageOptions
from registry import store
from registry.version import Version
from serving.package import open_package

_log = logging.getLogger(__name__)
_ENGINES: tuple[Builder, ...] = ("docker", "podman", "buildah")
_OCI, _OURS = "org.opencontainers.image", "miniml"
_SHORT = 12  # digits of a digest in a tag
_GPU_RUNTIMES = ("cuda", "tensorrt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """What was built, or would be. command: for a shell, context included. package: its digest."""

    tag: str
    target: str
    package: str | None
    labels: Mapping[str, str]
    context: Path | None
    command: str
    built: bool
    pushed_digest: str | None

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "tag": self.tag,
            "target": self.target,
            "package": self.package,
            "labels": dict(self.labels),
            "context": str(self.context) if self.context else None,
            "command": self.command,
            "built": self.built,
            "pushed_digest": self.pushed_digest,
        }

    def __rich__(self) -> str:
        """For people."""
        if not self.built:
            return f"Context: {self.context}\n{self.command}"
        return f"Built {self.tag}" + (
            f" and pushed it as {self.pushed_digest}" if self.pushed_digest else ""
        )


def build_image(options: ImageOptions) -> Image:
    """Build what *options* say; with `dry_run` only lay the context out, which then stays.

    Raises a registry error or `PackageError` for the package, and `DeployError`: `NoEngine` tells
    where the context lies and what to run elsewhere.
    """
    found, folder = _package(options)
    labels = labels_for(options, found, folder)
    tag = options.tag or default_tag(options, found)
    engine = None if options.dry_run else find_engine(options.builder)
    digest: str | None = None
    with ExitStack() as stack:
        if options.output or not engine:
            context = options.output or Path(tempfile.mkdtemp(prefix="miniml-image-"))
        else:
            context = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="miniml-image-")))
        lay_out(context.absolute(), target=options.target, package=folder)
        command = command_for(engine or "docker", options, tag, labels, context.absolute())
        if engine:
            _run(command)
            if options.push:
                digest = push(engine, tag)
    if not engine and not options.dry_run:
        raise NoEngine(
            f"No container engine answers here; the context is in {context}. Where there is one:"
            f" {shlex.join(command)}"
        )
    return Image(
        tag=tag,
        target=options.target,
        package=found.digest if found else None,
        labels=labels,
        context=context.absolute() if options.output or not engine else None,
        command=shlex.join(command),
        built=bool(engine),
        pushed_digest=digest,
    )


def default_tag(options: ImageOptions, package: Version | None) -> str:
    """`miniml-serve:2f1c...`: another package has another tag; without one, miniml's version."""
    return f"miniml-{options.target}:" + (package.digest[:_SHORT] if package else our_version())


def labels_for(
    options: ImageOptions, package: Version | None, folder: Path | None
) -> dict[str, str]:
    """OCI's labels, and which package is in it with all that it was made from."""
    labels = {
        f"{_OCI}.title": f"miniml {options.target}",
        f"{_OCI}.version": our_version(),
        f"{_OCI}.licenses": "Apache-2.0",
    }
    if commit := _commit():
        labels[f"{_OCI}.revision"] = commit
    if package and folder:
        config = open_package(folder).config
        labels |= {
            f"{_OURS}.package.digest": package.digest,
            f"{_OURS}.package.name": config.name,
            f"{_OURS}.package.precision": config.precision,
            **{f"{_OURS}.lineage.{key}": value for key, value in sorted(package.lineage.items())},
        }
        if package.number:  # a folder's path says nothing elsewhere
            labels[f"{_OURS}.package.reference"] = package.reference
    return labels


def command_for(
    engine: Builder, options: ImageOptions, tag: str, labels: Mapping[str, str], context: Path
) -> list[str]:
    """What builds *context*; the same for all three engines but for buildah's verb."""
    given = list(options.build_args)
    if options.base:
        given.append(f"BASE={options.base}")
    for argument in given:
        if "=" not in argument:
            raise DeployError(f"--build-arg must be NAME=VALUE, not {argument}.")
    return [
        engine,
        "bud" if engine == "buildah" else "build",
        *("--target", options.target, "--tag", tag),
        *(word for key, value in labels.items() for word in ("--label", f"{key}={value}")),
        *(word for argument in given for word in ("--build-arg", argument)),
        str(context),
    ]


def find_engine(wanted: Builder) -> Builder | None:
    """The first engine that answers, or the one that was asked for; None where there is none."""
    for engine in _ENGINES if wanted == "auto" else (wanted,):
        if shutil.which(engine) is None:
            continue
        asked = subprocess.run([engine, "info"], capture_output=True, check=False)  # noqa: S603 - by name
        if asked.returncode == 0:
            return engine
    return None


def push(engine: Builder, tag: str) -> str:
    """Push *tag*, and return the digest that its registry gave it; on GitHub steps are told both."""
    _run([engine, "push", tag])
    told = [engine, "inspect", "--type", "image", "--format", "{{index .RepoDigests 0}}", tag]
    asked = subprocess.run(told, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    name, found, digest = asked.stdout.strip().partition("@")
    if asked.returncode or not found:
        raise BuildFailed(f"{tag} was pushed, but {engine} does not know its digest.")
    if place := os.environ.get("GITHUB_OUTPUT"):
        with Path(place).open("a", encoding="utf-8") as file:
            file.write(f"name={name}\ndigest={digest}\n")
    return digest


def our_version() -> str:
    """Of this miniml; "unknown" in a checkout that was never installed."""
    try:
        return version("miniml")
    except PackageNotFoundError:
        return "unknown"


def _package(options: ImageOptions) -> tuple[Version | None, Path | None]:
    """The package and its verified folder. Raises `DeployError` where target and package disagree."""
    if options.package is None:
        return None, None
    if not options.target.startswith("serve"):
        raise DeployError(f"The image {options.target} holds no package; leave --package out.")
    found = store.resolve(options.package, kind="package")
    folder = store.fetch(found)
    on_gpu = open_package(folder).config.runtime in _GPU_RUNTIMES
    if on_gpu != (options.target == "serve-gpu"):
        right = "serve-gpu" if on_gpu else "serve"
        raise DeployError(
            f"{options.package} was exported for {'a GPU' if on_gpu else 'CPUs'};"
            f" build it with --target {right}."
        )
    return found, folder


def _commit() -> str:
    """The checkout's commit, with `-dirty` where files were changed; "" outside of git."""
    if shutil.which("git") is None:
        return ""
    told = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    asked = subprocess.run(  # noqa: S603 - our own command
        told,
        capture_output=True,
        text=True,
        check=False,
    )
    return asked.stdout.strip() if asked.returncode == 0 else ""


def _run(command: list[str]) -> None:
    _log.info("%s", shlex.join(command))
    if subprocess.run(command, check=False).returncode:  # noqa: S603 - our own command
        raise BuildFailed(f"{command[0]} {command[1]} failed; its output says why.")
