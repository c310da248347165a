"""What the peers read: the checkpoint, and plain fp32 and int8 ONNX made from it.

Knows no server.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import PeerUnsuited, PlainModelFailed
from benchmarks.plain import MODEL, export_plain, quantize_plain
from serving.engine import TextTokenizer
from serving.package import Package
from serving.session import open_session


@dataclass(frozen=True, slots=True, kw_only=True)
class Assets:
    """package: what ours serves, a folder. Of the others each is a folder with config and tokenizer.

    bounded: the checkpoint with *max_length* in its tokenizer, for those who can only read it there.
    max_length: tokens, special ones included; the package's, and so everybody's. no_int8: why there
    is nothing at *quantized*.
    """

    package: Path
    checkpoint: Path
    bounded: Path
    exported: Path
    quantized: Path
    max_length: int
    no_int8: str = ""


def prepare(package: Package, checkpoint: Path, work: Path) -> Assets:
    """Make the peers' models in *work*.

    Raises `PeerUnsuited` for a package whose answers the peers cannot give, `PlainModelFailed` when
    optimum cannot export it. Without an int8 model there are still peers.
    """
    config = package.config
    if config.task != "single_label" or config.text_pair:
        raise PeerUnsuited(
            "The peers give one label to one text; this package answers"
            f" {'pairs of texts' if config.text_pair else 'with several labels'}."
        )
    exported = export_plain(checkpoint, work / "fp32")
    quantized, no_int8 = work / "int8", ""
    try:
        quantize_plain(exported, quantized)
    except PlainModelFailed as error:
        no_int8 = str(error)
    return Assets(
        package=package.folder,
        checkpoint=checkpoint,
        bounded=bound(checkpoint, work / "bounded", config.max_length),
        exported=exported,
        quantized=quantized,
        max_length=config.max_length,
        no_int8=no_int8,
    )


def bound(checkpoint: Path, target: Path, max_length: int) -> Path:
    """*checkpoint* once more at *target*, but that its tokenizer says where texts are cut."""
    target.mkdir()
    name = "tokenizer_config.json"
    for path in checkpoint.iterdir():
        if path.name != name:
            (target / path.name).symlink_to(path.absolute())
    source = checkpoint / name
    settings = json.loads(source.read_bytes()) if source.exists() else {}
    bounded = json.dumps({**settings, "model_max_length": max_length})
    (target / name).write_text(bounded, encoding="utf-8")
    return target


def fp32_labels(assets: Assets, texts: Sequence[str]) -> list[str]:
    """What the checkpoint answers in fp32, each text alone."""
    config = json.loads((assets.exported / "config.json").read_bytes())
    path = assets.exported / "tokenizer.json"
    encodings = TextTokenizer(path, max_length=assets.max_length).encode(texts)
    session = open_session(assets.exported / MODEL, threads=1)
    return [config["id2label"][str(session.run([encoding]).argmax())] for encoding in encodings]
