"""ONNX Runtime and `tokenizers` on optimum's int8 folder: texts in, answers out.

What two of the peers put behind HTTP; knows no server. Leaner than transformers' own classes, as
who serves without torch would write it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from benchmarks.peers.contract import PeerAnswer
from benchmarks.plain import QUANTIZED


class OnnxClassifier:
    """One session on *threads* threads; a call is one batch, padded to its longest text."""

    def __init__(self, folder: Path, *, max_length: int, threads: int) -> None:
        config = json.loads((folder / "config.json").read_bytes())
        self._labels = [config["id2label"][str(index)] for index in range(len(config["id2label"]))]
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(max_length)
        self._tokenizer.enable_padding(pad_id=config.get("pad_token_id") or 0)
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = threads
        self._session = ort.InferenceSession(
            str(folder / QUANTIZED), settings, providers=["CPUExecutionProvider"]
        )
        self._inputs = [node.name for node in self._session.get_inputs()]

    def __call__(self, texts: Sequence[str]) -> list[PeerAnswer]:
        """One answer a text, in order."""
        encodings = self._tokenizer.encode_batch(list(texts))
        feed = {
            "input_ids": [encoding.ids for encoding in encodings],
            "attention_mask": [encoding.attention_mask for encoding in encodings],
            "token_type_ids": [encoding.type_ids for encoding in encodings],
        }
        arrays = {name: np.array(feed[name], dtype=np.int64) for name in self._inputs}
        (logits,) = self._session.run(None, arrays)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        return [
            PeerAnswer(label=self._labels[row.argmax()], score=float(row.max())) for row in shares
        ]
