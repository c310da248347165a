"""Laws of the engine: exact token ids whatever the length, and answers that need no company."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from serving.engine import Engine, TextTokenizer, prediction, probabilities
from serving.errors import EngineFailed, PackageError
from serving.package import Package, open_package
from serving.session import Encoding, open_session, padded

MAX_LENGTH = 6
WORDS = ("soup", "waiter", "unbelievably", "a", "cold", "é", "好")
GAPS = (" ", " ", "  ", "\n", "\t ", " " * 33, " " * 64, "\u3000")
NO_DEADLINE = settings(deadline=None)  # laws of values, not of time: a machine may stall


def _trained(kind: str) -> Tokenizer:
    """A small tokenizer of one of the families that encoders use."""
    corpus = [a + gap + b for a in WORDS for b in WORDS for gap in GAPS] * 5
    options = {"vocab_size": 400, "show_progress": False}
    if kind == "byte-level":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options
        )
    else:
        tokenizer = Tokenizer(models.Unigram())
        if kind == "sentencepiece":
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token="?", special_tokens=["?"], **options)
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


@pytest.fixture(scope="module", params=["wordpiece", "byte-level", "sentencepiece", "unsplit"])
def tokenizer_path(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, wordpiece: Tokenizer
) -> Iterator[Path]:
    """`tokenizer.json` of each family; the last one tokenizes across spaces."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    (wordpiece if request.param == "wordpiece" else _trained(request.param)).save(str(path))
    yield path
    path.unlink()


texts = st.lists(st.tuples(st.sampled_from(GAPS), st.sampled_from(WORDS)), max_size=150).map(
    lambda parts: "".join(gap + word for gap, word in parts)
)


@NO_DEADLINE
@given(text=texts, pair=st.none() | texts)
def test_cutting_early_does_not_change_ids(
    tokenizer_path: Path, text: str, pair: str | None
) -> None:
    """A long text gets the very ids that tokenizing all of it and truncating gives."""
    whole = Tokenizer.from_file(str(tokenizer_path))
    whole.no_padding()
    whole.enable_truncation(MAX_LENGTH)
    expected = whole.encode(text, pair)
    (encoding,) = TextTokenizer(tokenizer_path, max_length=MAX_LENGTH).encode([text], [pair])

    assert list(encoding.ids) == expected.ids
    assert list(encoding.type_ids) == expected.type_ids


def test_a_huge_text_costs_what_its_first_words_cost(package: Package) -> None:
    """Tokenizing 1 MB takes less than a tenth of the CPU time that tokenizing all of it takes."""
    text = "the soup was very good " * 43_500
    whole = Tokenizer.from_file(str(package.tokenizer_path))
    tokenizer = TextTokenizer(package.tokenizer_path, max_length=128)
    start_s = time.process_time()
    whole.encode_batch_fast([text])
    middle_s = time.process_time()
    tokenizer.encode([text])
    end_s = time.process_time()

    assert end_s - middle_s < (middle_s - start_s) / 10


def test_batching_does_not_change_answers(package: Package) -> None:
    """A text gets the same bits alone and padded beside others, and rows keep their order."""
    asked = ["good", "the soup was very bad and cold", "not warm", "staff " * 100]
    engine = Engine(package)

    together = engine.run(engine.tokenizer.encode(asked))

    np.testing.assert_array_equal(together, engine.logits(asked))


def test_padding_marks_what_is_real() -> None:
    """Rows are right-padded to the longest; the mask is 1 on real tokens only."""
    feed = padded(
        [Encoding(ids=(5,), type_ids=(0,)), Encoding(ids=(6, 7), type_ids=(0, 1))], pad_token_id=9
    )

    assert feed["input_ids"].tolist() == [[5, 9], [6, 7]]
    assert feed["attention_mask"].tolist() == [[1, 0], [1, 1]]
    assert feed["token_type_ids"].tolist() == [[0, 0], [0, 1]]
    assert {array.dtype for array in feed.values()} == {np.dtype(np.int64)}


@NO_DEADLINE
@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=2, max_size=9))
def test_probabilities_are_probabilities(row: list[float]) -> None:
    """Softmax sums to one, sigmoid stays in [0, 1], both keep the order, at any magnitude."""
    logits = np.array([row], dtype=np.float32)
    softmax, sigmoid = probabilities(logits, "single_label"), probabilities(logits, "multi_label")

    assert math.isclose(float(softmax.sum()), 1.0, abs_tol=1e-5)
    assert ((sigmoid >= 0) & (sigmoid <= 1)).all()
    ascending = np.argsort(logits[0], kind="stable")
    for scores in (softmax, sigmoid):
        assert all(a <= b for a, b in pairwise(scores[0][ascending].tolist()))


def test_labels_are_those_that_reach_their_threshold(package: Package) -> None:
    """A multi-label answer gives what reaches its own threshold, likeliest first, or no label."""
    config = replace(package.config, task="multi_label", thresholds=(0.5, 0.9, 0.1))
    multi = replace(package, config=config)

    some = prediction(np.array([1.0, 2.0, -1.0], dtype=np.float32), multi)
    none = prediction(np.array([-3.0, -2.0, -9.0], dtype=np.float32), multi)

    assert some.labels is not None
    assert [name for name, _ in some.labels] == ["negative", "positive"]
    assert (some.label, some.score) == some.labels[0]
    assert (none.label, none.labels) == (None, ())
    assert none.score == max(none.scores)


def test_a_broken_graph_is_a_package_error(package: Package, tmp_path: Path) -> None:
    """A model file that ONNX Runtime cannot load is refused by name."""
    broken = tmp_path / "model.onnx"
    broken.write_bytes(package.model_path.read_bytes()[:-40])

    with pytest.raises(PackageError, match=r"model\.onnx"):
        open_session(broken, threads=1)


def test_a_failing_input_is_an_engine_failure(package: Package) -> None:
    """An id outside the vocabulary fails as our error, not as the runtime's."""
    with pytest.raises(EngineFailed):
        Engine(package).run([Encoding(ids=(10_000,), type_ids=(0,))])


def test_a_package_survives_a_move(package: Package, tmp_path: Path) -> None:
    """The engine answers the same from a copy of the folder elsewhere."""
    shutil.copytree(package.folder, tmp_path / "elsewhere")
    moved = open_package(tmp_path / "elsewhere")

    assert moved.digest == package.digest
    np.testing.assert_array_equal(Engine(moved).logits(["good"]), Engine(package).logits(["good"]))
