"""What `miniml image` and `miniml job` can be told; light, so that help shows at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Target = Literal["serve", "serve-gpu", "jobs", "load"]
Builder = Literal["auto", "docker", "podman", "buildah"]
ArtifactKind = Literal["dataset", "checkpoint", "package"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """Build an image: lay out its context, with the package in it, and call the engine.

    [bold]miniml image build --package models:/reviews@champion[/]

    [bold]miniml image build --target jobs --tag registry.example/miniml-jobs:1 --push[/]
    """

    package: str | None = field(
        default=None,
        metadata={
            "help": "Package to put in: NAME, NAME@alias, a folder, ... None: mounted at /model."
        },
    )
    target: Target = field(default="serve", metadata={"help": "Which image."})
    tag: str | None = field(
        default=None, metadata={"help": "Its name; default: miniml-TARGET:PACKAGE-DIGEST."}
    )
    base: str | None = field(
        default=None, metadata={"help": "Base image instead of the pinned one: NAME@sha256:..."}
    )
    build_args: tuple[str, ...] = field(
        default=(),
        metadata={
            "flag": "--build-arg",
            "help": "NAME=VALUE for the Dockerfile, as PIP_INDEX_URL.",
        },
    )
    builder: Builder = field(default="auto", metadata={"help": "Which engine builds."})
    output: Path | None = field(
        default=None, metadata={"help": "Keep the build context in this new folder."}
    )
    push: bool = field(default=False, metadata={"help": "Push it to its registry, too."})
    dry_run: bool = field(
        default=False, metadata={"help": "Lay out the context, say the command, build nothing."}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchOptions:
    """Take over the newest artifact of the job before: on GitHub its run's, else the registry's.

    [bold]miniml job fetch dataset --output artifacts/dataset[/]
    """

    kind: ArtifactKind = field(metadata={"argument": "KIND", "help": "What is needed."})
    output: Path = field(metadata={"help": "New folder for it."})
    branch: str | None = field(
        default=None, metadata={"help": "Only of runs on this branch; default: this run's."}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryOptions:
    """Tell in Markdown what a job made: on GitHub in the job's summary, else on standard output.

    [bold]miniml job summary artifacts/checkpoint[/]
    """

    folder: Path = field(metadata={"argument": "FOLDER", "help": "A sealed folder."})
