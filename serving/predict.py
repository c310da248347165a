"""`miniml predict`: texts from the command line, a file or standard input; with a server or without.

Both ways give the same answers in the same shape: the engine is the one that the server runs.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from serving.client import Client
from serving.errors import ServingError
from serving.options import PredictOptions

if TYPE_CHECKING:
    from serving.offline.run import OfflineResult

_TEXTS_PER_CALL = 64
_Ask = Callable[[Sequence[str], Sequence[str] | None], list[dict[str, Any]]]


class NoInput(ServingError):
    """There is nothing to classify, or it cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One text, or a pair of texts."""

    text: str
    text_pair: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictResult:
    """Questions with their answers, in order; an answer is what `POST /predict` gives."""

    questions: tuple[Question, ...]
    answers: tuple[dict[str, Any], ...]

    def document(self) -> dict[str, object]:
        """`predictions`: the text with its answer, in order."""
        rows = []
        for question, answer in zip(self.questions, self.answers, strict=True):
            pair = {} if question.text_pair is None else {"text_pair": question.text_pair}
            rows.append({"text": question.text, **pair, **answer})
        return {"predictions": rows}

    def __rich__(self) -> Table:
        """One row a text."""
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column("label", style="bold", no_wrap=True)
        table.add_column("score", justify="right")
        table.add_column("text", overflow="ellipsis", no_wrap=True)
        for question, answer in zip(self.questions, self.answers, strict=True):
            labels = answer.get("labels")
            names = ", ".join(label["label"] for label in labels) if labels else answer["label"]
            shown = " | ".join(filter(None, (question.text, question.text_pair)))
            table.add_row(names or "(none)", f"{answer['score']:.3f}", shown)
        return table


def predict(options: PredictOptions) -> PredictResult | OfflineResult:
    """Classify what *options* name, in order; with an output, files of any size into it.

    Raises `NoInput`, and what the server, the package or the offline prediction has to say.
    """
    return _predict_files(options) if options.output else predict_texts(options)


def _predict_files(options: PredictOptions) -> OfflineResult:
    if options.texts or options.url or not options.input:
        raise NoInput("--output goes with --input, and without texts or --url.")
    try:
        from serving.offline.run import predict_offline
    except ImportError as error:
        raise NoInput(
            f"--output needs a library that is not installed ({error.name});"
            " pip install 'miniml[offline]'."
        ) from error
    return predict_offline(options)


def predict_texts(options: PredictOptions) -> PredictResult:
    """As `predict`, without an output."""
    questions = tuple(_questions(options))
    if not questions:
        raise NoInput("There is no text to classify; give texts, --input FILE, or pipe some in.")
    ask = _asker(options)
    answers: list[dict[str, Any]] = []
    starts = range(0, len(questions), _TEXTS_PER_CALL)
    console = Console(stderr=True)
    quiet = len(starts) < 2  # noqa: PLR2004 - one call needs no progress bar
    for start in track(starts, "Classifying", console=console, disable=quiet, transient=True):
        chunk = questions[start : start + _TEXTS_PER_CALL]
        pairs = [question.text_pair or "" for question in chunk]
        answers.extend(ask([question.text for question in chunk], pairs if any(pairs) else None))
    return PredictResult(questions=questions, answers=tuple(answers))


def _questions(options: PredictOptions) -> Iterator[Question]:
    if options.texts:
        yield from (Question(text=text) for text in options.texts if text.strip())
        return
    if len(options.input) > 1:
        raise NoInput("Several files need --output FOLDER, which takes their answers.")
    source = Path(options.input[0]) if options.input else None
    try:
        # Bytes, split at newlines only: U+2028 and its kin are part of a text.
        raw = source.read_bytes() if source else sys.stdin.buffer.read()
        lines = raw.decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise NoInput(f"{source or 'Standard input'} cannot be read ({error}).") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _question(line.rstrip("\r"), source, number)


def _question(line: str, source: Path | None, number: int) -> Question:
    if source is None or source.suffix != ".jsonl":
        return Question(text=line)
    try:
        document = json.loads(line)
        text, pair = document["text"], document.get("text_pair")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoInput(
            f"{source}, line {number} is not a JSON object with a `text` ({error})."
        ) from error
    if not isinstance(text, str) or not isinstance(pair, str | None):
        raise NoInput(f"{source}, line {number}: `text` and `text_pair` must be strings.")
    return Question(text=text, text_pair=pair)


def _asker(options: PredictOptions) -> _Ask:
    """Whom to ask: the server at `url`, or the package's own engine in this process."""
    if options.url:
        return Client(options.url, model=options.model).predict_many
    if options.model:
        raise NoInput("--model goes with --url; without a server, name a --package.")
    from serving.core import Answered
    from serving.engine import Engine
    from serving.locate import locate
    from serving.package import open_package
    from serving.protocols.native import Native
    from serving.settings import ServeSettings
    from serving.work import Answer

    package = open_package(locate(options.package)[0])
    engine = Engine(package, allow_code=options.allow_code)
    native = Native(package, ServeSettings(package=options.package))

    def ask(texts: Sequence[str], pairs: Sequence[str] | None) -> list[dict[str, Any]]:
        # Through the wire format and back: what the server refuses is refused here, too.
        body: dict[str, Any] = {"texts": texts} | ({"text_pairs": pairs} if pairs else {})
        asked = native.read(json.dumps(body).encode(), {})
        rows = engine.logits(asked.texts, asked.pairs)
        answers = tuple(Answer(logits=row, queue_ms=0.0, infer_ms=0.0) for row in rows)
        written = asked.write(Answered(answers=answers, tokens=0, tokenize_ms=0.0))
        return list(json.loads(written.body))

    return ask
