"""How a replica follows what is wanted: it loads, answers with it, and judges it for a while.

Told by whoever wrote a change, and looking for itself every few seconds, so that no message need
arrive. The first replica that finds against a new package takes it back for all. Knows nothing of Ray.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from serving.errors import Conflict, ServingError
from serving.rollout.ledger import Ledger, before
from serving.rollout.probation import Past, against, limit_ms
from serving.rollout.shelf import Loaded, NotLoaded, Shelf
from serving.rollout.wanted import Wanted, WantedChange, WantedModel, Watch, changed, undone

if TYPE_CHECKING:  # memory that only those pay who serve several
    from serving.models.routing import Models

_log = logging.getLogger(__name__)
_LOOK_S = 0.25  # while it waits for its turn
_JUDGE_S = 1.0
# For a turn that does not end: its replica was killed while it loaded, perhaps by the package.
_PATIENCE_S = 300.0
_TELL_S = 5.0
_AGAIN_S = 30.0  # after what was before could not be loaded again


class Rollout:
    """Of one replica, named *replica*. start: what its shelf was made for, and its models, if several.

    tell: called when there is something new to look at, for other replicas to `look`.
    """

    def __init__(  # noqa: PLR0913 - every one but the first three has a default that is right
        self,
        ledger: Ledger,
        shelf: Shelf,
        start: Wanted,
        *,
        models: Models | None = None,
        replica: str = "",
        patience_s: float = _PATIENCE_S,
        tell: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._ledger = ledger
        self._shelf = shelf
        self._models = models
        self._wanted = start
        self._replica = replica
        self._patience_s = patience_s
        self._tell = tell
        self._state = "serving"
        self._refused = ""
        self._watched_until_s = 0.0  # of `time.monotonic`
        self._failed_revision = -1  # tried again, but not before
        self._not_before_s = 0.0
        self._asked = False
        self._following: asyncio.Task[None] | None = None
        self._judging: asyncio.Task[None] | None = None
        self._judged: Loaded | None = None

    def look(self) -> None:
        """See whether something else is wanted, beside the work; returns at once."""
        self._asked = True
        if self._following is None or self._following.done():
            self._following = asyncio.get_running_loop().create_task(self._follow(), name="follow")

    async def change(self, change: WantedChange) -> Wanted:
        """Write down what is wanted from now on. Raises `Conflict`, and what `changed` does."""
        latest = await self._latest()
        if change.revision not in (None, latest.revision):
            raise Conflict(
                f"Revision {change.revision} is not what is wanted any more, but"
                f" {latest.revision}.",
                hint="Look at GET /rollout and decide anew.",
            )
        wanted = changed(latest, change)
        if wanted is latest:
            return wanted
        if not await asyncio.to_thread(self._ledger.write, wanted):
            raise Conflict(
                "Somebody else changed it just now.", hint="Look at GET /rollout and decide anew."
            )
        _log.warning("Revision %d is wanted: %s", wanted.revision, _said(wanted))
        await self._make_known()
        return wanted

    @property
    def revision(self) -> int:
        """The one that this replica serves."""
        return self._wanted.revision

    async def state(self) -> dict[str, Any]:
        """Of this replica, beside what is wanted."""
        latest = await self._latest()
        watched_s = self._watched_until_s - time.monotonic()
        others = self._models.others.all if self._models else ()
        return {
            "wanted": latest,
            "replica": self._replica,
            "revision": self.revision,
            "state": "watching" if self._state == "serving" and watched_s > 0 else self._state,
            "refused": self._refused,
            "watch_left_s": round(max(0.0, watched_s), 1),
            "models": [
                *(_shown(self._wanted.model(), loaded) for loaded in self._shelf.loaded),
                *(other.shown() for other in others),
            ],
        }

    async def close(self) -> None:
        """Follow and judge no more."""
        for task in (self._following, self._judging):
            if task:
                task.cancel()
        await asyncio.gather(
            *(task for task in (self._following, self._judging) if task), return_exceptions=True
        )

    async def _latest(self) -> Wanted:
        found = await asyncio.to_thread(self._ledger.latest)
        return found or self._wanted

    async def _follow(self) -> None:
        try:
            while self._asked:  # once more where somebody asked meanwhile
                self._asked = False
                while (latest := await self._latest()).revision > self._wanted.revision:
                    is_early = time.monotonic() < self._not_before_s
                    if latest.revision == self._failed_revision and is_early:
                        break
                    await self._take(latest)
        except Exception:  # noqa: BLE001 - a task of its own: nobody else would hear
            _log.exception("What is wanted could not be followed")

    async def _take(self, wanted: Wanted) -> None:
        """Serve *wanted*, or say why not; nothing where another revision came first."""
        self._state = "waiting"
        try:
            turn = await asyncio.to_thread(self._ledger.claim, wanted.revision, self._replica)
            if not await self._is_next(wanted, turn):
                return
            self._state = "loading"
            before, past = self._shelf.loaded, self._shelf.current.witness.past()
            if self._models:
                await self._models.arrange(wanted.models)
            else:
                await self._shelf.arrange(wanted.model())
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the old one goes on
            await self._refuse(wanted, error)
        else:
            self._wanted = wanted
            self._refused = self._refused if wanted.undone else ""
            await asyncio.to_thread(self._ledger.end, wanted.revision, turn)
            self._watch(wanted.model(), before, past)
        finally:
            self._state = "serving"

    async def _is_next(self, wanted: Wanted, turn: int) -> bool:
        """Whether this replica's turn has come; false once another revision is wanted."""
        first = before(turn)
        until_s = time.monotonic() + self._patience_s
        while first is not None and not wanted.undone:  # going back waits for nobody
            if await asyncio.to_thread(self._ledger.is_over, wanted.revision, first):
                break
            if (await self._latest()).revision != wanted.revision:
                return False
            if time.monotonic() > until_s:
                raise ServingError(f"another replica did not take it within {self._patience_s:g} s")
            await asyncio.sleep(_LOOK_S)
        return True

    async def _refuse(self, wanted: Wanted, error: Exception) -> None:
        if not isinstance(error, ServingError):
            _log.error("Revision %d failed to load", wanted.revision, exc_info=error)
        self._refused = f"{error}"
        _log.warning("Revision %d is refused: %s", wanted.revision, error)
        # Going back is not gone back from: what answers goes on, and it is tried again.
        self._failed_revision, self._not_before_s = wanted.revision, time.monotonic() + _AGAIN_S
        if not wanted.undone:
            digest = error.digest if isinstance(error, NotLoaded) else self._new_in(wanted)
            await self._undo(digest, f"replica {self._replica} could not serve it: {error}")

    def _new_in(self, wanted: Wanted) -> str:
        """The digest of what this revision brings."""
        for model, old in zip(wanted.models[1:], self._wanted.models[1:], strict=True):
            if model.digest != old.digest:
                return model.digest
        model = wanted.model()
        if model.digest == self._wanted.model().digest and model.canary:
            return model.canary.digest
        return model.digest

    def _watch(self, model: WantedModel, before: Sequence[Loaded], past: Past) -> None:
        """Judge what is new, the canary first; who is judged already is judged on, unless it has gone."""
        current, canary = self._shelf.current, self._shelf.canary
        new = canary if canary not in before else None
        if new is None and current is not before[0]:
            new = current  # a canary that answers all now, too: they are more
        if self._judging and (new or self._judged not in self._shelf.loaded):
            self._judging.cancel()
            self._watched_until_s = 0.0
        if new and model.watch and model.watch.for_s:
            self._judged = new
            self._watched_until_s = time.monotonic() + model.watch.for_s
            judge = self._judge(model.watch, new, past)
            self._judging = asyncio.get_running_loop().create_task(judge, name="judge")

    async def _judge(self, watch: Watch, loaded: Loaded, past: Past) -> None:
        """Take the package back once the evidence says so.

        Within the time that it is watched; as long as it is the canary, beside which the other is seen.
        """
        limit, digest = limit_ms(past, watch.p99_ms), loaded.source.digest
        loaded.witness.limit(limit)
        while loaded is self._shelf.canary or (
            loaded is self._shelf.current and time.monotonic() < self._watched_until_s
        ):
            await asyncio.sleep(_JUDGE_S)
            if loaded is self._shelf.canary:
                past = self._shelf.current.witness.past()
            if why := against(past, loaded.witness.conduct(), limit):
                _log.warning("Package %s is found wanting: %s", digest[:12], why)
                self._watched_until_s = 0.0
                await self._undo(digest, why)
                self.look()
                return

    async def _undo(self, digest: str, why: str) -> None:
        """Take the package back for all, unless somebody has done so or wants another by now."""
        while True:
            latest = await self._latest()
            each = (undone(latest, model.name, digest, why) for model in latest.models)
            if (taken_back := next(filter(None, each), None)) is None:
                return
            if await asyncio.to_thread(self._ledger.write, taken_back):
                _log.warning("Revision %d takes it back", taken_back.revision)
                await self._make_known()
                return

    async def _make_known(self) -> None:
        """To all replicas, as far as they can be told; each looks for itself, too."""
        self.look()
        if self._tell:
            try:
                async with asyncio.timeout(_TELL_S):
                    await self._tell()
            except Exception:  # noqa: BLE001 - whatever it is, they will see for themselves
                _log.warning("Not all replicas could be told")


def _said(wanted: Wanted) -> str:
    told = ", ".join(f"{model.name} {model.package}" for model in wanted.models)
    return f"{told} ({wanted.undone})" if wanted.undone else told


def _shown(model: WantedModel, loaded: Loaded) -> dict[str, Any]:
    """One package that answers: who is answered by it, and how it does."""
    conduct, source = loaded.witness.conduct(), loaded.source
    canary = model.canary if model.canary and model.canary.digest == source.digest else None
    return {
        "name": model.name,
        "package": source.package,
        "digest": source.digest,
        "canary_share": canary.share if canary else None,
        "since": loaded.since_s,
        "answered": conduct.answered,
        "failed": conduct.failed,
        "p99_ms": loaded.witness.p99_ms,
    }
