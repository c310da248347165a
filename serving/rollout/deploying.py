"""`miniml deploy`: another package on a server that runs, and a look at how it goes.

The server's replicas do it all; this asks for it, and watches. What it does not see happens, too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import httpx
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from serving.amounts import seconds, share
from serving.client import RemoteError, key_header
from serving.locate import pin
from serving.options import DeployOptions

_log = logging.getLogger(__name__)
_LOOK_S = 0.3
_ANSWER_S = 30.0
_UNREACHABLE_S = 60.0  # a server may be restarted, or its head be replaced, while it is watched
_SHORT = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployed:
    """All replicas answer with it, and nothing was found against it. watched_s: for so long.

    share: of the requests.
    """

    share: float
    revision: int
    package: str
    digest: str
    replicas: int
    watched_s: float

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    def __rich__(self) -> Text:
        """Two sentences."""
        watched = f", nothing against it in {self.watched_s:g} s" if self.watched_s else ""
        part = "" if self.share == 1 else f" {self.share:.0%} of the requests"
        return Text(
            f"{self.package} ({self.digest[:_SHORT]}) answers{part} in {self.replicas} replica(s)"
            f"{watched}. A server that is started anew serves what its command or file names."
        )


def deploy(options: DeployOptions) -> Deployed:
    """Ask for it, and return once all replicas serve it and have watched it.

    Raises `RemoteError` where it is refused or taken back, with the reason; a registry error.
    """
    change = _change(options)
    url = options.url.rstrip("/")
    with httpx.Client(
        base_url=url, headers=key_header(), timeout=_ANSWER_S, trust_env=False
    ) as http:
        wanted = _asked(http, "PUT", change)
        try:
            watched_s = float(change.get("watch", {}).get("for_s", 0.0))
            return _followed(http, wanted, watched_s, options.name)
        except KeyboardInterrupt:
            _log.warning("The rollout goes on without this command: %s/rollout tells how", url)
            raise


def _change(options: DeployOptions) -> dict[str, Any]:
    """The body of PUT /rollout. Raises `NoAmount`, `RemoteError`."""
    named = {} if options.name is None else {"name": options.name}
    if options.rollback or options.end_canary:
        if options.package or options.canary or (options.rollback and options.end_canary):
            raise RemoteError("--rollback and --end-canary stand alone; name no package with them.")
        return {**named, **({"rollback": True} if options.rollback else {"canary": None})}
    package, digest = pin(options.package or "latest")
    watch: dict[str, float] = {"for_s": seconds(options.watch, flag="--watch")}
    if options.p99_ms is not None:
        watch["p99_ms"] = options.p99_ms
    pinned: dict[str, Any] = {"package": package, "digest": digest}
    if options.canary is not None:
        pinned = {"canary": {**pinned, "share": share(options.canary, flag="--canary")}}
    return {**named, **pinned, "watch": watch}


def _followed(
    http: httpx.Client, mine: Mapping[str, Any], watched_s: float, name: str | None
) -> Deployed:
    seen_s = time.monotonic()
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        while True:
            try:
                state = _asked(http, "GET", None)
            except _NoAnswerError:
                if time.monotonic() - seen_s > _UNREACHABLE_S:
                    raise
            else:
                seen_s = time.monotonic()
                live.update(_table(state), refresh=True)
                refuse_other(state, mine, name)
                if is_done(state["replicas"], mine["revision"]):
                    break
            time.sleep(_LOOK_S)
    model = _model(mine, name)
    watched_s = watched_s if model is mine["models"][0] else 0.0
    model = model["canary"] or model
    return Deployed(
        share=model.get("share", 1.0),
        revision=mine["revision"],
        package=model["package"],
        digest=model["digest"],
        replicas=len(state["replicas"]),
        watched_s=watched_s,
    )


def is_done(replicas: Sequence[Mapping[str, Any]], revision: int) -> bool:
    """Whether each serves the revision, and has watched it for as long as it should."""
    return bool(replicas) and all(
        replica["revision"] >= revision and replica["state"] == "serving" for replica in replicas
    )


def refuse_other(
    state: Mapping[str, Any], mine: Mapping[str, Any], name: str | None = None
) -> None:
    """Raise `RemoteError` where *mine* is not what is wanted any more; once all have gone back, if so.

    name: of the model; default: the first.
    """
    wanted = state["wanted"]
    if wanted["revision"] <= mine["revision"]:
        return
    model = _model(wanted, name)
    if not wanted["undone"]:
        raise RemoteError(f"Somebody else deployed {model['package']} meanwhile.")
    if is_done(state["replicas"], wanted["revision"]):
        raise RemoteError(
            f"Taken back: {wanted['undone']}. {model['package']} ({model['digest'][:_SHORT]})"
            " answers as before."
        )


def _model(wanted: Mapping[str, Any], name: str | None) -> Mapping[str, Any]:
    """The one of this name, or the first."""
    models: Sequence[Mapping[str, Any]] = wanted["models"]
    return next(model for model in models if name in (None, model["name"]))


def _table(state: Mapping[str, Any]) -> Table:
    table = Table(box=None)
    for title in ("replica", "package", "share", "answered", "failed", "p99 ms", ""):
        table.add_column(title)
    for replica in state["replicas"]:
        left = f" {replica['watch_left_s']:.0f} s" if replica["watch_left_s"] else ""
        said = replica["state"] + left
        for model in replica["models"]:
            p99 = "" if model["p99_ms"] is None else f"{model['p99_ms']:.1f}"
            part = "" if model["canary_share"] is None else f"{model['canary_share']:.0%}"
            numbers = f"{model['answered']:,}", f"{model['failed']:,}", p99
            called = f"{model['name']} {model['digest'][:_SHORT]}"
            table.add_row(replica["replica"], called, part, *numbers, said)
    return table


class _NoAnswerError(RemoteError):
    """Perhaps later."""


def _asked(http: httpx.Client, method: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
    """The document. Raises `_NoAnswerError`, and `RemoteError` for what the server refuses."""
    try:
        response = http.request(method, "/rollout", json=body)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _NoAnswerError(
            f"No answer from {http.base_url} ({error}).", hint="Is `miniml serve` running there?"
        ) from error
    try:
        document = response.json()
        if response.is_success:
            return dict(document)
        detail = document["error"]
        message, hint = str(detail["message"]), str(detail["hint"])
    except (ValueError, KeyError, TypeError) as error:
        raise _NoAnswerError(
            f"{http.base_url} answered with status {response.status_code}, but not as miniml does."
        ) from error
    if response.is_server_error:
        raise _NoAnswerError(message, hint=hint)
    raise RemoteError(message, hint=hint)
