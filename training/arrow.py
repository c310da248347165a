"""Arrow on disk: cleaned rows on their way to the splits, and the splits themselves.

Texts go to a file; only hashes, lengths and label numbers stay in memory, so that a source larger
than memory passes through.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from array import array
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from registry.home import work_folder
from training.labels import Labels
from training.splitting import Ints, Table

_BATCH_ROWS = 1000


class CleanRows:
    """Cleaned rows in source order: texts in a temporary Arrow file, the rest in arrays."""

    def __init__(self, *, pair: bool) -> None:
        self.pair = pair
        self.label_names: list[str] = []  # raw label id -> name, in order of appearance
        self._ids: dict[str, int] = {}
        self._hashes, self._given, self._words = array("Q"), array("b"), array("l")
        self._flat, self._ends = array("l"), array("l")
        self._place = Path(tempfile.mkdtemp(dir=work_folder("transform", "rows")))
        names = ("text", "text_pair") if pair else ("text",)
        self._schema = pa.schema([(name, pa.string()) for name in names])
        self._sink: Any = pa.OSFile(str(self._place / "rows.arrow"), "wb")
        self._writer: Any = pa.ipc.new_file(self._sink, self._schema)
        self._batch: list[tuple[str, ...]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sink.close()
        shutil.rmtree(self._place, ignore_errors=True)

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, texts: tuple[str, ...], labels: tuple[str, ...], given: int) -> None:
        """One row: its text or pair, its label names, the split it was given in (see splitting)."""
        self._hashes.append(_hash("\0".join(texts)))
        self._given.append(given)
        self._words.append(sum(len(text.split()) for text in texts))
        for name in labels:
            if name not in self._ids:
                self._ids[name] = len(self.label_names)
                self.label_names.append(name)
            self._flat.append(self._ids[name])
        self._ends.append(len(self._flat))
        self._batch.append(texts)
        if len(self._batch) == _BATCH_ROWS:
            self._flush()

    @property
    def words(self) -> Ints:
        """Words of each row."""
        return np.asarray(self._words, dtype=np.int64)

    def labels_of(self, row: int) -> list[int]:
        """Raw label ids of one row."""
        start = self._ends[row - 1] if row else 0
        return list(self._flat[start : self._ends[row]])

    def raw_labels(self, rows: Ints) -> Ints:
        """Raw label ids of all *rows* together."""
        found = [label for row in rows for label in self.labels_of(int(row))]
        return np.asarray(found, dtype=np.int64)

    def table(self, labels: Labels) -> Table:
        """What the splitter needs. A row's stratum is its rarest label, or -1 without any."""
        index = np.asarray(labels.index, dtype=np.int64)
        frequency = np.bincount(index[np.asarray(self._flat, dtype=np.int64)], minlength=1)
        strata, keys = array("l"), array("Q")
        for row in range(len(self)):
            own = sorted(int(index[label]) for label in self.labels_of(row))
            strata.append(min(own, key=lambda label: (frequency[label], label), default=-1))
            keys.append(_hash(",".join(map(str, own))))
        return Table(
            texts=np.asarray(self._hashes, dtype=np.uint64),
            labels=np.asarray(keys, dtype=np.uint64),
            strata=np.asarray(strata, dtype=np.int64),
            given=np.asarray(self._given, dtype=np.int64),
        )

    def texts(self) -> Any:
        """The texts as a memory-mapped Arrow table; no row can be added any more."""
        if self._writer is not None:
            self._flush()
            self._writer.close()
            self._sink.close()
            self._writer = None
        return pa.ipc.open_file(pa.memory_map(str(self._place / "rows.arrow"))).read_all()

    def _flush(self) -> None:
        columns = list(zip(*self._batch, strict=True)) or [()] * len(self._schema)
        arrays = [pa.array(column, pa.string()) for column in columns]
        self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
        self._batch = []


def write_split(  # noqa: PLR0913, PLR0917 - one split is these six things
    folder: Path, clean: CleanRows, labels: Labels, rows: Ints, split: str, seed_digest: str
) -> str:
    """Write *rows* as a folder that `datasets.load_from_disk` reads; equal rows give equal bytes.

    Returns the hex sha256 over *seed_digest* and the rows, which makes the fingerprint.
    """
    folder.mkdir(parents=True)
    table = clean.texts()
    name = "labels" if labels.multi_label else "label"
    label_type = pa.list_(pa.int64()) if labels.multi_label else pa.int64()
    schema = pa.schema([*table.schema, pa.field(name, label_type)])
    file_name = "data-00000-of-00001.arrow"
    digest = hashlib.sha256(seed_digest.encode())
    with pa.OSFile(str(folder / file_name), "wb") as sink, pa.ipc.new_stream(sink, schema) as out:
        for start in range(0, len(rows), _BATCH_ROWS):
            chunk = rows[start : start + _BATCH_ROWS]
            own = [sorted(labels.index[i] for i in clean.labels_of(int(row))) for row in chunk]
            taken = table.take(pa.array(chunk)).combine_chunks()
            values = pa.array(own if labels.multi_label else [o[0] for o in own], label_type)
            columns = [column.combine_chunks() for column in taken.columns]
            batch = pa.record_batch([*map(_one_chunk, columns), values], schema=schema)
            out.write_batch(batch)
            digest.update(json.dumps(batch.to_pylist(), sort_keys=True).encode())
    _write_state(folder, schema, file_name, split, digest.hexdigest())
    return digest.hexdigest()


def _one_chunk(column: Any) -> Any:
    """*column* as one Arrow array, whichever of the two `combine_chunks` gave."""
    return column.chunk(0) if isinstance(column, pa.ChunkedArray) else column


def _write_state(folder: Path, schema: Any, file_name: str, split: str, digest: str) -> None:
    """The two small files `load_from_disk` reads beside the data, without paths or times in them."""
    from datasets import Features

    features = Features.from_arrow_schema(schema).to_dict()
    state: dict[str, Any] = {
        "_data_files": [{"filename": file_name}],
        "_fingerprint": digest[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}, indent=1) + "\n")
    (folder / "state.json").write_text(json.dumps(state, indent=1) + "\n")


def _hash(text: str) -> int:
    """64 bits of BLAKE2: two of ten million texts share one with a chance of 3 in a million."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
