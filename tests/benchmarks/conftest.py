"""What benchmarks are tried on: a server that keeps a log of the truth, and a tiny checkpoint."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from benchmarks.peers.assets import Assets, bound
from benchmarks.plain import MODEL, export_plain, quantize_plain
from registry.artifact import Manifest, staged
from serving.engine import Engine
from serving.environment import free_ports
from serving.package import (
    CARD,
    CONFIG,
    COST,
    GATES,
    GOLDEN,
    TOKENIZER,
    CostGrid,
    GoldenAnswer,
    Package,
    PackageConfig,
)

WORDS = ("soup", "staff", "price", "cold", "warm", "good", "bad", "very", "not", "never", "was")
LABELS = ("negative", "neutral", "positive")
MAX_LENGTH = 24
_GRID = CostGrid(batches=(1,), lengths=(4,), ms=((0.1,),), threads=1, machine="test")
_SURE = 0.5  # far more than int8 moves a probability
_INFO = {
    "package_digest": "d" * 64,
    "examples": [{"text": "Warm soup."}, {"text": "Cold staff, never again."}],
}


@dataclass(frozen=True, kw_only=True)
class Served:
    """What really happened to one request, by the server's `time.perf_counter`."""

    content: bytes
    came_s: float
    done_s: float


@dataclass(kw_only=True)
class Synthetic:
    """A server whose latency is known.

    hold_s: how long to hold a request, by its number and the time since the first. one_at_a_time:
    others wait meanwhile. status: of the answer, by number. info: what /info says.
    """

    hold_s: Callable[[int, float], float] = lambda _number, _since_s: 0.0
    one_at_a_time: bool = False
    status: Callable[[int], int] = lambda _: 200
    info: dict[str, Any] = field(default_factory=lambda: dict(_INFO))
    url: str = ""
    log: list[Served] = field(default_factory=list)
    came: int = 0
    _first_s: float | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                sizes = [int(line[15:]) for line in lines if line.startswith(b"content-length:")]
                content = await reader.readexactly(sizes[0]) if sizes else b""
                if head.startswith(b"GET"):
                    self._say(writer, 200, json.dumps(self.info).encode())
                else:
                    await self._answer(writer, content)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, content: bytes) -> None:
        came_s = time.perf_counter()
        self._first_s = self._first_s or came_s
        self.came += 1
        number = self.came
        if self.one_at_a_time:
            async with self._turn:
                await asyncio.sleep(self.hold_s(number, came_s - self._first_s))
        else:
            await asyncio.sleep(self.hold_s(number, came_s - self._first_s))
        self.log.append(Served(content=content, came_s=came_s, done_s=time.perf_counter()))
        self._say(writer, self.status(number), b'{"label": "positive", "score": 1.0}')

    def _say(self, writer: asyncio.StreamWriter, status: int, body: bytes) -> None:
        head = b"HTTP/1.1 %d Said\r\ncontent-type: application/json\r\n" % status
        writer.write(head + b"content-length: %d\r\n\r\n" % len(body) + body)


@contextmanager
def _on_a_thread(server: Synthetic) -> Iterator[Synthetic]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def listen() -> asyncio.Server:
        return await asyncio.start_server(server.handle, "127.0.0.1", 0, backlog=1024)

    async def close(listening: asyncio.Server) -> None:
        listening.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    listening = asyncio.run_coroutine_threadsafe(listen(), loop).result()
    try:
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(close(listening), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def synthetic() -> Callable[..., AbstractContextManager[Any]]:
    """Makes a `Synthetic` of its arguments that runs while the block does."""
    return lambda **how: _on_a_thread(Synthetic(**how))


@pytest.fixture
def free_port() -> int:
    """One that nobody listens on now."""
    (port,) = free_ports(1)
    return port


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
def seal(assets: Assets) -> Callable[..., Path]:
    """Seals a package of the tiny checkpoint's fp32 graph: `seal(folder, labels, name="other")`."""

    def make(target: Path, labels: tuple[str, ...] = LABELS, *, name: str = "tiny") -> Path:
        config = PackageConfig(
            name=name,
            task="single_label",
            text_pair=False,
            labels=labels,
            max_length=assets.max_length,
            pad_token_id=1,
            inputs=("input_ids", "attention_mask", "token_type_ids"),
            precision="fp32",
            batch_invariant=True,
            base_model="tiny",
        )
        lineage = {"checkpoint": str(assets.checkpoint)}
        with staged(target, kind="package", lineage=lineage) as folder:
            shutil.copy(assets.exported / MODEL, folder / MODEL)
            shutil.copy(assets.exported / "tokenizer.json", folder / TOKENIZER)
            (folder / CONFIG).write_bytes(config.to_bytes())
            (folder / COST).write_bytes(_GRID.to_bytes())
            (folder / GATES).write_text("{}\n")
            (folder / CARD).write_text("tiny\n")
            manifest = Manifest(kind="package", files={}, lineage={})
            unsealed = Package(folder=folder, manifest=manifest, config=config, cost=_GRID)
            texts = ["warm soup", "cold staff never"]
            answers = [
                GoldenAnswer(text=text, logits=tuple(map(float, row)))
                for text, row in zip(texts, Engine(unsealed).logits(texts), strict=True)
            ]
            (folder / GOLDEN).write_text("".join(f"{each.to_line()}\n" for each in answers))
        return target

    return make


@pytest.fixture(scope="session")
def package(seal: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint, packaged; it can be served."""
    return seal(tmp_path_factory.mktemp("package") / "tiny")


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
