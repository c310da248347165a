"""A checkpoint of a few thousand random weights as transformers saves it, and the peers' models."""

from __future__ import annotations

import random
import socket
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from benchmarks.peers.assets import Assets, bound
from benchmarks.plain import export_plain, quantize_plain

WORDS = ("soup", "staff", "price", "cold", "warm", "good", "bad", "very", "not", "never", "was")
LABELS = ("negative", "neutral", "positive")
MAX_LENGTH = 24
_SURE = 0.5  # far more than int8 moves a probability


@pytest.fixture
def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Assets:
    """The tiny checkpoint and what optimum makes of it; there is no package."""
    work = tmp_path_factory.mktemp("peers")
    checkpoint = work / "checkpoint"
    _write_checkpoint(checkpoint)
    exported = export_plain(checkpoint, work / "fp32")
    return Assets(
        package=work,
        checkpoint=checkpoint,
        bounded=bound(checkpoint, work / "bounded", MAX_LENGTH),
        exported=exported,
        quantized=quantize_plain(exported, work / "int8"),
        max_length=MAX_LENGTH,
    )


@pytest.fixture(scope="session")
def sure(assets: Assets) -> list[tuple[str, str]]:
    """Eight texts of each label that fp32 is sure of; some are longer than the model reads."""
    import torch
    from transformers import pipeline

    torch.set_num_threads(1)
    drawn = random.Random(0)
    texts = [" ".join(drawn.choices(WORDS, k=drawn.randint(1, 60))) for _ in range(256)]
    make_pipeline: Any = pipeline  # its 40 overloads say less than its page
    classify = make_pipeline(
        "text-classification",
        model=str(assets.checkpoint),
        device="cpu",
        top_k=None,
        truncation=True,
        max_length=MAX_LENGTH,
    )
    by_label: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for text, (first, second, *_) in zip(texts, classify(texts), strict=True):
        if (margin := first["score"] - second["score"]) > _SURE:
            by_label[first["label"]].append((margin, text))
    return [
        (text, label)
        for label, rows in by_label.items()
        for _, text in sorted(rows, reverse=True)[:8]
    ]


def _write_checkpoint(folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

    special = ("<s>", "<pad>", "</s>", "<unk>")
    vocabulary = {word: index for index, word in enumerate((*special, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast: Any = PreTrainedTokenizerFast  # transformers leaves these three untyped
    auto_config: Any = AutoConfig
    auto_model: Any = AutoModelForSequenceClassification
    fast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>").save_pretrained(folder)
    torch.manual_seed(0)
    config = auto_config.for_model(
        "bert",
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=MAX_LENGTH + 8,  # a text that is not cut breaks the model
        initializer_range=0.5,  # so that answers differ from text to text
        pad_token_id=1,
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    auto_model.from_config(config).eval().save_pretrained(folder)
