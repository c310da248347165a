"""What the models of an application are called, and which of them a request names. Pure.

A model is called by its name in the registry, or by the one in a folder's package. Of several versions of
one name the first is called by it alone, the others as in `reviews/3`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from serving.errors import PackageError, UnknownModel
from serving.rollout.wanted import Pinned, WantedModel

_MODEL, _VERSION = b"x-model", b"x-model-version"
_PATHS = "/v2/models/"
_PATH = re.compile(r"([^/]+)(?:/versions/([^/]+))?(/[a-z]+)?")
_NUMBERED = re.compile(r"(.+)/([0-9]+)")
_LEAST_DIGITS = 6  # of a digest; fewer may mean several
_LONGEST = 100  # of what a caller said, in our sentence


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedModel:
    """What a request calls the model. version: a digest's first digits, or a number; empty: any.

    tail: what the path says behind model and version; None where it is not the path that names them.
    """

    name: str
    version: str = ""
    tail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """The model of this place; the default one's is 0. digest: of the version asked for; empty: any."""

    place: int
    digest: str = ""


def asked_for(headers: Iterable[tuple[bytes, bytes]], path: str) -> NamedModel | None:
    """The model that the path names, or else the header `x-model`; None where neither does."""
    if path.startswith(_PATHS) and (found := _PATH.fullmatch(path, len(_PATHS))):
        return NamedModel(name=found[1], version=found[2] or "", tail=found[3] or "")
    model = version = b""
    for name, value in headers:
        if name == _MODEL:
            model = value
        elif name == _VERSION:
            version = value
    if not model:
        return None
    return called(model.decode("latin-1"), version.decode("latin-1"))


def called(said: str, version: str = "") -> NamedModel:
    """What `reviews`, `reviews/3` or `reviews@DIGITS` names; the last two are versions themselves."""
    if numbered := _NUMBERED.fullmatch(said):
        return NamedModel(name=numbered[1], version=numbered[2])
    name, _, digits = said.partition("@")
    return NamedModel(name=name, version=digits or version)


def find(models: Sequence[WantedModel], asked: NamedModel) -> Meant:
    """The model that is meant. Raises `UnknownModel`, with those there are."""
    for place, model in enumerate(models):
        if not asked.version:
            if model.name == asked.name:
                return Meant(place=place)
        elif base(model.name) == asked.name:
            for source in (model.source, model.canary):
                if source and _is_version(source, asked, is_canary=source is model.canary):
                    return Meant(place=place, digest=source.digest)
    said = f"{asked.name}@{asked.version}" if asked.version else asked.name
    there = ", ".join(f"{base(model.name)}@{model.digest[:12]}" for model in models)
    raise UnknownModel(f"There is no model {said[:_LONGEST]!r} here, but {there}.")


def base(name: str) -> str:
    """Without the version: `reviews` for `reviews/3`."""
    called, _, number = name.rpartition("/")
    return called if called and number.isdecimal() else name


def named_apart(
    first: WantedModel, others: Sequence[tuple[str, Pinned]]
) -> tuple[WantedModel, ...]:
    """All models, each by a name of its own; others: with the names of their packages.

    Raises `PackageError` where two are the same, or of one name without a version to tell them by.
    """
    models = [first]
    for name, source in others:
        for model in models:
            if model.digest == source.digest:
                raise PackageError(
                    f"{source.package} is the same package as {model.name} already is."
                )
        taken = {model.name for model in models}
        own = source.package if name in taken else name
        if own != name and (base(own) != name or own in taken):
            raise PackageError(
                f"Two models would be called {name}; publish {source.package} under another name."
            )
        models.append(WantedModel(name=own, package=source.package, digest=source.digest))
    return tuple(models)


def _is_version(source: Pinned, asked: NamedModel, *, is_canary: bool) -> bool:
    return (
        (is_canary and asked.version == "canary")
        or source.package == f"{asked.name}/{asked.version}"
        or (len(asked.version) >= _LEAST_DIGITS and source.digest.startswith(asked.version))
    )
