"""What the tests of deploy/ share: overlays as kustomize renders them, without kustomize."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
import yaml

Manifest = dict[str, Any]
K8S = Path(__file__).parent.parent.parent.parent / "deploy/k8s"
# What is understood of kustomize; a test compares with kubectl where there is one.
KNOWN = {"apiVersion", "kind", "resources", "components", "images", "patches", "configMapGenerator"}


def kustomized(folder: Path) -> list[Manifest]:
    """What `kubectl kustomize` prints, in another order."""
    return _applied(folder, [])


def _applied(folder: Path, found: list[Manifest]) -> list[Manifest]:
    """*found*, with what *folder* adds to it and changes of it."""
    told = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
    assert set(told) <= KNOWN, f"{folder} uses {set(told) - KNOWN}, which is not understood here"
    for name in told.get("resources", ()):
        place = folder / name
        found = found + (kustomized(place) if place.is_dir() else _documents(place))
    found += [_config_map(folder, each) for each in told.get("configMapGenerator", ())]
    for name in told.get("components", ()):
        found = _applied((folder / name).resolve(), found)
    for patch in told.get("patches", ()):
        found = _patched(found, **patch)
    for image in told.get("images", ()):
        found = [_with_image(each, **image) for each in found]
    return found


def _documents(path: Path) -> list[Manifest]:
    found = [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]
    # An alias is the very object of its anchor; a patch is to change one of them alone.
    unshared: list[Manifest] = json.loads(json.dumps(found))
    return unshared


def _config_map(folder: Path, told: Manifest) -> Manifest:
    options = told["options"]
    assert options["disableNameSuffixHash"], "hashes of names are not understood here"
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": told["name"],
            "namespace": told["namespace"],
            "labels": options["labels"],
        },
        "data": {name: (folder / name).read_text(encoding="utf-8") for name in told["files"]},
    }


def _patched(
    found: list[Manifest], *, patch: str, target: Manifest | None = None
) -> list[Manifest]:
    told = yaml.safe_load(patch)
    named = target or {"kind": told["kind"], "name": told["metadata"]["name"]}

    def meant(each: Manifest) -> bool:
        return (each["kind"], each["metadata"]["name"]) == (named["kind"], named["name"])

    assert any(map(meant, found)), f"nothing is {named}"
    if target is None:
        assert told["$patch"] == "delete", "of merges, only a deletion is understood here"
        return [each for each in found if not meant(each)]
    operations = jsonpatch.JsonPatch(told)
    return [operations.apply(each) if meant(each) else each for each in found]


def _with_image(value: Any, *, name: str, newName: str, newTag: str) -> Any:  # noqa: N803 - theirs
    if isinstance(value, list):
        return [_with_image(each, name=name, newName=newName, newTag=newTag) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: f"{newName}:{newTag}"
        if key == "image" and re.fullmatch(rf"{re.escape(name)}(:.*)?", str(each))
        else _with_image(each, name=name, newName=newName, newTag=newTag)
        for key, each in value.items()
    }


def pod_templates(value: Any) -> Iterator[Manifest]:
    """Every pod template inside a manifest, whatever makes pods of it."""
    if isinstance(value, dict):
        if isinstance(spec := value.get("spec"), dict) and "containers" in spec:
            yield value
        for each in value.values():
            yield from pod_templates(each)
    elif isinstance(value, list):
        for each in value:
            yield from pod_templates(each)


@pytest.fixture(scope="session")
def rendered() -> dict[str, list[Manifest]]:
    """Overlay -> its manifests."""
    names = sorted(path.name for path in (K8S / "overlays").iterdir())
    return {name: kustomized(K8S / "overlays" / name) for name in names}


@pytest.fixture(scope="session")
def templates_of() -> Callable[[Any], Iterator[Manifest]]:
    """Every pod template inside a manifest."""
    return pod_templates
