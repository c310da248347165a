"""What a deployment serves before anybody changes it: its settings, with every package named for ever."""

from __future__ import annotations

from pathlib import Path

from serving.errors import PackageError
from serving.locate import locate, pin
from serving.models.names import base, named_apart
from serving.package import read_config
from serving.rollout.wanted import Pinned, PinnedShare, Wanted, WantedModel
from serving.settings import ServeSettings


def first_wanted(name: str, reference: str, digest: str, settings: ServeSettings) -> Wanted:
    """The package of *reference* as the first model, and those beside it.

    reference: for ever, as of `pin`. settings: of `with_pinned_shadow`. Raises `PackageError`, registry errors.
    """
    model = WantedModel(name=name, package=reference, digest=digest, shadow=_shadow(settings))
    others = [(_called(source), source) for source in _others(settings)]
    return Wanted(revision=0, models=named_apart(model, others))


def with_pinned_shadow(args: ServeSettings) -> ServeSettings:
    """The candidate named for ever, as replicas need it. Raises `PackageError`, registry errors."""
    if args.shadow is None:
        return args
    reference, digest = pin(args.shadow)
    if args.shadow_digest not in (None, digest):
        raise PackageError(f"{args.shadow} is package {digest[:12]}, not {args.shadow_digest}.")
    return args.model_copy(update={"shadow": reference, "shadow_digest": digest})


def _shadow(settings: ServeSettings) -> PinnedShare | None:
    """The candidate that is wanted from the beginning."""
    if settings.shadow is None or settings.shadow_digest is None:
        return None
    return PinnedShare(
        package=settings.shadow, digest=settings.shadow_digest, share=settings.shadow_share
    )


def _others(settings: ServeSettings) -> list[Pinned]:
    """The models beside the first, named for ever."""
    pins = [Pinned(package=package, digest=digest) for package, digest in map(pin, settings.also)]
    told = settings.also_digests or tuple(source.digest for source in pins)
    if len(told) != len(pins):
        raise PackageError(f"{len(pins)} models stand beside the first, but {len(told)} digests.")
    for source, digest in zip(pins, told, strict=True):
        if source.digest != digest:
            raise PackageError(
                f"{source.package} is package {source.digest[:12]}, not {digest[:12]}."
            )
    return pins


def _called(source: Pinned) -> str:
    """The model's name: in the registry, or else in the package itself."""
    if Path(source.package).is_dir() or "://" in source.package:
        return read_config(locate(source.package, digest=source.digest)[0]).name
    return base(source.package)
