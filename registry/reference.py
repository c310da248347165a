"""How a user names an artifact, read without looking at any disk or registry.

    ./folder, /abs/folder, ~/folder     a sealed folder; so is any other text with a slash or a dot
    s3://bucket/prefix                  a sealed folder in an object store
    reviews                             newest version of that name
    reviews/3                           that version
    reviews@champion, reviews@latest    what the alias points at; `latest` is the newest
    models:/reviews/3, models:/reviews@champion    the same, as MLflow writes them
    latest                              newest artifact of the wanted kind, over all names

The kind is not part of a reference, for the place where it is used says it. MLflow has one list of
names for all kinds, so there `reviews` is a package and `reviews.checkpoint`, `reviews.dataset` are
what it was made from; after `models:/` these names are understood too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from registry.artifact import Kind
from registry.errors import BadReference

LATEST = "latest"
FORMS = "a folder, s3://bucket/prefix, NAME, NAME/3, NAME@alias, models:/NAME/3 or latest"

_NAME = r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}"
_SELECTOR = r"(?:/(?P<number>[1-9][0-9]{0,8})|@(?P<alias>[A-Za-z0-9_-]{1,128}))?"
_NAMED = re.compile(rf"(?P<name>{_NAME}){_SELECTOR}")
_IN_MLFLOW = re.compile(
    rf"models:/(?P<name>{_NAME})(?:\.(?P<kind>checkpoint|dataset))?(?P<latest>/latest)?{_SELECTOR}"
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_ALIAS = re.compile(r"[A-Za-z0-9_-]{1,128}")
_LIKE_A_NUMBER = re.compile(r"[vV]?[0-9]+")  # MLflow keeps v3 for itself, and 3 invites mistakes


@dataclass(frozen=True, slots=True, kw_only=True)
class PathReference:
    """A sealed folder on this machine; `~` is not expanded yet."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectReference:
    """A sealed folder in an object store: `s3://bucket/prefix`, no slash at the end."""

    uri: str

    def __str__(self) -> str:
        return self.uri


@dataclass(frozen=True, slots=True, kw_only=True)
class NameReference:
    """A published version; the newest of its name when neither number nor alias is given.

    kind: only where MLflow's own name said it (`models:/reviews.checkpoint/3`).
    """

    name: str
    number: int | None = None
    alias: str | None = None
    kind: Kind | None = None

    def __str__(self) -> str:
        prefix = "" if self.kind is None else f"models:/{registered_name(self.kind, self.name)}"
        selector = f"/{self.number}" if self.number else f"@{self.alias}" if self.alias else ""
        return (prefix or self.name) + selector


@dataclass(frozen=True, slots=True, kw_only=True)
class LatestReference:
    """The newest artifact of the wanted kind, over all names."""

    def __str__(self) -> str:
        return LATEST


Reference = PathReference | ObjectReference | NameReference | LatestReference


def parse(text: str) -> Reference:
    """What *text* names; `parse(str(reference)) == reference`.

    Raises `BadReference` for what cannot be one; whether the thing exists is not asked here.
    """
    if text == LATEST:
        return LatestReference()
    if match := _NAMED.fullmatch(text):
        return _named(text, match)
    if text.startswith("models:"):
        if match := _IN_MLFLOW.fullmatch(text):
            return _named(text, match)
        raise BadReference(f"{text!r} is not models:/NAME/NUMBER or models:/NAME@ALIAS.")
    if text.startswith("s3://"):
        bucket, _, prefix = text.removeprefix("s3://").rstrip("/").partition("/")
        if not bucket or not prefix:
            raise BadReference(f"{text!r} lacks a bucket or a prefix: s3://bucket/prefix.")
        return ObjectReference(uri=f"s3://{bucket}/{prefix}")
    bare_alias = "@" in text and "/" not in text
    if not text.strip() or "\0" in text or bare_alias or _SCHEME.match(text):
        raise BadReference(f"{text!r} is not a reference; write {FORMS}.")
    return PathReference(path=text)


def _named(text: str, match: re.Match[str]) -> NameReference:
    found = match.groupdict()
    if found["name"] == LATEST:
        raise BadReference(f"{text!r}: 'latest' is no name; write NAME@latest, or latest alone.")
    kind: Kind | None = found.get("kind")  # type: ignore[assignment]  # the pattern allows no other
    if found.get("latest") and (found["number"] or found["alias"]):
        raise BadReference(f"{text!r} is not models:/NAME/NUMBER or models:/NAME@ALIAS.")
    return NameReference(
        name=found["name"],
        number=int(found["number"]) if found["number"] else None,
        alias=None if found["alias"] in (None, LATEST) else found["alias"],
        kind=kind,
    )


def check_name(name: str) -> str:
    """*name* when an artifact may be published under it; raises `BadReference`."""
    if not re.fullmatch(_NAME, name) or name == LATEST:
        raise BadReference(
            f"{name!r} cannot be a name: letters, digits, - and _ (a letter or digit first, "
            "at most 128), and not 'latest'."
        )
    return name


def check_alias(alias: str) -> str:
    """*alias* when it may be set; raises `BadReference`."""
    if not _ALIAS.fullmatch(alias) or alias == LATEST or _LIKE_A_NUMBER.fullmatch(alias):
        raise BadReference(
            f"{alias!r} cannot be an alias: letters, digits, - and _, but not 'latest', "
            "which is always the newest, and nothing like a version number."
        )
    return alias


def registered_name(kind: Kind, name: str) -> str:
    """The name in MLflow's one list: `reviews`, `reviews.checkpoint`, `reviews.dataset`."""
    return name if kind == "package" else f"{name}.{kind}"
