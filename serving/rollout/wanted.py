"""What a deployment should serve: a small document with a revision, and what a change makes of it.

Pure: values in, values out. `serving.rollout.ledger` keeps the document, `serving.rollout.following` follows it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from serving.errors import MalformedBody, WrongInput

Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Share = Annotated[float, Meta(ge=0, le=1)]
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Reference = Annotated[str, Meta(min_length=1, max_length=4096)]
_LONGEST_S = 86_400.0


class Pinned(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A package: what names it for ever, `reviews/3` or a folder, and its digest."""

    package: Reference
    digest: Digest


class PinnedShare(Pinned, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A package for a share of the requests, from 0 to 1."""

    share: Share


class Watch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a replica judges a new package, and what its p99 may be at most, where that is said."""

    for_s: Annotated[float, Meta(ge=0, le=_LONGEST_S)] = 120.0
    p99_ms: Annotated[float, Meta(gt=0)] | None = None


class WantedModel(Pinned, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model: the package that answers, and others beside it.

    previous: what it replaced, to go back to. watch: None where nobody judges it.
    """

    name: Name
    canary: PinnedShare | None = None
    shadow: PinnedShare | None = None
    previous: Pinned | None = None
    watch: Watch | None = None

    @property
    def source(self) -> Pinned:
        """The package that answers."""
        return Pinned(package=self.package, digest=self.digest)


class Wanted(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All models, the default one first. Each change makes the next revision.

    undone: why the revision before was taken back by this one; empty where none was.
    """

    revision: Annotated[int, Meta(ge=0)]
    models: Annotated[tuple[WantedModel, ...], Meta(min_length=1)]
    undone: str = ""

    def model(self, name: str | None = None) -> WantedModel:
        """The one of this name, or the default. Raises `WrongInput`, with the names there are."""
        for model in self.models:
            if name in (None, model.name):
                return model
        names = ", ".join(model.name for model in self.models)
        raise WrongInput(f"There is no model {name!r} here, but {names}.")


class WantedChange(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What somebody wants otherwise: the body of `PUT /rollout`.

    name: of the model; default: the first. package, digest: what shall answer, both or neither.
    rollback: what answered before. canary, shadow: null ends it. revision: the one that the caller saw;
    another is refused.
    """

    name: Name | None = None
    package: Reference | None = None
    digest: Digest | None = None
    watch: Watch | None = None
    canary: PinnedShare | UnsetType | None = UNSET
    shadow: PinnedShare | UnsetType | None = UNSET
    rollback: bool = False
    revision: Annotated[int, Meta(ge=0)] | None = None


_CHANGE = msgspec.json.Decoder(WantedChange)
_WANTED = msgspec.json.Decoder(Wanted)


def first(name: str, package: str, digest: str) -> Wanted:
    """What is wanted of one model before anybody changed it."""
    model = WantedModel(name=name, package=package, digest=digest)
    return Wanted(revision=0, models=(model,))


def read_change(body: bytes) -> WantedChange:
    """Raises `MalformedBody` for what is no JSON, `WrongInput` for what is no change."""
    try:
        return _CHANGE.decode(body)
    except msgspec.ValidationError as error:
        raise WrongInput(f"This is no change: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody(f"The body is not JSON: {error}.") from None


def read_wanted(body: bytes) -> Wanted:
    """What `write_wanted` wrote. Raises `msgspec.ValidationError` for anything else."""
    return _WANTED.decode(body)


def write_wanted(wanted: Wanted) -> bytes:
    """As JSON; `read_wanted` of it is equal."""
    return msgspec.json.encode(wanted)


def changed(wanted: Wanted, change: WantedChange) -> Wanted:
    """The next revision, or *wanted* itself where it is as *change* wants it already.

    Raises `WrongInput` for a change that says nothing or two things at once.
    """
    before = wanted.model(change.name)
    after = _rolled_back(before) if change.rollback else before
    if (change.package is None) != (change.digest is None):
        raise WrongInput("package and digest belong together; send both.")
    beside = (change.canary, change.shadow) != (UNSET, UNSET)
    if before is not wanted.models[0]:
        _refuse_for_others(wanted, before, change, beside=beside)
    if change.rollback and (change.package or beside):
        raise WrongInput("rollback goes back to what was; send nothing else with it.")
    if not (change.rollback or change.package or beside):
        raise WrongInput("Say what shall change: package and digest, canary, shadow, or rollback.")
    if change.package and change.digest:
        source = Pinned(package=change.package, digest=change.digest)
        after = _replaced(after, source, change.watch)
    if change.canary is not UNSET:
        after = _with_canary(after, change.canary, change.watch)
    if change.shadow is not UNSET:
        after = msgspec.structs.replace(after, shadow=change.shadow)
    if before is not wanted.models[0]:
        after = msgspec.structs.replace(after, watch=None)
    why = "asked for" if change.rollback else ""
    return wanted if after == before else _next(wanted, before, after, why)


def undone(wanted: Wanted, name: str, digest: str, why: str) -> Wanted | None:
    """The revision that takes this package back, from some requests or from all.

    None where it is not wanted any more, or where there was none before it.
    """
    before = wanted.model(name)
    if before.canary and before.canary.digest == digest:
        return _next(wanted, before, msgspec.structs.replace(before, canary=None), why)
    if before.digest != digest or before.previous is None:
        return None
    return _next(wanted, before, _rolled_back(before), why)


def _refuse_for_others(
    wanted: Wanted, model: WantedModel, change: WantedChange, *, beside: bool
) -> None:
    """Raise `WrongInput` for what only the first model can have."""
    if beside:
        raise WrongInput(f"{wanted.models[0].name} alone, the first model, has canary and shadow.")
    if model.name == model.package:
        raise WrongInput(f"{model.name} is a version, and stays what it is.")
    for other in wanted.models[1:]:
        if other is not model and other.digest == change.digest:
            raise WrongInput(f"{change.package} is the package that {other.name} is already.")


def _with_canary(
    model: WantedModel, canary: PinnedShare | None, watch: Watch | None
) -> WantedModel:
    if canary and canary.digest == model.digest:
        raise WrongInput(f"Package {canary.digest[:12]} answers all requests already.")
    watch = (watch or Watch()) if canary else model.watch
    return msgspec.structs.replace(model, canary=canary, watch=watch)


def _replaced(model: WantedModel, source: Pinned, watch: Watch | None) -> WantedModel:
    if source.digest == model.digest:
        return model
    return msgspec.structs.replace(
        model,
        package=source.package,
        digest=source.digest,
        previous=model.source,
        watch=watch or Watch(),
        canary=None,  # it was beside another
        shadow=_unless(model.shadow, source.digest),
    )


def _unless(shadow: PinnedShare | None, digest: str) -> PinnedShare | None:
    """Nobody need compare a package with itself."""
    return None if shadow and shadow.digest == digest else shadow


def _rolled_back(model: WantedModel) -> WantedModel:
    """Without a way further back: that would lead to what was just left."""
    if (previous := model.previous) is None:
        raise WrongInput(f"{model.name} has no package to go back to.")
    return msgspec.structs.replace(
        model,
        package=previous.package,
        digest=previous.digest,
        previous=None,
        watch=None,
        canary=None,
        shadow=_unless(model.shadow, previous.digest),
    )


def _next(wanted: Wanted, before: WantedModel, after: WantedModel, why: str) -> Wanted:
    models = tuple(after if model is before else model for model in wanted.models)
    return Wanted(revision=wanted.revision + 1, models=models, undone=why)
