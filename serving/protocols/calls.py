"""The calls of the Open Inference Protocol's gRPC service, as its .proto has them.

Imported by Ray's proxies too, so it must stay light.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from serving.protocols import open_inference_pb2 as pb


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """The class of the message that a call takes, and of the one that it gives."""

    takes: Any
    gives: Any


_SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
SERVICE: str = _SERVICE.full_name
CALLS = {
    method.name: Signature(
        takes=getattr(pb, method.input_type.name), gives=getattr(pb, method.output_type.name)
    )
    for method in _SERVICE.methods
}
