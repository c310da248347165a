"""Rows become a dataset: whatever the format, nothing is lost, doubled or in both splits."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from registry import store
from training.dataset import load_split, read_info
from training.errors import ColumnError, LabelError, SourceError, TransformError
from training.options import TransformOptions
from training.transform import TransformResult, transform

ROWS = [
    {"text": f"review number {i}, with a comma and\na newline é{i % 3}", "stars": i % 5 + 1}
    for i in range(60)
]


def write_csv(path: Path, *, delimiter: str = ",", header: bool = True, bom: bool = False) -> Path:
    """ROWS as a table with CRLF line ends and newlines inside quotes."""
    with path.open("w", encoding="utf-8-sig" if bom else "utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\r\n")
        if header:
            writer.writerow(["text", "stars"])
        writer.writerows([row["text"], row["stars"]] for row in ROWS)
    return path


def write_jsonl(path: Path) -> Path:
    """ROWS, one object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def write_json(path: Path) -> Path:
    """ROWS as one indented list."""
    path.write_text(json.dumps(ROWS, indent=2))
    return path


def write_columns(path: Path) -> Path:
    """ROWS as an object of lists."""
    path.write_text(json.dumps({key: [row[key] for row in ROWS] for key in ("text", "stars")}))
    return path


def write_parquet(path: Path) -> Path:
    """ROWS as Parquet."""
    parquet.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def write_gzip(path: Path) -> Path:
    """ROWS as gzipped JSON lines."""
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in ROWS)
    return path


def run(*sources: Path, **options: object) -> TransformResult:
    """Transform with defaults."""
    base = TransformOptions(sources=tuple(map(str, sources)), name="r")
    return transform(replace(base, **options))  # type: ignore[arg-type]


def labelled(result: TransformResult) -> Iterator[tuple[str, str]]:
    """(text, label name) of every row of both splits."""
    for split in ("train", "test"):
        for row in load_split(result.folder, split):
            yield row["text"], result.info.labels[row["label"]]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("r.csv", write_csv),
        ("bom.csv", lambda path: write_csv(path, bom=True)),
        ("r.tsv", lambda path: write_csv(path, delimiter="\t")),
        ("r.jsonl", write_jsonl),
        ("r.json", write_json),
        ("columns.json", write_columns),
        ("r.parquet", write_parquet),
        ("r.jsonl.gz", write_gzip),
    ],
)
def test_every_format_gives_the_same_rows(
    tmp_path: Path, name: str, write: Callable[[Path], Path]
) -> None:
    """Each row arrives once, with its own label, whatever file it came from."""
    result = run(write(tmp_path / name))

    assert sorted(labelled(result)) == sorted((r["text"], str(r["stars"])) for r in ROWS)
    assert result.info.labels == ("1", "2", "3", "4", "5")
    assert result.info.counts["test"]["rows"] == 10


def test_no_header(tmp_path: Path) -> None:
    """A file without header has columns 0, 1, ...; its first line is a row."""
    path = write_csv(tmp_path / "r.csv", header=False)
    result = run(path, text_columns=("0",), label_columns=("1",))

    assert sorted(labelled(result)) == sorted((r["text"], str(r["stars"])) for r in ROWS)


def test_a_lone_quote_swallows_no_row(tmp_path: Path) -> None:
    """In a tab-separated file without quoting, a quote is a character."""
    path = tmp_path / "r.tsv"
    path.write_text(
        "text\tlabel\n" + "".join(f'"said {i} times\t{"ab"[i % 2]}\n' for i in range(9))
    )

    assert len(list(labelled(run(path)))) == 9


def test_same_input_same_digest(tmp_path: Path) -> None:
    """Equal rows and options give equal bytes, wherever the file lies; another seed does not."""
    first = run(write_csv(tmp_path / "a.csv"))
    (tmp_path / "sub").mkdir()
    again = run(write_csv(tmp_path / "sub" / "a.csv"))
    other = run(write_csv(tmp_path / "a.csv"), seed=1)

    assert first.info.fingerprint == again.info.fingerprint != other.info.fingerprint


def test_reuse_returns_what_is_unchanged(tmp_path: Path) -> None:
    """--reuse gives the version made before, until rows or options change."""
    path = write_jsonl(tmp_path / "r.jsonl")
    first, again = run(path), run(path, reuse=True)
    changed = run(path, reuse=True, limit=50)

    assert again.reused
    assert again.version.reference == first.version.reference
    assert not changed.reused
    assert changed.info.dropped["beyond_limit"] == 10


def test_given_splits_are_kept(tmp_path: Path) -> None:
    """Files named train and test are the splits; a train row that stands in test leaves train."""
    rows = [f"text {i},{'ab'[i % 2]}" for i in range(30)]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *rows]))
    (tmp_path / "test.csv").write_text("\n".join(["text,label", *rows[:6], "only here,a"]))
    result = run(tmp_path)

    assert result.info.counts["test"]["rows"] == 7
    assert result.info.counts["train"]["rows"] == 24
    assert result.info.dropped["also_in_test"] == 6


def test_bad_rows_are_counted(tmp_path: Path) -> None:
    """Empty texts, missing labels, duplicates and conflicts are dropped, each under its name."""
    lines = [
        "text,label",
        "fine,a",
        "fine,a",
        "fine,b",
        " ,a",
        "lost,",
        "well,b",
        "good,a",
        "bad,b",
    ]
    path = tmp_path / "r.csv"
    path.write_text("\n".join(lines))
    dropped = run(path).info.dropped

    assert dropped["empty_text"] == 1
    assert dropped["missing_label"] == 1
    assert dropped["duplicate"] == 1
    assert dropped["conflicting"] == 1
    assert sum(dropped.values()) + 4 == len(lines) - 1


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": f"t {i}", "intents": [["a"], ["b", "a"], []][i % 3]} for i in range(30)],
        [
            {"text": f"t {i}"} | ({"intents": [["a"], ["b", "a"]][i % 2]} if i % 3 else {})
            for i in range(30)
        ],
        [{"text": f"t {i}", "intents": ["a", "b", "a,b"][i % 3]} for i in range(30)],
    ],
    ids=["lists", "absent key", "delimited"],
)
def test_multi_label_columns(tmp_path: Path, rows: list[dict[str, object]]) -> None:
    """Lists, absent keys and delimited strings all give sets of labels, the empty one included."""
    path = tmp_path / "r.json"
    path.write_text(json.dumps(rows))
    result = run(path)
    found = {
        row["text"]: {result.info.labels[i] for i in row["labels"]}
        for split in ("train", "test")
        for row in load_split(result.folder, split)
    }

    assert result.info.task == "multi_label"
    for row in rows:
        value = row.get("intents") or []
        names = set(value.split(",")) if isinstance(value, str) else {*value}  # type: ignore[misc]
        assert found[str(row["text"])] == names


def test_flag_columns_are_labels(tmp_path: Path) -> None:
    """Several 0/1 columns are one multi-label target, named by the columns."""
    path = tmp_path / "r.csv"
    path.write_text(
        "text,x,y\n" + "".join(f"t{i} is here,{i % 2},{i % 3 % 2}\n" for i in range(20))
    )
    result = run(path, text_columns=("text",), label_columns=("x", "y"))

    assert result.info.labels == ("x", "y")
    assert result.info.counts["train"]["per_label"]["x"] > 0


def test_label_names_for_numbers(tmp_path: Path) -> None:
    """--labels names the numbers 0..n-1 in order; a number beyond them is refused."""
    path = tmp_path / "r.tsv"
    path.write_text("".join(f"text of {i}\t{i % 3}\tid{i}\n" for i in range(30)))
    result = run(path, text_columns=("0",), label_columns=("1",), labels="red,green,blue")

    assert result.info.labels == ("red", "green", "blue")
    with pytest.raises(LabelError, match="not among"):
        run(path, text_columns=("0",), label_columns=("1",), labels="red,green")


def test_pairs(tmp_path: Path) -> None:
    """Two text columns make a pair; the same pair never stands in both splits."""
    path = tmp_path / "r.tsv"
    lines = [f"first {i % 9}\tsecond {i % 7}\t{'yn'[i % 2]}" for i in range(100)]
    path.write_text("\n".join(["sentence_A\tsentence_B\tjudgment", *lines]))
    result = run(path)
    pairs = [
        {(row["text"], row["text_pair"]) for row in load_split(result.folder, split)}
        for split in ("train", "test")
    ]

    assert result.info.text_pair
    assert not pairs[0] & pairs[1]
    assert len(pairs[0]) + len(pairs[1]) == 63


def test_no_shuffle_keeps_the_order(tmp_path: Path) -> None:
    """Without shuffling, the splits are the head and the tail of the source."""
    result = run(write_jsonl(tmp_path / "r.jsonl"), shuffle=False)
    texts = [text for text, _ in labelled(result)]

    assert texts == [row["text"] for row in ROWS]


@pytest.mark.parametrize(
    ("content", "options", "error", "words"),
    [
        (b"", {}, SourceError, "no rows"),
        (b"text,label\n", {}, SourceError, "no rows"),
        (b"text,label\n ,a\n", {}, SourceError, "No row"),
        (b"text,label\nx,a\ny,a\nz,a\n", {}, LabelError, "only one class"),
        (b"text,label\ncaf\xe9,a\n", {}, SourceError, "--encoding"),
        (b"a,b,c\n1,2,3\n", {}, ColumnError, "'c'"),
        (b"text,label\nx,a\n", {"text_columns": ("txt",)}, ColumnError, "'label'"),
        (b"text,label\nx,a,b\n", {}, SourceError, "line 2"),
        (
            b"text,label\n" + b"".join(b"t%d,%d.5\n" % (i, i) for i in range(50)),
            {},
            LabelError,
            "regression",
        ),
        (b"text,label\nx,a\ny,b\n", {"train_test_split_ratio": 2.0}, TransformError, "below 1"),
        (b"text,label\nx,a\ny,b\n", {"encoding": "klingon"}, SourceError, "klingon"),
    ],
)
def test_bad_input_is_one_sentence(
    tmp_path: Path,
    content: bytes,
    options: dict[str, object],
    error: type[TransformError],
    words: str,
) -> None:
    """Each fault of a source is refused with what was seen and what to do, and leaves nothing."""
    path = tmp_path / "r.csv"
    path.write_bytes(content)

    with pytest.raises(error) as caught:
        run(path, **options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert store.list_versions() == []


def test_labels_that_differ_between_splits(tmp_path: Path) -> None:
    """A label that only the test split has is refused by name."""
    (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\nc,x\n")
    (tmp_path / "test.csv").write_text("text,label\nd,x\ne,strange\n")

    with pytest.raises(LabelError, match="strange"):
        run(tmp_path)


@pytest.mark.parametrize("source", ["missing.csv", "no/such/place", "nobody/nothing-here"])
def test_unknown_sources(source: str) -> None:
    """No such file, or a hub id out of reach, is one sentence with the name."""
    with pytest.raises(SourceError, match=source):
        transform(TransformOptions(sources=(source,), name="r"))


def test_output_is_a_verified_copy(tmp_path: Path) -> None:
    """--output holds the very artifact that was registered."""
    result = run(write_jsonl(tmp_path / "r.jsonl"), output=tmp_path / "out")

    assert store.resolve(str(tmp_path / "out"), kind="dataset").digest == result.version.digest
    assert read_info(tmp_path / "out") == result.info
