"""Texts to answers on all cores of this process: known beforehand, so sorted by length.

An answer is what `Engine.predict` says of the text alone, and so what the endpoint says. Knows
neither files nor Ray.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice

from serving.calibration import calibrated_lanes
from serving.cost import CostModel
from serving.engine import Engine, Prediction, prediction
from serving.errors import EngineFailed
from serving.gpu import default_streams
from serving.lanes import Lanes, choose_lanes
from serving.offline.cutting import cut
from serving.package import Package
from serving.readiness import cost_here, enough_tokens, prove_golden_answers, warm_up
from serving.session import Encoding

Question = tuple[str, str | None]
Outcome = Prediction | EngineFailed
_BLOCK = (
    8192  # questions sorted together: their token ids fill 200 MB at most, with 512 tokens each
)
_CHUNK = 64  # tokenized at once
_MAX_BATCH = 32
_SWITCH_INTERVAL_S = 5e-4


def lanes_for(package: Package, cores: int) -> Lanes:
    """As a replica on so many cores would have them."""
    count = default_streams(package.config.runtime)
    return choose_lanes(cores, count=count) if count else calibrated_lanes(package, cores)


class Answerer:
    """A package ready to answer, warmed up. Raises `PackageError` as a replica does."""

    def __init__(self, package: Package, lanes: Lanes, *, allow_code: str | None = None) -> None:
        # A lane that comes back from the graph must not wait 5 ms, Python's default, for a turn.
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        self._package = package
        self._engine = Engine(
            package, threads=lanes.threads, streams=lanes.count, allow_code=allow_code
        )
        prove_golden_answers(self._engine)
        self._cost = CostModel(cost_here(self._engine, lanes))
        warm_up(self._engine, lanes, self._cost)
        self._max_batch = _MAX_BATCH if package.config.batch_invariant else 1
        self._max_tokens = enough_tokens(package, lanes)
        self._lanes = ThreadPoolExecutor(lanes.count, thread_name_prefix="lane")

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, Outcome]]:
        """Answers as they come, each with its question's place; every place comes once.

        What stands there twice is computed once.
        """
        places: dict[Question, list[int]] = {}
        for place, question in enumerate(questions):
            places.setdefault(question, []).append(place)
        different = iter(places)
        while block := list(islice(different, _BLOCK)):
            for question, outcome in self._block(block):
                for place in places[question]:
                    yield place, outcome

    def close(self) -> None:
        """Finish what was started."""
        self._lanes.shutdown(cancel_futures=True)

    def _block(self, block: Sequence[Question]) -> Iterator[tuple[Question, Outcome]]:
        chunks = [block[start : start + _CHUNK] for start in range(0, len(block), _CHUNK)]
        encoded = chain.from_iterable(self._lanes.map(self._encode, chunks))
        known: list[tuple[Question, Encoding]] = []
        for question, encoding in zip(block, encoded, strict=True):
            if isinstance(encoding, EngineFailed):
                yield question, encoding
            else:
                known.append((question, encoding))
        # Longest first, so that the lanes end together.
        known.sort(key=lambda pair: len(pair[1]), reverse=True)
        batches = cut(
            [len(encoding) for _, encoding in known],
            self._cost,
            max_batch=self._max_batch,
            max_tokens=self._max_tokens,
        )
        encodings = [encoding for _, encoding in known]
        ran = self._lanes.map(lambda batch: self._run(encodings[slice(*batch)]), batches)
        for (begin, end), outcomes in zip(batches, ran, strict=True):
            for (question, _), outcome in zip(known[begin:end], outcomes, strict=True):
                yield question, outcome

    def _encode(self, chunk: Sequence[Question]) -> list[Encoding | EngineFailed]:
        texts, pairs = [text for text, _ in chunk], [pair for _, pair in chunk]
        try:
            return list(self._engine.tokenizer.encode(texts, pairs if any(pairs) else None))
        except EngineFailed as error:  # a canonicaliser that fails on one of them
            if len(chunk) == 1:
                return [error]
            return [each for question in chunk for each in self._encode([question])]

    def _run(self, batch: Sequence[Encoding]) -> list[Outcome]:
        try:
            return [prediction(row, self._package) for row in self._engine.run(batch)]
        except EngineFailed as error:
            if len(batch) == 1:
                return [error]
            return [each for encoding in batch for each in self._run([encoding])]
