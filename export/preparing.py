"""The graphs all candidates are made from: the checkpoint's as exported, and the same slimmed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import onnx

from export.checkpoint import Checkpoint
from export.fp32 import TOLERANCE, export_fp32
from export.recipes.slim import slim
from export.workshop import Workshop
from serving.session import Encoding, open_session

_COMPARED_TEXTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """torch_max_logit_difference: of the exported graph. not_slimmed: why, empty when it is."""

    torch_max_logit_difference: float
    not_slimmed: str


def prepare_graphs(workshop: Workshop, checkpoint: Checkpoint) -> None:
    """Export and slim into *workshop*, whose exam is there to compare answers on.

    Raises `CheckpointError` and `ExportMismatch` as `export_fp32` does.
    """
    encodings = workshop.exam()
    scratch = workshop.folder / "exporting"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    exported, difference = export_fp32(checkpoint, encodings, scratch)
    exported.replace(workshop.exported)
    shutil.rmtree(scratch)
    reason = _slim(workshop, checkpoint, encodings)
    found = Prepared(torch_max_logit_difference=difference, not_slimmed=reason)
    workshop.write_json(workshop.prepared, asdict(found))


def read_prepared(workshop: Workshop) -> Prepared:
    """As written; the file is there once both graphs are."""
    return Prepared(**json.loads(workshop.prepared.read_bytes()))


def _slim(workshop: Workshop, checkpoint: Checkpoint, encodings: Sequence[Encoding]) -> str:
    """Write the slimmed graph; the plain one again, and why, where that fails or shows."""
    try:
        graph = slim(workshop.exported, longest=checkpoint.max_length)
        onnx.save(graph, str(workshop.slim))
        by_length = sorted(encodings, key=len)
        batch = by_length[:: -(-len(by_length) // _COMPARED_TEXTS)]
        plain, light = (
            open_session(path, threads=1).run(batch, pad_token_id=checkpoint.pad_token_id)
            for path in (workshop.exported, workshop.slim)
        )
        if np.allclose(plain, light, atol=TOLERANCE, rtol=TOLERANCE):
            return ""
        reason = f"logits differed by {np.abs(plain - light).max():.1e}"
    except Exception as error:  # noqa: BLE001 - whatever an unknown architecture trips
        reason = str(error).partition("\n")[0]
    shutil.copyfile(workshop.exported, workshop.slim)
    return reason
