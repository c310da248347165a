"""Laws of offline prediction: every row once, in order, answered as the endpoint answers."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import fsspec
import psutil
import pyarrow as pa
import pytest
from moto.server import ThreadedMotoServer
from pyarrow import parquet

from registry.artifact import file_sha256
from serving.client import Client
from serving.engine import Engine
from serving.errors import ServingError
from serving.offline.errors import OfflineError, OtherRun, UnreadableInput
from serving.offline.inputs import find_inputs, survey
from serving.offline.job import AnswerOptions, OfflineJob, parse_job
from serving.offline.rows import read_block
from serving.offline.run import OfflineResult
from serving.offline.worker import WorkerUpdate
from serving.offline.workers import work, work_here
from serving.package import Package

Run = Callable[..., OfflineResult]
Read = Callable[[Path], pa.Table]
Rows = Sequence[Mapping[str, Any]]
MakePackage = Callable[..., Package]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A bucket `rows` of a real S3 server, reached through the environment as a user would."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    files.mkdir("rows")
    yield files
    server.stop()


def test_rows_come_back_once_in_order_with_the_endpoints_answers(  # noqa: PLR0913, PLR0917 - fixtures
    run_on_ray: Run,
    source: Path,
    rows: Rows,
    table: Read,
    tiny: Package,
    tmp_path: Path,
    listening: Callable[..., AbstractContextManager[str]],
) -> None:
    """Columns go along, label and scores are those of `POST /predict` to the last bit."""
    result = run_on_ray(source, scores=True)
    found = table(tmp_path / "out")
    texts = [row["text"] for row in rows]
    with listening(tiny) as url, Client(url) as client:
        answers = client.predict_many(texts, scores="all")

    assert found.select(["id", "text", "stars"]).to_pylist() == rows
    assert found.select(["label", "score", "scores"]).to_pylist() == answers
    assert (result.rows, result.new_rows, result.parts) == (len(rows), len(rows), 7)
    assert (result.texts_per_s or 0) > 0
    check_manifest(tmp_path / "out", source, rows, tiny.digest)


def check_manifest(folder: Path, source: Path, rows: Rows, digest: str) -> None:
    """Each part says which rows it holds, by its name and in itself, and is listed with its bytes."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for name, entry in manifest["parts"].items():
        file, first, last = map(int, re.findall(r"\d+", name))
        about = json.loads(parquet.read_schema(folder / name).metadata[b"miniml"])
        ids = parquet.read_table(folder / name).column("id").to_pylist()
        assert file == 0
        assert ids == [row["id"] for row in rows[first : last + 1]]
        assert (about["input"], about["first_row"], about["rows"]) == (str(source), first, len(ids))
        assert about["package_digest"] == manifest["package_digest"] == digest
        assert (entry["sha256"], entry["rows"]) == (file_sha256(folder / name), len(ids))
    assert manifest["rows"] == len(rows)


def write(path: Path, rows: Rows) -> Path:
    """*rows* in the format that the name says."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        if kind == "jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        elif kind == "txt":
            file.writelines(row["text"].replace("\n", " ") + "\r\n" for row in rows)
        elif kind == "tsv":
            file.write("id\ttext\tstars\n")
            lines = ([str(value).replace("\n", " ") for value in row.values()] for row in rows)
            file.writelines("\t".join(line) + "\n" for line in lines)
        else:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


ODD = '\ufeffgood "soup", warm\nand cold\u2028✓'


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.txt", "b.jsonl.gz", "b.csv.gz"])
def test_pieces_hold_every_row_once(rows: Rows, tmp_path: Path, name: str) -> None:
    """Text is cut between rows only: quotes, newlines in fields and odd characters stay what they are."""
    given = [dict(row) for row in rows[:350]]
    given[99]["text"] = given[100]["text"] = given[349]["text"] = ODD
    path = write(tmp_path / name, given)
    asked = AnswerOptions(text_column="text", part_rows=100)
    (file,) = survey(find_inputs([str(path)]), asked, told=lambda _: None)
    job = OfflineJob(package="p", digest="d", asked=asked, inputs=(file,))
    blocks = [read_block(file, piece, asked) for piece in job.pieces()]
    found = pa.concat_tables([block.table for block in blocks]).to_pylist()
    kind = name.removesuffix(".gz").rpartition(".")[2]
    if kind in ("txt", "tsv"):  # a row a line
        given = [{**row, "text": row["text"].replace("\n", " ")} for row in given]
    if kind in ("csv", "tsv"):  # where all is text
        given = [{name: str(value) for name, value in row.items()} for row in given]

    assert [block.table.num_rows for block in blocks] == [100, 100, 100, 50]
    assert [text for block in blocks for text in block.texts] == [row["text"] for row in given]
    assert found == ([{"text": row["text"]} for row in given] if kind == "txt" else given)
    assert parse_job(job.to_bytes(), "out") == job


def test_what_json_values_become(tmp_path: Path) -> None:
    """Numbers, truths and texts keep their type; what is nested or mixed is JSON; what is missing, null."""
    given = [
        {"text": "a", "n": 1, "x": 1, "ok": True, "deep": {"a": [1]}, "any": "s", "none": None},
        {"text": "b", "n": -2, "x": 0.5, "ok": None, "any": 2**70},
    ]
    path = write(tmp_path / "a.jsonl", given)
    asked = AnswerOptions(text_column="text")
    (file,) = survey(find_inputs([str(path)]), asked, told=lambda _: None)
    (piece,) = OfflineJob(package="p", digest="d", asked=asked, inputs=(file,)).pieces()
    first, second = read_block(file, piece, asked).table.to_pylist()

    assert first == {**given[0], "deep": '{"a":[1]}', "any": '"s"', "x": 1.0}
    assert second == {**given[1], "deep": None, "any": str(2**70), "none": None}


def test_inputs_come_in_order(tmp_path: Path) -> None:
    """As they are named; those of a folder or a pattern by their names, hidden ones left out."""
    for name in ("b.jsonl", "a.txt", "_hidden.jsonl", ".hidden.txt"):
        (tmp_path / name).write_text('{"text": "good"}\n')
    a, b = str(tmp_path / "a.txt"), str(tmp_path / "b.jsonl")

    assert list(find_inputs([str(tmp_path)])) == [a, b]
    assert list(find_inputs([b, f"{tmp_path}/[ab].*"])) == [b, a]


def test_chosen_columns_and_names(run: Run, table: Read, tmp_path: Path) -> None:
    """Only the columns that were named go along, and the answer's may have names of their own."""
    path = write(tmp_path / "a.jsonl", [{"text": "good", "id": 7, "label": "y"}])
    run(path, columns=("id",), prefix="predicted_")
    run(path, columns=("-",), output=str(tmp_path / "bare"))

    assert table(tmp_path / "out").column_names == ["id", "predicted_label", "predicted_score"]
    assert table(tmp_path / "bare").column_names == ["label", "score"]


def kill_workers() -> None:
    """With SIGKILL, all that Ray has for us."""
    for process in psutil.Process().children(recursive=True):
        if "MapWorker" in " ".join(process.cmdline()):
            process.kill()


def test_a_run_goes_on_where_it_was_killed(  # noqa: PLR0913, PLR0917 - fixtures
    run_on_ray: Run,
    source: Path,
    rows: Rows,
    table: Read,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker by kill -9, and then the run itself: the next one does what is missing, no row twice."""
    heard: list[WorkerUpdate] = []

    def killed(*given: Any, **options: Any) -> Generator[WorkerUpdate]:
        for told in work(*given, **options):
            heard.append(told)
            states = [each.state for each in heard]
            if states.count("going on") == 1 == len(heard) - states.count("ready"):
                kill_workers()
            if states.count("written") > 3:
                raise KeyboardInterrupt
            yield told

    monkeypatch.setattr("serving.offline.run.work", killed)
    with pytest.raises(KeyboardInterrupt):
        run_on_ray(source)
    monkeypatch.setattr("serving.offline.run.work", work)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    result = run_on_ray(source)

    assert 4 <= len(before) < 7
    assert result.new_rows == len(rows) - 100 * len(before)
    assert table(tmp_path / "out").column("id").to_pylist() == [row["id"] for row in rows]
    for name, written_ns in before.items():
        assert (tmp_path / "out" / name).stat().st_mtime_ns == written_ns
    assert run_on_ray(source).new_rows == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scores": True}, "--scores False, not True"),
        ({"columns": ("id",)}, "--columns unset, not id"),
        ({"part_rows": 50}, "--part-rows 20000, not 50"),
        ({"package": None}, "with package"),
    ],
    ids=str,
)
def test_another_run_is_refused(  # noqa: PLR0913, PLR0917 - fixtures
    run: Run,
    make_package: MakePackage,
    tmp_path: Path,
    rows: Rows,
    change: dict[str, Any],
    words: str,
) -> None:
    """Other options or another package than the folder was begun with: one sentence, nothing done."""
    path = write(tmp_path / "a.jsonl", rows[:150])
    run(path)
    if "package" in change:
        change = {"package": str(make_package(seed=1).folder)}

    with pytest.raises(OtherRun, match=words):
        run(path, **change)


def test_changed_inputs_are_refused(run: Run, tmp_path: Path, rows: Rows) -> None:
    """A file that was changed, one more and one less; and a folder that holds something else."""
    path = write(tmp_path / "a.jsonl", rows[:10])
    run(path)
    more = write(tmp_path / "b.jsonl", rows[:10])
    with pytest.raises(OtherRun, match="without the input"):
        run(path, more)
    with pytest.raises(OtherRun, match=r"with the input .*a\.jsonl, too"):
        run(more)
    write(path, rows[:11])
    with pytest.raises(OtherRun, match=r"when .*a\.jsonl was another file"):
        run(path)

    with pytest.raises(OtherRun, match="holds other files"):
        run(path, output=str(tmp_path))


def test_a_bad_row_ends_the_run_or_has_no_answer(
    run: Run, tmp_path: Path, rows: Rows, table: Read
) -> None:
    """The message names file and row; with `null` every row is there, and says what was wrong."""
    given: list[Any] = [dict(row) for row in rows[:250]]
    given[120]["text"], given[130]["text"], given[140]["text"] = None, "  ", 5
    path = write(tmp_path / "a.jsonl", given)
    with pytest.raises(OfflineError, match=r"a\.jsonl, row 120 \(from 0\) has no text"):
        run(path)
    result = run(path, on_bad_row="null")
    found = table(tmp_path / "out").to_pylist()

    assert result.bad_rows == 3
    assert [row["id"] for row in found] == [row["id"] for row in given]
    bad = {row["id"]: row["error"] for row in found if row.get("error")}
    assert bad == {120: "has no text", 130: "has an empty text", 140: "has a text that is no text"}
    assert [row["id"] for row in found if row["label"] is None] == [120, 130, 140]
    with pytest.raises(OtherRun, match="--on-bad-row null, not fail"):
        run(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.txt", None, "There is no file"),
        ("a.pdf", b"x", r"none of \.parquet"),
        ("a.parquet", b"x", "not a Parquet file"),
        ("a.csv", b"id,words\n1,good\n", "no column 'text'; there are: id, words"),
        ("a.csv", b"id,text\n1,good,bad\n", "3 fields, not 2"),
        ("a.csv", b'id,text\n1,"good\n', "mend its quotes"),
        ("a.csv", b"id,id\n1,good\n", "the column 'id' twice"),
        ("a.txt", b"caf\xe9\n", "not UTF-8"),
        ("a.jsonl", b'{"text": "a"}\n{', r"row 1 \(from 0\) is not JSON"),
        ("a.jsonl", b'{"text": "a", "label": 1}\n', "--prefix"),
        ("a.jsonl.gz", b"x", "cannot be read"),
        ("a.txt", b"", "no row"),
    ],
)
def test_unreadable_input_is_one_sentence(
    run: Run, tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    """Before anything is computed, with the place and the way out; nothing is written."""
    if content is not None:
        (tmp_path / name).write_bytes(content)

    with pytest.raises(ServingError) as told:
        run(tmp_path / name)
    assert re.search(words, f"{told.value} {told.value.hint}")
    assert not (tmp_path / "out").exists()


def test_pairs_and_several_labels(
    run: Run, make_package: MakePackage, tmp_path: Path, table: Read, rows: Rows
) -> None:
    """A model that compares two wants their column; several labels come as the endpoint says them."""
    package = make_package(task="multi_label", text_pair=True)
    given = [{"text": row["text"], "other": "the soup was warm"} for row in rows[:20]]
    path = write(tmp_path / "a.jsonl", given)
    with pytest.raises(OfflineError, match="--text-pair-column"):
        run(path, package=str(package.folder))
    run(path, package=str(package.folder), text_pair_column="other")
    found = table(tmp_path / "out").to_pylist()
    texts, pairs = [row["text"] for row in given], [row["other"] for row in given]
    expected = list(Engine(package).predict(texts, pairs))

    assert [(row["label"], row["score"]) for row in found] == [(p.label, p.score) for p in expected]
    assert [tuple((e["label"], e["score"]) for e in row["labels"]) for row in found] == [
        p.labels for p in expected
    ]


def test_a_file_that_changes_meanwhile_is_noticed(
    run: Run, tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the plan and the reading: refused, since rows would be others."""
    path = write(tmp_path / "a.jsonl", rows[:10])

    def late(*given: Any, **options: Any) -> Generator[WorkerUpdate]:
        write(path, rows[:9])
        yield from work_here(*given, **options)

    monkeypatch.setattr("serving.offline.run.work_here", late)
    with pytest.raises(OfflineError, match="was changed after the run began"):
        run(path)


def test_from_s3_to_s3(run: Run, bucket: Any, rows: Rows, tmp_path: Path) -> None:
    """A pattern of objects in, a part and a manifest out; a second run finds it there."""
    bucket.put_file(str(write(tmp_path / "a.csv.gz", rows)), "rows/in/a.csv.gz")
    result = run("s3://rows/in/*.gz", output="s3://rows/out/answers/")
    again = run("s3://rows/in/*.gz", output="s3://rows/out/answers")
    names = sorted(Path(name).name for name in bucket.ls("rows/out/answers"))
    with bucket.open(f"rows/out/answers/{names[1]}") as file:
        found = parquet.read_table(file)

    assert names == ["manifest.json", "part-00000-0000000000-0000000699.parquet", "run.json"]
    assert (result.new_rows, again.new_rows) == (len(rows), 0)
    assert found.column("id").to_pylist() == [str(row["id"]) for row in rows]


def test_no_s3_is_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that does not answer."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")

    with pytest.raises(UnreadableInput, match=r"cannot be reached|cannot be read"):
        run("s3://rows/in/*")
