"""A candidate beside the champion: an observer that has it answer a share of what callers asked.

On the event loop a request only leaves its texts and what it was answered. A thread hands them, a few at
a time and only while nothing waits for the champion, to the candidate in a process of its own
(`serving.shadow.worker`), and counts how far both agree. What comes faster is dropped. A candidate that
fails, hangs or ends costs comparisons, never an answer. No text is kept once it was compared.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from serving.agreement import Counts, Opinion, together
from serving.core import Answered, Core
from serving.errors import PackageError, ServingError
from serving.package import PackageConfig, read_config
from serving.request import Request
from serving.rollout.sharing import is_shared
from serving.rollout.wanted import PinnedShare
from serving.shadow.process import CandidateProcess, LostError
from serving.shadow.report import Reason, ShadowState, Standing
from serving.shadow.worker import BATCH, Given, Start, opinion
from serving.work import Answer

if TYPE_CHECKING:
    from serving.reading import Reading

_log = logging.getLogger(__name__)
# What may wait: characters of texts, each of which counts for some more, as an object has a head.
_MOST_CHARS, _HEAD_CHARS = 4 * 2**20, 256
# A text equal to one of the last so many is not compared again: who asks one text all day would else have
# it count for most of the agreement, and make its interval narrower than what is known.
_REMEMBERED = 4096
_LOOK_S = 0.005  # between two looks at whether the champion still has work waiting
# A batch of eight long texts takes a large model seconds, and ten times that beside busy lanes.
_PATIENCE_S = 120.0
_STARTS = 3  # in a row without an answer; then it is left alone
_PAUSE_S = 1.0
_CLOSE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    """One text, as it was read, and what the champion answered."""

    text: str
    pair: str | None
    reading: Reading | None
    answer: Answer
    chars: int

    @property
    def kind(self) -> tuple[bool, Reading | None]:
        """Texts of one kind may be asked at once."""
        return self.pair is None, self.reading


class Shadow:
    """Compares *candidate* with what *core* answers; its share may be changed.

    locate: the candidate's folder; may block, and raise `PackageError`. allow_code: as in
    `ServeSettings`. patience_s: for the answers of a batch; then the candidate hangs.
    """

    def __init__(
        self,
        core: Core,
        candidate: PinnedShare,
        locate: Callable[[], Path],
        *,
        allow_code: str | None = None,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._package = core.package
        self._queued_ms: Callable[[], float] = lambda: core.queued_ms
        self.candidate = candidate
        self._locate = locate
        self._threads = core.lanes.threads
        self._allow_code = allow_code
        self._patience_s = patience_s
        self._waiting: deque[_Text] = deque()
        # Each is written by one thread only: these by the event loop's, those below by ours.
        self._offered = self._dropped = self._given = self._given_chars = 0
        self._taken = self._taken_chars = 0
        self._lock = threading.Lock()  # of what is counted, which the event loop reads
        self._counts = Counts()
        self._left_out: dict[Reason, int] = {"repeated": 0, "refused": 0, "failed": 0}
        self._standing: Standing = "starting"
        self._trouble = ""
        self._last: OrderedDict[int, None] = OrderedDict()
        self._some, self._closing = threading.Event(), threading.Event()
        self._process: CandidateProcess | None = None
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._thread.start()

    def answered(self, request: Request, answered: Answered, took_s: float) -> None:  # noqa: ARG002 - as observers are told
        """Leave its texts, if it is in the share and there is room."""
        # Not the key of a canary's callers: all that are compared might else be the canary's.
        key = b"shadow %d %b" % (request.line, request.id.encode())
        if not is_shared(key, self.candidate.digest, self.candidate.share):
            return
        trail = request.trail
        texts, pairs = trail.texts, trail.pairs or (None,) * len(trail.texts)
        self._offered += len(texts)
        sizes = [
            _HEAD_CHARS + len(text) + len(pair or "")
            for text, pair in zip(texts, pairs, strict=True)
        ]
        if self._given_chars - self._taken_chars + sum(sizes) > _MOST_CHARS:
            self._dropped += len(texts)
            return
        self._given += len(texts)
        self._given_chars += sum(sizes)
        self._waiting.extend(
            _Text(text=text, pair=pair, reading=trail.reading, answer=answer, chars=chars)
            for text, pair, answer, chars in zip(texts, pairs, answered.answers, sizes, strict=True)
        )
        if not self._some.is_set():
            self._some.set()

    def refused(self, request: Request, error: ServingError, took_s: float) -> None:
        """There is no answer to compare."""

    def left(self, request: Request, took_s: float) -> None:
        """There is none either."""

    def state(self) -> ShadowState:
        """As it is now; on the event loop."""
        with self._lock:
            return ShadowState(
                champion=self._package.digest,
                candidate=self.candidate,
                standing=self._standing,
                trouble=self._trouble,
                offered=self._offered,
                waiting=self._given - self._taken,
                dropped=self._dropped,
                left_out=dict(self._left_out),
                counts=together([self._counts]),  # a copy
            )

    def close(self) -> None:
        """End the candidate, whatever it does."""
        self._closing.set()
        self._some.set()
        if process := self._process:
            process.kill()
        self._thread.join(_CLOSE_S)

    # All below is on our own thread.

    def _run(self) -> None:
        starts = 0
        try:
            start = self._fit()
            while starts < _STARTS and not self._closing.wait(_PAUSE_S if starts else 0.0):
                starts += 1
                try:
                    with closing(CandidateProcess(start, patience_s=self._patience_s)) as process:
                        self._begin(process)
                        while batch := self._next():
                            self._compare(process, batch)
                            starts = 0
                except LostError as error:
                    self._stand("restarting" if starts < _STARTS else "failed", str(error))
        except PackageError as error:
            self._stand("failed", str(error))
        except Exception:  # noqa: BLE001 - whoever offers texts must not wait for ever
            _log.exception("A shadow was lost; this is a bug")
            self._stand("failed", "The shadow was lost; the replica's log says why.")
        while batch := self._next():  # nobody will compare them
            self._done(batch, "failed")

    def _fit(self) -> Start:
        """How to start it. Raises `PackageError`, also where answers could not be compared."""
        folder = self._locate()
        ours, theirs = self._package.config, read_config(folder)
        if (ours.task, ours.text_pair) != (theirs.task, theirs.text_pair):
            raise PackageError(f"The candidate is {_kind(theirs)}, the champion {_kind(ours)}.")
        return Start(
            folder=str(folder),
            digest=self.candidate.digest,
            threads=self._threads,
            allow_code=self._allow_code,
        )

    def _begin(self, process: CandidateProcess) -> None:
        """Raises `PackageError`, `LostError`."""
        self._process = process  # for who closes
        if error := process.begin().error:
            raise PackageError(f"The candidate cannot be served: {error}")
        self._stand("comparing", "")

    def _next(self) -> list[_Text]:
        """Texts of one kind, once there are any; none when it is over."""
        while not self._closing.is_set():
            if batch := list(self._new()):
                return batch
            self._some.wait()
            self._some.clear()
        return []

    def _new(self) -> Iterator[_Text]:
        """As many as make a batch; those that were compared just before are counted and passed."""
        kind = None
        taken = 0
        while self._waiting and taken < BATCH:
            first = self._waiting[0]
            if kind not in (None, first.kind):
                return
            self._waiting.popleft()
            if self._is_known(first):
                self._done([first], "repeated")
                continue
            yield first
            taken += 1
            kind = first.kind
            if first.reading and first.reading.window:  # that may be fifty texts by itself
                return

    def _is_known(self, text: _Text) -> bool:
        key = hash((text.text, text.pair, text.reading))  # Python salts it for each process
        known = key in self._last
        self._last[key] = None
        self._last.move_to_end(key)
        if len(self._last) > _REMEMBERED:
            self._last.popitem(last=False)
        return known

    def _compare(self, process: CandidateProcess, batch: Sequence[_Text]) -> None:
        """Ask for them, and count; where one spoils the batch, each alone. Raises `LostError`."""
        while self._queued_ms() > 0 and not self._closing.wait(_LOOK_S):
            pass
        try:
            told = process.ask(_given(batch))
        except LostError:
            self._done(batch, "failed")
            raise
        if not told.error:
            ours = [opinion(text.answer, self._package) for text in batch]
            self._done(batch, opinions=tuple(zip(ours, told.opinions, strict=True)))
        elif len(batch) == 1:
            self._done(batch, "refused" if told.refused else "failed")
        else:
            for at, text in enumerate(batch):
                try:
                    self._compare(process, [text])
                except LostError:
                    self._done(batch[at + 1 :], "failed")
                    raise

    def _done(
        self,
        batch: Sequence[_Text],
        reason: Reason | None = None,
        opinions: Sequence[tuple[Opinion, Opinion]] = (),
    ) -> None:
        with self._lock:  # at once: whoever looks finds each text in one place
            for pair in opinions:
                self._counts.add(*pair)
            self._taken += len(batch)
            self._taken_chars += sum(text.chars for text in batch)
            if reason:
                self._left_out[reason] += len(batch)

    def _stand(self, standing: Standing, trouble: str) -> None:
        if trouble and not self._closing.is_set():
            _log.warning("Shadow %s %s: %s", self.candidate.package, standing, trouble)
        with self._lock:
            self._standing, self._trouble = standing, trouble


def _kind(config: PackageConfig) -> str:
    return config.task + (" of pairs" if config.text_pair else "")


def _given(batch: Sequence[_Text]) -> Given:
    reading = batch[0].reading
    window = reading.window if reading else None
    pairs = [text.pair for text in batch if text.pair is not None]
    given = Given(texts=[text.text for text in batch], pairs=pairs or None)
    if window:
        given = msgspec.structs.replace(given, stride=window.stride, aggregate=window.aggregate)
    return msgspec.structs.replace(given, truncate=reading.truncate if reading else True)
