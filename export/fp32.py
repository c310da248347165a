"""Checkpoint -> plain fp32 ONNX graph, and the proof that it answers as the checkpoint does."""

from __future__ import annotations

import inspect
import logging
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.checkpoint import CONFIG, WEIGHTS, Checkpoint
from export.errors import CheckpointError, ExportMismatch
from serving.session import Encoding, Logits, open_session, padded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Two implementations of one network in float32 differ by rounding only.
TOLERANCE = 1e-4
_OPSET = 18  # optimum's default today; the recipes build on it
_COMPARED_TEXTS = 32
_TOGETHER = 8  # texts of mixed lengths in a batch, so that padding is compared too
_NOISY = ("optimum", "transformers", "torch.onnx")
_TASK = "text-classification"
_SHOWN_KEYS = 3
_SAID = 200  # characters of a library's message


def export_fp32(
    checkpoint: Checkpoint, encodings: Sequence[Encoding], work: Path
) -> tuple[Path, float]:
    """The graph, written into *work*, and its largest |logit difference| from torch.

    Batch and length are dynamic. Raises `CheckpointError` when the model cannot be loaded or
    exported, `ExportMismatch` when the graph answers *encodings* differently.
    """
    with _quiet():
        model = _load(checkpoint)
        batches = _batches(encodings)
        # Before the export, which patches the model: afterwards both could be wrong alike.
        expected = [_torch_logits(model, batch, checkpoint.pad_token_id) for batch in batches]
        graph = _export(model, checkpoint, work)
    session = open_session(graph, threads=1)
    difference = 0.0
    for batch, logits in zip(batches, expected, strict=True):
        found = session.run(batch, pad_token_id=checkpoint.pad_token_id)
        difference = float(np.fmax(difference, np.abs(found - logits).max()))
        if not difference <= TOLERANCE or not np.isfinite(found).all():
            raise ExportMismatch(
                f"The fp32 graph differs from {checkpoint.base_model} in torch by {difference:.1e} in"
                f" its logits, more than {TOLERANCE:.0e}; it cannot be exported faithfully."
            )
    return graph, difference


def graph_inputs(graph: Path) -> tuple[str, ...]:
    """Names of the inputs that a graph takes, in its order."""
    import onnx

    return tuple(node.name for node in onnx.load(str(graph)).graph.input)


def _load(checkpoint: Checkpoint) -> PreTrainedModel:
    """The classifier, wholly from its file: transformers would fill gaps with noise."""
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification

    try:
        model, loading = AutoModelForSequenceClassification.from_pretrained(
            str(checkpoint.folder),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            dtype="float32",
            ignore_mismatched_sizes=True,  # found below, and said in our words
            output_loading_info=True,
        )
    except (ValueError, KeyError, ImportError, SafetensorError) as error:
        raise CheckpointError(
            f"{checkpoint.folder}: transformers cannot load it ({_first_sentence(error)}); fine-tune"
            " another encoder, or train it again with the versions that are installed here."
        ) from error
    strange = sorted({*loading["missing_keys"], *loading["mismatched_keys"]})
    if strange or model.config.num_labels != len(checkpoint.labels):
        raise CheckpointError(
            f"{checkpoint.folder}: {WEIGHTS} does not hold what {CONFIG} and its"
            f" {len(checkpoint.labels)} labels ask for ({', '.join(strange[:_SHOWN_KEYS])});"
            " train it again."
        )
    if "attention_mask" not in inspect.signature(model.forward).parameters:
        raise CheckpointError(
            f"{checkpoint.base_model} ({model.config.model_type}) takes no attention_mask, so padding"
            " would change its answers; fine-tune another encoder."
        )
    return model.eval()  # type: ignore[no-any-return]


def _export(model: PreTrainedModel, checkpoint: Checkpoint, work: Path) -> Path:
    from optimum.exporters.onnx import onnx_export_from_model

    _check_architecture(model, checkpoint)
    folder, target = work / "optimum", work / "exported.onnx"
    try:
        onnx_export_from_model(
            model,
            folder,
            task=_TASK,
            opset=_OPSET,
            device="cpu",
            do_validation=False,  # done above, by the engine that serves, on real texts
        )
    except (ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        raise CheckpointError(
            f"{checkpoint.base_model} ({model.config.model_type}) cannot be exported to ONNX:"
            f" {_first_sentence(error)}; fine-tune another encoder."
        ) from error
    _without_traces(folder / "model.onnx", target)
    shutil.rmtree(folder)
    return target


def _batches(encodings: Sequence[Encoding]) -> list[list[Encoding]]:
    """Texts from the shortest to the longest, in batches that mix them; the first stands alone."""
    by_length = sorted(encodings, key=len)
    count = min(_COMPARED_TEXTS, len(by_length))
    spread = [
        by_length[index * (len(by_length) - 1) // max(1, count - 1)] for index in range(count)
    ]
    groups = -(-count // _TOGETHER)
    return [spread[:1], *(spread[group::groups] for group in range(groups))]


def _torch_logits(model: PreTrainedModel, batch: Sequence[Encoding], pad_token_id: int) -> Logits:
    import torch

    feed = {
        name: torch.from_numpy(values)
        for name, values in padded(batch, pad_token_id=pad_token_id).items()
    }
    if getattr(model.config, "type_vocab_size", 0) <= 1:  # RoBERTa has the word, and no use for it
        del feed["token_type_ids"]
    with torch.inference_mode():
        return np.asarray(model(**feed).logits.numpy(), dtype=np.float32)


def _without_traces(source: Path, target: Path) -> None:
    """Copy the graph without what names this machine, so that equal checkpoints give equal bytes."""
    import onnx

    model = onnx.load(str(source))
    for part in (model, model.graph, *model.graph.node):
        part.doc_string = ""
        del part.metadata_props[:]
    onnx.save(model, str(target))


def _check_architecture(model: PreTrainedModel, checkpoint: Checkpoint) -> None:
    """Raise `CheckpointError` for what the exporter has no recipe for; its own words are for authors."""
    from optimum.exporters.tasks import TasksManager

    kind = model.config.model_type
    try:
        tasks = TasksManager.get_supported_tasks_for_model_type(
            kind.replace("_", "-"), "onnx", library_name="transformers"
        )
    except KeyError:
        tasks = {}
    if _TASK not in tasks:
        raise CheckpointError(
            f"{checkpoint.base_model} ({kind}) cannot be exported to ONNX: optimum classifies no texts"
            " with this architecture; fine-tune another encoder, for instance a BERT, RoBERTa,"
            " ELECTRA, DeBERTa or ModernBERT."
        )


def _first_sentence(error: Exception) -> str:
    said = str(error).strip() or repr(error)
    return re.split(r"\.\s|\n", said, maxsplit=1)[0][:_SAID].rstrip(".")


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporters say of their own internals; errors still surface."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
