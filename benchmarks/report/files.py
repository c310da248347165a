"""Records on disk: JSON as the benchmarks write it, or packed and compressed as the checkout keeps it."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.errors import NoRecord
from benchmarks.report.packing import pack, unpack
from benchmarks.subject import slim_gates

KEPT = ".json.gz"
# Of what an endpoint says of itself.
_SERVER = ("name", "base_model", "precision", "max_length_tokens", "batch_invariant", "lanes")


def read_document(path: Path) -> dict[str, Any]:
    """The document in *path*, `.json` or `.json.gz`. Raises `NoRecord`."""
    try:
        raw = path.read_bytes()
        document = json.loads(gzip.decompress(raw) if path.name.endswith(KEPT) else raw)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise NoRecord(f"{path} cannot be read as a record ({error}); give a JSON file.") from error
    if not isinstance(document, dict):
        raise NoRecord(f"{path} holds no JSON object, so it is no record.")
    unpacked: dict[str, Any] = unpack(document)
    return unpacked


def keep(document: Mapping[str, Any], path: Path) -> Path:
    """Write *document* packed and compressed to *path*, all or nothing; equal input, equal bytes."""
    text = json.dumps(pack(document), separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(gzip.compress(text.encode(), mtime=0))
    return part.replace(path)


def curated(document: Mapping[str, Any]) -> dict[str, Any]:
    """*document* without what only its own machine has a use for: paths, examples, candidates."""
    found = dict(document)
    if isinstance(server := found.get("server"), Mapping):
        found["server"] = {
            **{name: server[name] for name in _SERVER if name in server},
            "gates": slim_gates(server.get("gates", {})),
        }
    if found.get("written"):
        found["written"] = Path(found["written"]).name
    return found


def records_in(folder: Path) -> list[Path]:
    """The kept records of *folder*, by name."""
    return sorted(folder.glob(f"*{KEPT}"))
