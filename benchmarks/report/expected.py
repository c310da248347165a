"""What the report wants to be able to say; what no record says yet stands there as a gap."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.report.findings import Loop

# Name of the package -> what it is, for people.
MODELS: Mapping[str, str] = {
    "demo": "the demo: all-MiniLM-L6-v2, 6 layers of 384",
    "bert-base": "BERT-base geometry: 12 layers of 768, random weights",
}
WORKLOADS = ("queries", "reviews")
CPU_BACKENDS = (
    "torch-cpu fp32",
    "torch-cpu bf16",
    "onnx-cpu fp32",
    "onnx-cpu int8 dynamic",
    "openvino-cpu fp32",
    "openvino-cpu bf16",
)
GPU_BACKENDS = ("torch-cuda fp16", "torch-cuda bf16", "onnx-cuda fp16")
PEERS = (
    "miniml",
    "prototype",
    "plain-fastapi",
    "ray-batch",
    "litserve",
    "bentoml",
    "mlserver",
    "infinity",
)
# Systems that a table should have, each on every workload.
WANTED: Mapping[Loop, tuple[str, ...]] = {
    "engine": (*CPU_BACKENDS, *GPU_BACKENDS),
    "closed": PEERS,
    "open": PEERS,
}
