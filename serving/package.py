"""The model package: the contract between export, which writes it, and serving, which reads it.

A package is a sealed folder (`registry.artifact`) that holds

    model.onnx       graph; inputs int64 (B, T), first output float32 logits (B, labels)
    model.onnx.data  its large constants, when it has any: mapped into memory, not read
    tokenizer.json   Hugging Face `tokenizers` file, without padding
    config.json      `PackageConfig`
    gates.json       what the exam said of fp32 and of the served variant
    cost.json        `CostGrid`: ms over batch x padded length, on the machine of the export
    golden.jsonl     `GoldenAnswer` a line: texts with this graph's logits, computed alone
    exam.json        `ExamMix`: what the served variant answered on the exam; old packages have none
    README.md        model card
    export.html      the page on how this variant was chosen; old packages have none

This module knows files and nothing else: no ONNX Runtime, no tokenizer, no Ray.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from registry.artifact import Manifest, verify
from registry.errors import RegistryError
from serving.errors import PackageError

SCHEMA_VERSION = 1
MODEL, TOKENIZER, CONFIG = "model.onnx", "tokenizer.json", "config.json"
MODEL_DATA = f"{MODEL}.data"
GATES, COST, GOLDEN, CARD = "gates.json", "cost.json", "golden.jsonl", "README.md"
EXAM_MIX = "exam.json"
REPORT = "export.html"
# Of golden logits: far above the rounding between two machines, far below what moves a label.
GOLDEN_TOLERANCE = 0.05
# Up to and with these scores a bin of confidence reaches, in exam.json and in what is served; narrower
# where a well-trained model's answers are.
CONFIDENCE_EDGES = (*(place / 20 for place in range(1, 20)), 0.975, 0.99, 0.995, 1.0)
Task = Literal["single_label", "multi_label"]
Runtime = Literal["onnxruntime", "openvino", "cuda", "tensorrt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageConfig:
    """What serving must know to turn a text into an answer.

    labels: in the order of the logits. inputs: graph inputs, a subset of input_ids,
    attention_mask, token_type_ids. max_length: tokens, special ones included. thresholds: one a
    label, multi-label only; a label is given when its sigmoid reaches it (0.5 where None).
    batch_invariant: whether a text gets the same answer in company as alone; if not, it is
    always run alone. precision: for people ("fp32", "int8 dynamic per-channel"). runtime: what runs
    the graph, with its own options. isa: CPU features the variant was chosen for, named as in
    `serving.isa`. temperature: logits are divided by it before they become probabilities.
    canonicalizer: path of the function in whose form texts are read (`serving.canonical`).
    """

    name: str
    task: Task
    text_pair: bool
    labels: tuple[str, ...]
    max_length: int
    pad_token_id: int
    inputs: tuple[str, ...]
    precision: str
    batch_invariant: bool
    base_model: str
    thresholds: tuple[float, ...] | None = None
    runtime: Runtime = "onnxruntime"
    runtime_options: Mapping[str, str] = field(default_factory=dict)
    isa: tuple[str, ...] = ()
    temperature: float = 1.0
    canonicalizer: str | None = None
    schema_version: int = SCHEMA_VERSION

    def to_bytes(self) -> bytes:
        """`config.json`."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False).encode() + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class CostGrid:
    """Measured milliseconds of one lane: ms[i][j] for batches[i] texts padded to lengths[j] tokens.

    Both axes ascend. machine: CPU model and core count, for people. threads: per lane.
    """

    batches: tuple[int, ...]
    lengths: tuple[int, ...]
    ms: tuple[tuple[float, ...], ...]
    threads: int
    machine: str

    def to_bytes(self) -> bytes:
        """`cost.json`."""
        return json.dumps(asdict(self), indent=1).encode() + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenAnswer:
    """One text and the logits that this graph gave for it alone, on the machine of the export."""

    text: str
    text_pair: str | None = None
    logits: tuple[float, ...]

    def to_line(self) -> str:
        """One line of `golden.jsonl`, without the newline."""
        return json.dumps(asdict(self), ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamMix:
    """Rows of the exam by the answer they got: what live answers are held against.

    confidence: by the likeliest label's score, up to and with each of *edges*; confidence_sum: of
    these scores. labels: by the label given, in the config's order, then those given none.
    """

    edges: tuple[float, ...] = CONFIDENCE_EDGES
    confidence: tuple[int, ...]
    confidence_sum: float
    labels: tuple[int, ...]

    @property
    def rows(self) -> int:
        """How many there were."""
        return sum(self.labels)

    def to_bytes(self) -> bytes:
        """`exam.json`."""
        return json.dumps({"rows": self.rows, **asdict(self)}, indent=1).encode() + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """An opened package: every digest was right at the time of opening. exam: None in old ones."""

    folder: Path
    manifest: Manifest
    config: PackageConfig
    cost: CostGrid
    gates: dict[str, Any] = field(default_factory=dict)
    exam: ExamMix | None = None

    @property
    def digest(self) -> str:
        """Hex sha256 that names this package for ever; sent with every answer."""
        return self.manifest.digest

    @property
    def model_path(self) -> Path:
        """The ONNX graph."""
        return self.folder / MODEL

    @property
    def tokenizer_path(self) -> Path:
        """The tokenizer file."""
        return self.folder / TOKENIZER

    def golden(self) -> list[GoldenAnswer]:
        """The golden answers, in file order."""
        # Not splitlines: U+2028 and its kin may stand raw inside a JSON string.
        lines = (self.folder / GOLDEN).read_text(encoding="utf-8").split("\n")
        return [_golden_answer(json.loads(line)) for line in lines if line]


def open_package(folder: Path) -> Package:
    """Verify *folder* and read it.

    Raises `PackageError` when a file was changed, is missing or is extra, when the folder is not a
    package at all, or when it is of another schema version.
    """
    try:
        manifest = verify(folder, kind="package")
    except RegistryError as error:
        raise PackageError(str(error)) from error
    try:
        config = _config(json.loads((folder / CONFIG).read_bytes()))
        return Package(
            folder=folder.absolute(),
            manifest=manifest,
            config=config,
            cost=_cost(json.loads((folder / COST).read_bytes())),
            gates=json.loads((folder / GATES).read_bytes()),
            exam=_exam_mix(folder / EXAM_MIX, config) if EXAM_MIX in manifest.files else None,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PackageError(
            f"{folder} is sealed but unreadable ({error}); export it again."
        ) from error


def read_config(folder: Path) -> PackageConfig:
    """`config.json` of a folder that was verified before. Raises `PackageError`."""
    try:
        return _config(json.loads((folder / CONFIG).read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise PackageError(f"{folder} has an unreadable {CONFIG} ({error}).") from error


def _config(document: dict[str, Any]) -> PackageConfig:
    if document.get("schema_version") != SCHEMA_VERSION:
        seen = document.get("schema_version")
        raise ValueError(f"{CONFIG} has schema version {seen}, this miniml reads {SCHEMA_VERSION}")
    for key in ("labels", "inputs", "thresholds", "isa"):
        if document.get(key) is not None:
            document[key] = tuple(document[key])
    return PackageConfig(**document)


def _cost(document: dict[str, Any]) -> CostGrid:
    return CostGrid(
        batches=tuple(document["batches"]),
        lengths=tuple(document["lengths"]),
        ms=tuple(tuple(row) for row in document["ms"]),
        threads=document["threads"],
        machine=document["machine"],
    )


def _exam_mix(path: Path, config: PackageConfig) -> ExamMix:
    document = json.loads(path.read_bytes())
    mix = ExamMix(
        edges=tuple(map(float, document["edges"])),
        confidence=tuple(map(int, document["confidence"])),
        confidence_sum=float(document["confidence_sum"]),
        labels=tuple(map(int, document["labels"])),
    )
    bins, labels = len(mix.edges), len(config.labels) + 1
    if list(mix.edges) != sorted(mix.edges) or mix.edges[-1:] != (1.0,):
        raise ValueError(f"the edges of {path.name} do not ascend to 1")
    if (len(mix.confidence), len(mix.labels)) != (bins, labels):
        raise ValueError(f"{path.name} does not have {bins} bins and {labels} labels")
    if min(*mix.confidence, *mix.labels) < 0:
        raise ValueError(f"{path.name} has counts below 0")
    if not sum(mix.confidence) == mix.rows == document["rows"]:
        raise ValueError(f"{path.name} counts its rows in two ways")
    return mix


def _golden_answer(document: dict[str, Any]) -> GoldenAnswer:
    return GoldenAnswer(
        text=document["text"],
        text_pair=document.get("text_pair"),
        logits=tuple(document["logits"]),
    )
