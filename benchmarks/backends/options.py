"""What `miniml bench backends` can be told; light, as `benchmarks.options`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendsOptions:
    """One checkpoint on torch, ONNX Runtime and OpenVINO, on CPU and GPU: whatever is here.

    Without a server: a grid of batch x length, weighted by how long texts are, answers checked
    against fp32 first. On two cores about five minutes for MiniLM; --http adds as many.

    [bold]miniml bench backends --package reviews@latest[/]

    [bold]miniml bench backends --also reviews-openvino@latest --only onnx-cpu,openvino-cpu --http[/]
    """

    package: str = field(default="latest", metadata={"help": "Package reference, or a folder."})
    also: tuple[str, ...] = field(
        default=(),
        metadata={"help": "A further package of the same checkpoint, for any runtime; repeat it."},
    )
    checkpoint: str | None = field(
        default=None, metadata={"help": "What it was exported from; by default found by lineage."}
    )
    only: str = field(
        default="",
        metadata={
            "help": "Backends, with commas: torch-cpu, onnx-cpu, openvino-cpu, torch-cuda, onnx-cuda."
        },
    )
    texts: Path | None = field(
        default=None,
        metadata={"help": "File of texts, .txt or .jsonl, instead of reviews and queries."},
    )
    cores: int = field(default=0, metadata={"help": "Cores of each; default: all there are."})
    batches: str = field(
        default="1,8", metadata={"help": "Texts a call, with commas; for a GPU rather 1,8,64."}
    )
    rounds: int = field(default=3, metadata={"help": "Rounds, each over all backends in turn."})
    cell_s: float = field(
        default=0.2, metadata={"help": "Seconds of each batch x length, one run at least."}
    )
    http: bool = field(default=False, metadata={"help": "Also behind servers, in a closed loop."})
    connections: int = field(default=32, metadata={"help": "Connections of the closed loop."})
    duration_s: float = field(default=8.0, metadata={"help": "Seconds of a closed loop."})
    warmup_s: float = field(default=2.0, metadata={"help": "Seconds before each, not measured."})
    port: int = field(default=8000, metadata={"help": "Port that the servers take in turn."})
    seed: int = field(default=0, metadata={"help": "Seed of the texts."})
    output: Path | None = field(
        default=None, metadata={"help": "Where the JSON record goes; default: a new file, named."}
    )
