"""One Ray for all tests of offline prediction, one package, and files of rows that tell who they are."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from serving.offline.run import OfflineResult, predict_offline
from serving.offline.workers import connected
from serving.options import PredictOptions
from serving.package import Package

ROWS, PART_ROWS = 700, 100
WORDS = ("good", "bad", "soup", "staff", "cold", "warm", "not", "very", "the", "was", "and")
Run = Callable[..., OfflineResult]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, build: Callable[[Path], Package]) -> Package:
    """A package that outlives a test."""
    return build(tmp_path_factory.mktemp("offline-package") / "tiny")


@pytest.fixture(scope="session")
def ray() -> Iterator[Any]:
    """Ray on this machine, as `miniml predict --output` starts it, with one worker of one core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setattr("serving.offline.workers.usable_cores", lambda: 1)
        with connected(None):
            import ray

            yield ray


@pytest.fixture(scope="session")
def rows() -> list[dict[str, Any]]:
    """`id`, `text` and `stars`; some texts stand there twice."""
    draws = random.Random(0)
    texts = [" ".join(draws.choices(WORDS, k=draws.randint(1, 40))) for _ in range(ROWS - 50)]
    texts += texts[:50]
    return [{"id": i, "text": text, "stars": i % 5} for i, text in enumerate(texts)]


@pytest.fixture
def source(tmp_path: Path, rows: list[Mapping[str, Any]]) -> Path:
    """The rows as Parquet, in row groups that no part agrees with."""
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=333)
    return path


@pytest.fixture
def run(tiny: Package, tmp_path: Path) -> Run:
    """`run(*inputs, ...options)`: predict into the folder `out`; one part is done without Ray."""

    def answer(*inputs: object, **options: Any) -> OfflineResult:
        given: dict[str, Any] = {
            "input": tuple(map(str, inputs)),
            "output": str(tmp_path / "out"),
            "package": str(tiny.folder),
        }
        return predict_offline(PredictOptions(**(given | options)))

    return answer


@pytest.fixture
def run_on_ray(ray: Any, run: Run) -> Run:
    """The same in parts of 100 rows, so that Ray does them."""
    del ray  # it runs
    return partial(run, part_rows=PART_ROWS)


@pytest.fixture(scope="session")
def table() -> Callable[[Path], pa.Table]:
    """All parts of a folder, in order."""

    def read(folder: Path) -> pa.Table:
        parts = sorted(folder.glob("part-*.parquet"))
        return pa.concat_tables([parquet.read_table(part) for part in parts])

    return read
