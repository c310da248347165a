"""From texts to logits and answers: the tokenizer and one session.

Knows nothing of requests, batches in flight or time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding as RawEncoding
from tokenizers import Tokenizer

from serving.canonical import Canonicalizer, open_canonicalizer
from serving.package import Package, Task
from serving.session import Encoding, Logits, open_session

# No tokenizer in use averages more characters a token than this on text with spaces; when one does,
# the prefix is doubled, so the number costs time and never correctness.
_CHARS_PER_TOKEN = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One answer.

    label: the likeliest label, or None when it, or every label of a multi-label model, is below its
    threshold.
    score: its probability (of the likeliest label, also when label is None). labels: multi-label
    only, every label that reaches its threshold, likeliest first. scores: of all labels, in order.
    """

    label: str | None
    score: float
    labels: tuple[tuple[str, float], ...] | None
    scores: tuple[float, ...]


class TextTokenizer:
    """`tokenizer.json` with truncation to *max_length* tokens, special ones included; no padding.

    canonicalizer: texts are read in its form, each of a pair; without one, as they come.
    """

    def __init__(
        self, path: Path, *, max_length: int, canonicalizer: Canonicalizer | None = None
    ) -> None:
        self._tokenizer = Tokenizer.from_file(str(path))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        self._max_length = max_length
        self._canonicalizer = canonicalizer
        # Asked, not inferred from the type: several kinds split or not by an option.
        splitter = self._tokenizer.pre_tokenizer
        self._splits_at_spaces = bool(splitter) and len(splitter.pre_tokenize_str("a b")) > 1

    def canonical(self, texts: Sequence[str]) -> Sequence[str]:
        """The texts as they are read. Raises `EngineFailed` when the canonicaliser fails on one."""
        return self._canonicalizer.forms(texts) if self._canonicalizer else texts

    def encode(
        self, texts: Sequence[str], pairs: Sequence[str | None] | None = None
    ) -> list[Encoding]:
        """One encoding a text, in order; the same ids as tokenizing the whole text and cutting.

        Raises as `canonical`.
        """
        texts = self.canonical(texts)
        seconds = self._canonical_seconds(pairs) if pairs else [None] * len(texts)
        limit = self._max_length * _CHARS_PER_TOKEN
        given = list(zip(texts, seconds, strict=True))
        is_long = [len(text) + len(second or "") > limit for text, second in given]
        short = [pair for pair, skip in zip(given, is_long, strict=True) if not skip]
        whole = iter(self._raw([_tokenizer_input(*pair) for pair in short]))
        raw = [
            self._encode_long(*pair) if skip else next(whole)
            for pair, skip in zip(given, is_long, strict=True)
        ]
        return [Encoding(ids=tuple(each.ids), type_ids=tuple(each.type_ids)) for each in raw]

    def _canonical_seconds(self, pairs: Sequence[str | None]) -> Sequence[str | None]:
        forms = iter(self.canonical([pair for pair in pairs if pair is not None]))
        return [None if pair is None else next(forms) for pair in pairs]

    def _raw(self, batch: list[str | tuple[str, str]]) -> list[RawEncoding]:
        # Never `encode`: it holds the GIL, so a long text would stop the event loop. The fast one
        # keeps no offsets, but puts the second text of a pair into the first's segment when
        # `tokenizer.json` has no post-processor.
        pairs = any(isinstance(given, tuple) for given in batch)
        encode = self._tokenizer.encode_batch if pairs else self._tokenizer.encode_batch_fast
        return list(encode(batch))

    def _encode_long(self, text: str, pair: str | None) -> RawEncoding:
        """Tokenize a growing prefix until what follows cannot matter; in doubt, the whole text."""
        if pair is not None:  # truncation takes from the longer text first: both lengths matter
            return self._raw([(text, pair)])[0]
        limit = self._max_length * _CHARS_PER_TOKEN
        while self._splits_at_spaces and limit < len(text):
            end = _word_start(text, limit)
            raw = self._cut(text[:end]) if end else None
            if raw is not None:
                return raw
            limit *= 2
        return self._raw([text])[0]

    def _cut(self, prefix: str) -> RawEncoding | None:
        """The encoding of *prefix* when all kept tokens lie in its first half, else None.

        Words are tokenized apart, so a cut between words changes only the run of spaces it ends
        with (byte-level vocabularies give its last space to the next word): no kept token may
        touch that run.
        """
        (raw,) = self._tokenizer.encode_batch([prefix])  # with offsets, unlike `_raw`
        full = len(raw.ids) == self._max_length and raw.overflowing
        kept_end = max((end for _, end in raw.offsets), default=0)
        return raw if full and 2 * kept_end <= len(prefix.rstrip()) else None


def _tokenizer_input(text: str, pair: str | None) -> str | tuple[str, str]:
    return text if pair is None else (text, pair)


def _word_start(text: str, limit: int) -> int:
    """The last place within *limit* characters where a word follows a space; 0 when there is none.

    Only the plain space: every tokenizer that splits at spaces splits there, few at all of them.
    """
    end = text.rfind(" ", 0, limit) + 1
    while end and text[end].isspace():  # inside a run of spaces
        end = text.rfind(" ", 0, len(text[:end].rstrip())) + 1
    return end


class Engine:
    """A package, ready to answer: the yardstick that every other path must equal."""

    def __init__(
        self,
        package: Package,
        *,
        threads: int = 1,
        streams: int = 1,
        allow_code: str | None = None,
    ) -> None:
        """Streams: how many threads may call `run` at once, each batch on *threads* cores.

        allow_code: the one path beyond miniml's own that may be the package's canonicaliser.
        """
        config = package.config
        self.package = package
        self._allow_code = allow_code
        self._open = partial(
            open_session,
            package.model_path,
            runtime=config.runtime,
            options=config.runtime_options,
            max_length=config.max_length,
            threads=threads,
            streams=streams,
        )
        self.session = self._open()

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """Of the package, canonicaliser and all. Raises `PackageError` where that may not be run.

        Made when texts come: who only runs encodings, to time them, needs nobody's code.
        """
        config = self.package.config
        return TextTokenizer(
            self.package.tokenizer_path,
            max_length=config.max_length,
            canonicalizer=open_canonicalizer(config.canonicalizer, allow_code=self._allow_code),
        )

    def reopen(self) -> None:
        """Load the graph afresh, as after a crash; runs that have begun end on the old session."""
        self.session = self._open()

    def close(self) -> None:
        """Let go of graph and tokenizer, whoever still holds this; nothing can be run any more."""
        del self.session
        self.__dict__.pop("tokenizer", None)

    def run(self, encodings: Sequence[Encoding]) -> Logits:
        """Logits (B, labels) of one batch, exactly as given."""
        return self.session.run(encodings, pad_token_id=self.package.config.pad_token_id)

    def logits(self, texts: Sequence[str], pairs: Sequence[str | None] | None = None) -> Logits:
        """Logits (B, labels), each text alone: no answer depends on its neighbours."""
        rows = [self.run([encoding]) for encoding in self.tokenizer.encode(texts, pairs)]
        return np.concatenate(rows) if rows else np.zeros((0, 0), dtype=np.float32)

    def predict(
        self, texts: Sequence[str], pairs: Sequence[str | None] | None = None
    ) -> Iterator[Prediction]:
        """One answer a text, in order."""
        for row in self.logits(texts, pairs):
            yield prediction(row, self.package)


def probabilities(logits: Logits, task: Task, temperature: float = 1.0) -> Logits:
    """Softmax over labels, or a sigmoid each for multi-label; same shape, in float32.

    Computed in float64 by row, so that a row's result does not depend on the batch it stands in.
    """
    wide: npt.NDArray[np.float64] = logits.astype(np.float64) / temperature
    if task == "multi_label":
        with np.errstate(over="ignore"):
            return (1.0 / (1.0 + np.exp(-wide))).astype(np.float32)
    shifted = np.exp(wide - wide.max(axis=-1, keepdims=True))
    shares: Logits = (shifted / shifted.sum(axis=-1, keepdims=True)).astype(np.float32)
    return shares


def prediction(
    row: Logits,
    package: Package,
    *,
    threshold: float | None = None,
    abstain_below: float = 0.0,
) -> Prediction:
    """The answer that one row of logits (labels,) means.

    threshold: for every label of a multi-label model, instead of the package's own. abstain_below:
    single-label; a likeliest label less likely than that is not given.
    `probabilities` in plain Python: for the few labels of one text numpy takes longer to begin.
    """
    config = package.config
    wide = [logit / config.temperature for logit in row.tolist()]
    highest = max(wide)
    top = wide.index(highest)
    if config.task == "single_label":
        shifted = [math.exp(logit - highest) for logit in wide]
        total = math.fsum(shifted)
        scores = tuple([share / total for share in shifted])
        label = config.labels[top] if scores[top] >= abstain_below else None
        return Prediction(label=label, score=scores[top], labels=None, scores=scores)
    scores = tuple(_sigmoid(logit) for logit in wide)
    thresholds = config.thresholds if threshold is None else None
    thresholds = thresholds or (0.5 if threshold is None else threshold,) * len(scores)
    reached = [i for i in range(len(scores)) if scores[i] >= thresholds[i]]
    reached.sort(key=lambda i: -scores[i])
    given = tuple((config.labels[i], scores[i]) for i in reached)
    if given:
        return Prediction(label=given[0][0], score=given[0][1], labels=given, scores=scores)
    return Prediction(label=None, score=scores[top], labels=given, scores=scores)


def _sigmoid(logit: float) -> float:
    away = math.exp(-abs(logit))  # of the positive side: the other would overflow
    return 1 / (1 + away) if logit >= 0 else away / (1 + away)
