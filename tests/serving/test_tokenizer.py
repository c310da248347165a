"""The served tokenizer against transformers' own, for the families that encoders use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from serving.engine import TextTokenizer

WORDS = ("soup", "Waiter", "unbelievably", "don't", "3.50€", "É", "好", "[SEP]", "</s>", "\u200b")
GAPS = (" ", " ", "  ", "\n", "\t", "", "\u3000")
MAX_LENGTH = 12
BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
NO_DEADLINE = settings(deadline=None)


def _corpus() -> Iterator[str]:
    return (f"{a} {b}" for a in WORDS for b in WORDS for _ in range(3))


def _wordpiece(*, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=120, special_tokens=list(BERT), show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    ids = {name: tokenizer.token_to_id(name) for name in BERT}
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"])
    )
    return tokenizer


def _byte_level(names: Sequence[str], pair: str, segments: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(names),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return _templated(tokenizer, pair, segments)


def _sentencepiece(names: Sequence[str], pair: str, segments: str) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.StripAccents()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    unknown = next(name for name in names if "unk" in name.lower())
    trainer = trainers.UnigramTrainer(
        vocab_size=150, unk_token=unknown, special_tokens=list(names), show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return _templated(tokenizer, pair, segments)


def _templated(tokenizer: Tokenizer, pair: str, segments: str) -> Tokenizer:
    """pair: how two texts are joined; segments: which of them the second one's tokens count to."""
    first, _, rest = pair.partition("$B")
    start, end = first.split()[0], rest.split()[0]
    used = {name for name in pair.split() if name not in ("$A", "$B")}
    marked = " ".join(
        f"{name}:{segment}" for name, segment in zip(pair.split(), segments, strict=True)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=marked,
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in sorted(used)],
    )
    return tokenizer


_ROBERTA_PAIR = (ROBERTA, "<s> $A </s> </s> $B </s>", "000000")
_BERT_PAIR = (BERT, "[CLS] $A [SEP] $B [SEP]", "00011")
# transformers' class -> what makes a small tokenizer of its kind.
FAMILIES: dict[str, tuple[str, Callable[[], Tokenizer]]] = {
    "bert, uncased": ("BertTokenizerFast", lambda: _wordpiece(lowercase=True)),
    "bert, cased": ("BertTokenizerFast", lambda: _wordpiece(lowercase=False)),
    "distilbert": ("DistilBertTokenizerFast", lambda: _wordpiece(lowercase=True)),
    "electra": ("ElectraTokenizerFast", lambda: _wordpiece(lowercase=True)),
    "roberta": ("RobertaTokenizerFast", lambda: _byte_level(*_ROBERTA_PAIR)),
    "xlm-roberta": ("XLMRobertaTokenizerFast", lambda: _sentencepiece(*_ROBERTA_PAIR)),
    "deberta-v2": ("DebertaV2TokenizerFast", lambda: _sentencepiece(*_BERT_PAIR)),
    "modernbert": ("PreTrainedTokenizerFast", lambda: _byte_level(*_BERT_PAIR)),
}


@pytest.fixture(scope="module", params=FAMILIES)
def both(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, TextTokenizer]:
    """transformers' tokenizer of a family, saved as a checkpoint has it, and ours of its file."""
    import transformers

    name, make = FAMILIES[request.param]
    names = ROBERTA if "roberta" in request.param else BERT
    roles = {
        "pad_token": next(n for n in names if "pad" in n.lower()),
        "unk_token": next(n for n in names if "unk" in n.lower()),
        "cls_token": names[0] if names is ROBERTA else "[CLS]",
        "sep_token": "</s>" if names is ROBERTA else "[SEP]",
    }
    theirs = getattr(transformers, name)(tokenizer_object=make(), **roles)
    folder = tmp_path_factory.mktemp("tokenizer")
    theirs.save_pretrained(str(folder))
    read = transformers.AutoTokenizer.from_pretrained(str(folder))  # type: ignore[no-untyped-call]
    return read, TextTokenizer(Path(folder) / "tokenizer.json", max_length=MAX_LENGTH)


texts = st.lists(st.tuples(st.sampled_from(GAPS), st.sampled_from(WORDS)), max_size=40).map(
    lambda parts: "".join(gap + word for gap, word in parts)
)


@NO_DEADLINE
@given(text=texts | st.text(max_size=60), pair=st.none() | texts.filter(str.strip))
def test_a_text_is_what_transformers_makes_of_it(
    both: tuple[Any, TextTokenizer], text: str, pair: str | None
) -> None:
    """Ids, special tokens, truncation and, where the model has them, segments are transformers' own.

    No empty second text: transformers takes it for none or not by how it was given; the API refuses it.
    """
    theirs, ours = both
    expected = theirs(text, pair, truncation=True, max_length=MAX_LENGTH)

    (found,) = ours.encode([text], [pair])

    assert list(found.ids) == expected["input_ids"]
    if "token_type_ids" in theirs.model_input_names:
        assert list(found.type_ids) == expected["token_type_ids"]
