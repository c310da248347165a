"""Laws of the embedded store: publish, fetch, find, verify, lineage."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from rich.console import Console

from registry import store
from registry.artifact import verify
from registry.backend import connect
from registry.connection import translated
from registry.errors import BadReference, CorruptArtifact, StoreUnavailable

MakeArtifact = Callable[..., Path]


def shown(renderable: object) -> str:
    """What a person sees."""
    console = Console(width=200)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


@pytest.mark.usefixtures("store_home")
def test_what_is_published_comes_back(make_artifact: MakeArtifact) -> None:
    """Kind, lineage, digest, metrics, recipe and every byte are those of the publisher."""
    folder = make_artifact(lineage={"checkpoint": "reviews/1", "checkpoint_digest": "c" * 64})
    published = store.publish(
        folder,
        name="reviews",
        recipe="abc",
        params={"lr": 1e-3, "labels": ["1 star"] * 5000},
        metrics={"accuracy": 0.5, "f1/don't": 0.25, "never": float("nan")},
        curves=[("accuracy", step, step / 3000) for step in range(2500)],
        alias="champion",
    )

    assert published.reference == "reviews/1"
    assert published == store.resolve("reviews/1", kind="package")
    assert published.aliases == ("champion",)
    assert published.metrics == {"accuracy": 0.5, "f1/don't": 0.25}
    assert published.recipe == "abc"
    assert published.lineage == verify(folder).lineage
    assert store.fetch(published) != folder
    assert verify(store.fetch(published), kind="package") == verify(folder)
    assert json.loads(json.dumps(published.document()))["reference"] == "reviews/1"


@pytest.mark.usefixtures("store_home")
def test_one_publish_is_one_run(make_artifact: MakeArtifact) -> None:
    """MLflow has one run for it, finished, with params, whole curves, closing metrics and tags."""
    version = store.publish(
        make_artifact("dataset", lineage={"source": "rows.csv"}),
        name="reviews",
        params={"seed": 1},
        metrics={"rows": 7},
        curves=[("loss", step, 1.0) for step in range(1001)],
    )
    client = connect().client
    (experiment,) = client.search_experiments(filter_string="name = 'miniml'")
    (run,) = client.search_runs([experiment.experiment_id])

    assert run.info.run_id == version.run_id
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "1"}
    assert run.data.metrics["rows"] == 7
    assert len(client.get_metric_history(version.run_id, "loss")) == 1001
    assert run.data.tags["miniml.digest"] == version.digest
    assert run.data.tags["miniml.lineage.source"] == "rows.csv"
    assert client.get_model_version("reviews.dataset", "1").run_id == version.run_id


@pytest.mark.usefixtures("store_home")
def test_find_gives_the_newest_of_exactly_that_recipe(make_artifact: MakeArtifact) -> None:
    """Another recipe, kind or name is not found, nor an empty recipe, nor one without its bytes."""
    store.publish(make_artifact(), name="reviews", recipe="a")
    second = store.publish(make_artifact(), name="reviews", recipe="a")
    store.publish(make_artifact(), name="reviews", recipe="b")
    store.publish(make_artifact(), name="reviews")

    assert store.find(kind="package", name="reviews", recipe="a") == second
    assert store.find(kind="package", name="reviews", recipe="c") is None
    assert store.find(kind="package", name="reviews", recipe="") is None
    assert store.find(kind="dataset", name="reviews", recipe="a") is None
    assert store.find(kind="package", name="other", recipe="a") is None
    shutil.rmtree(second.uri)
    assert store.find(kind="package", name="reviews", recipe="a") == store.resolve(
        "reviews/1", kind="package"
    )


@pytest.mark.usefixtures("store_home")
def test_a_version_is_a_copy(make_artifact: MakeArtifact) -> None:
    """Changing or removing the folder afterwards does not touch what was published."""
    folder = make_artifact()
    version = store.publish(folder, name="reviews")
    (folder / "config.json").write_bytes(b"changed")
    with pytest.raises(CorruptArtifact, match=r"config\.json"):
        store.publish(folder, name="reviews")
    shutil.rmtree(folder)

    assert store.verify_version("reviews", kind="package") == version


@pytest.mark.usefixtures("store_home")
def test_damaged_bytes_are_never_handed_out(make_artifact: MakeArtifact) -> None:
    """A changed file, and another artifact in its place, are refused by fetch and verify."""
    version = store.publish(make_artifact(), name="reviews")
    place = Path(version.uri)
    (place / "deep" / "model.bin").write_bytes(b"poison")
    with pytest.raises(CorruptArtifact, match=r"deep/model\.bin"):
        store.fetch(version)
    with pytest.raises(CorruptArtifact, match=r"deep/model\.bin"):
        store.verify_version("reviews", kind="package")

    shutil.rmtree(place)
    shutil.copytree(make_artifact(), place)
    with pytest.raises(CorruptArtifact, match=version.digest[:12]):
        store.fetch(version)


@pytest.mark.usefixtures("store_home")
def test_a_store_survives_a_move(
    make_artifact: MakeArtifact, store_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the whole home was moved, old versions are found there and new ones go there."""
    before = store.publish(make_artifact(), name="reviews")
    moved = store_home.with_name("moved home")
    store_home.rename(moved)
    monkeypatch.setenv("MINIML_HOME", str(moved))
    after = store.publish(make_artifact(), name="reviews")

    assert store.fetch(store.resolve("reviews/1", kind="package")).is_relative_to(moved)
    assert store.verify_version("reviews/1", kind="package").digest == before.digest
    assert store.fetch(after).is_relative_to(moved)
    assert after.number == 2
    assert not store_home.exists()


@pytest.mark.usefixtures("store_home")
def test_bad_names_leave_no_trace(make_artifact: MakeArtifact, store_home: Path) -> None:
    """A name or alias that could not be referred to is refused before anything is written."""
    for name, alias in (("a/b", None), ("latest", None), ("fine", "v3")):
        with pytest.raises(BadReference):
            store.publish(make_artifact(), name=name, alias=alias)

    assert not (store_home / "registry" / "artifacts").exists()
    assert store.list_versions() == []


@pytest.mark.usefixtures("store_home")
def test_bytes_that_cannot_be_written_leave_no_version(
    make_artifact: MakeArtifact, store_home: Path
) -> None:
    """When the place refuses the bytes, the error tells it, the run failed, and nothing is left."""
    (store_home / "registry" / "artifacts").touch()  # no folder can be made below a file
    with pytest.raises(OSError, match="artifacts"):
        store.publish(make_artifact(), name="reviews")
    client = connect().client
    (run,) = client.search_runs([client.get_experiment_by_name("miniml").experiment_id])
    (store_home / "registry" / "artifacts").unlink()

    assert run.info.status == "FAILED"
    assert store.list_versions() == []
    assert store.publish(make_artifact(), name="reviews").number == 1


def test_a_full_disk_is_told_as_such() -> None:
    """SQLite's word for a full disk becomes the operating system's, which the front door knows."""
    with pytest.raises(OSError, match="mlflow") as caught, translated("mlflow.db"):
        raise MlflowException("(sqlite3.OperationalError) database or disk is full\n[SQL: ...]")

    assert caught.value.errno == errno.ENOSPC


def test_a_damaged_database_is_told_at_once(store_home: Path) -> None:
    """A file that is no database is refused in one sentence, without minutes of trying."""
    (store_home / "registry" / "mlflow.db").write_bytes(b"no database" * 1000)

    with pytest.raises(StoreUnavailable, match=r"mlflow\.db cannot be read"):
        store.list_versions()


def test_a_home_that_mlflow_cannot_name_is_refused(
    make_artifact: MakeArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that would be read as part of a URL is refused, not written to some other place."""
    monkeypatch.setenv("MINIML_HOME", str(tmp_path / "100%25"))

    with pytest.raises(StoreUnavailable, match="set MINIML_HOME"):
        store.publish(make_artifact(), name="reviews")


@pytest.mark.usefixtures("store_home")
def test_lineage_goes_back_to_the_rows(make_artifact: MakeArtifact) -> None:
    """From a package one gets to its checkpoint, its dataset, the base model and the source."""
    dataset = store.publish(
        make_artifact("dataset", lineage={"source": "rows [x].csv", "source_sha256": "5" * 64}),
        name="reviews",
    )
    store.publish(make_artifact("dataset"), name="reviews")
    trained_from = {
        "dataset": dataset.reference,
        "dataset_digest": dataset.digest,
        "base_model": "encoder",
        "base_model_sha256": "b" * 64,
    }
    checkpoint = store.publish(make_artifact("checkpoint", lineage=trained_from), name="stars")
    exported_from = {
        "checkpoint": checkpoint.reference,
        "checkpoint_digest": checkpoint.digest,
        **trained_from,
    }
    package = store.publish(make_artifact(lineage=exported_from), name="stars")
    orphan = store.publish(
        make_artifact(lineage=exported_from | {"checkpoint_digest": "0" * 64}), name="stars"
    )

    assert store.lineage(package) == [package, checkpoint, dataset]
    assert store.lineage(orphan) == [orphan, dataset]
    tree = shown(store.lineage_tree(package))
    parts = ["package stars/1", "base model encoder", "dataset reviews/1", "source rows [x].csv"]
    assert [part for part in parts if part not in tree] == []
    assert tree.count("encoder") == 1
    assert "checkpoint stars/1  000000000000  not in this registry" in shown(
        store.lineage_tree(orphan)
    )
    assert "stars/2" in shown(store.versions_table(store.list_versions()))
