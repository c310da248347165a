"""Small sealed folders, a store that is ready, and publishers in processes of their own."""

from __future__ import annotations

import multiprocessing
import runpy
import shutil
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from registry.artifact import Kind, staged
from registry.connection import create_embedded

_WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture
def make_artifact(tmp_path: Path) -> Callable[..., Path]:
    """Small artifacts; each has other bytes unless `files` says which."""
    made = 0

    def make(
        kind: Kind = "package",
        *,
        lineage: Mapping[str, str] | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> Path:
        nonlocal made
        made += 1
        target = tmp_path / f"made-{made}"
        content = files or {"config.json": b"{}", "deep/model.bin": f"weights {made}".encode()}
        with staged(target, kind=kind, lineage=lineage or {}) as folder:
            for name, data in content.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
        return target

    return make


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database as `create_embedded` makes it, made once: MLflow takes seconds for it."""
    folder = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MINIML_HOME", str(folder))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        create_embedded()
    return folder / "registry" / "mlflow.db"


@pytest.fixture
def store_home(miniml_home: Path, empty_database: Path) -> Path:
    """This test's home, with an embedded store in it that holds nothing yet."""
    (miniml_home / "registry").mkdir()
    shutil.copyfile(empty_database, miniml_home / "registry" / "mlflow.db")
    return miniml_home


@pytest.fixture
def start_publisher(miniml_home: Path) -> Iterator[Callable[..., BaseProcess]]:
    """Publishers forked from a clean server process that has MLflow imported already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow.store.tracking.sqlalchemy_store", "registry.store"])
    started = []

    def start(**options: Any) -> BaseProcess:
        process = context.Process(
            target=runpy.run_path,
            args=(str(_WORKER),),
            kwargs={"init_globals": {"options": {"home": str(miniml_home), **options}}},
        )
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()
