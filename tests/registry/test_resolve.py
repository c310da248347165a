"""Laws of the embedded store: resolve, alias, list."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from registry import store
from registry.backend import connect
from registry.errors import BadReference, CorruptArtifact, NotFound

MakeArtifact = Callable[..., Path]


@pytest.mark.usefixtures("store_home")
def test_every_reference_finds_its_version(make_artifact: MakeArtifact) -> None:
    """Number, alias, newest, MLflow's forms and the latest over all names agree."""
    first = store.publish(make_artifact(), name="reviews", alias="champion")
    second = store.publish(make_artifact(), name="reviews")
    other = store.publish(make_artifact(), name="other")
    store.publish(make_artifact("dataset"), name="reviews")

    for reference in ("reviews/1", "reviews@champion", "models:/reviews/1"):
        assert store.resolve(reference, kind="package") == first
    for reference in ("reviews", "reviews/2", "reviews@latest", "models:/reviews/latest"):
        assert store.resolve(reference, kind="package") == second
    assert store.resolve("latest", kind="package") == other
    assert store.resolve("models:/reviews.dataset/1", kind="dataset").kind == "dataset"
    assert [version.reference for version in store.list_versions(kind="package")] == [
        *("other/1", "reviews/2", "reviews/1")
    ]
    assert len(store.list_versions()) == 4
    assert len(store.list_versions(name="reviews")) == 3


@pytest.mark.usefixtures("store_home")
def test_a_folder_is_a_version_too(
    make_artifact: MakeArtifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sealed folder resolves to number 0 with its own digest, and is verified when fetched."""
    folder = make_artifact("dataset", lineage={"source": "x"})
    monkeypatch.chdir(folder.parent)
    version = store.resolve(f"./{folder.name}", kind="dataset")

    assert version == store.resolve(str(folder), kind="dataset")
    assert (version.number, version.name, version.reference) == (0, folder.name, str(folder))
    assert store.fetch(version) == folder
    with pytest.raises(CorruptArtifact, match="holds a dataset, but a package"):
        store.resolve(str(folder), kind="package")
    with pytest.raises(BadReference, match="never published"):
        store.set_alias(str(folder), "champion", kind="dataset")


@pytest.mark.usefixtures("store_home")
def test_what_is_not_there_is_told_with_what_is(
    make_artifact: MakeArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reference that finds nothing lists names, numbers or aliases that would."""
    store.publish(make_artifact(), name="reviews", alias="champion")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for reference, message in {
        "nope": "No package named 'nope'; there are: reviews.",
        "mine": "No package named 'mine'; there are: reviews. For the folder, write ./mine.",
        "reviews/9": "No package reviews/9; there are: reviews/1.",
        "reviews@prod": "No package reviews@prod; aliases of reviews are: champion, latest.",
        "./nope": f"{tmp_path}/nope is not a folder.",
    }.items():
        with pytest.raises(NotFound) as caught:
            store.resolve(reference, kind="package")
        assert str(caught.value) == message
    with pytest.raises(NotFound, match="No dataset named 'reviews'; there are: none"):
        store.resolve("reviews", kind="dataset")
    with pytest.raises(BadReference, match="names a dataset, but a package"):
        store.resolve("models:/reviews.dataset/1", kind="package")


def test_an_empty_home_is_read_without_mlflow(miniml_home: Path) -> None:
    """Where nothing was published there is nothing to find, at once, and nothing is created."""
    code = (
        "import sys; from registry import store; assert store.list_versions() == []\n"
        "assert store.find(kind='package', name='x', recipe='r') is None\n"
        "try: store.resolve('x', kind='package')\n"
        "except store.NotFound as error: print(error)\n"
        "assert 'mlflow' not in sys.modules"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert result.stdout == "No package is published yet, so there is no x.\n", result.stderr
    assert list(miniml_home.iterdir()) == []


@pytest.mark.usefixtures("store_home")
def test_an_alias_points_at_one_version(make_artifact: MakeArtifact) -> None:
    """Setting an alias moves it; the other aliases and the versions stay as they are."""
    first = store.publish(make_artifact(), name="reviews", alias="champion")
    second = store.publish(make_artifact(), name="reviews", alias="shadow")
    moved = store.set_alias("reviews/2", "champion", kind="package")

    assert moved == replace(second, aliases=("champion", "shadow"))
    assert store.resolve("reviews@champion", kind="package") == moved
    assert store.resolve("reviews/1", kind="package") == replace(first, aliases=())


@pytest.mark.usefixtures("store_home")
def test_without_its_seal_a_version_does_not_exist(make_artifact: MakeArtifact) -> None:
    """By number, alias, name, recipe or list: what was not finished is not there."""
    store.publish(make_artifact(), name="reviews", recipe="same", alias="champion")
    store.publish(make_artifact(), name="reviews", recipe="same")
    client = connect().client
    client.set_registered_model_alias("reviews", "broken", "2")
    client.delete_model_version_tag("reviews", "2", "miniml.sealed")

    assert store.resolve("reviews", kind="package").number == 1
    assert store.resolve("latest", kind="package").number == 1
    assert [version.number for version in store.list_versions()] == [1]
    found = store.find(kind="package", name="reviews", recipe="same")
    assert found is not None
    assert found.number == 1
    for reference in ("reviews/2", "reviews@broken"):
        with pytest.raises(NotFound):
            store.resolve(reference, kind="package")
    assert store.publish(make_artifact(), name="reviews").number == 3
