"""The HTTP contract as a page: the OpenAPI document that a server would show, without a server."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from registry.artifact import Manifest
from serving.core import Core
from serving.lanes import Lanes
from serving.package import GOLDEN, CostGrid, Package, PackageConfig
from serving.protocols.desk import Desk
from serving.protocols.documentation import build_documentation
from serving.protocols.inference import version_of
from serving.protocols.replicas import Replicas
from serving.protocols.rollout_door import Rollouts, add_rollout
from serving.settings import ServeSettings

Json = dict[str, Any]
NAME, VERSION = "NAME", "VERSION"


def document() -> Json:
    """Every path and type; NAME and VERSION stand where a model's would."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / GOLDEN).touch()
        package = _package(Path(folder))
        # Only who is asked needs a core, replicas and a desk; nobody will be.
        core = cast("Core", SimpleNamespace(package=package, lanes=Lanes(count=1, threads=1)))
        nobody = SimpleNamespace()
        app = build_documentation(core, cast("Replicas", nobody), cast("Desk", nobody), models=list)
        add_rollout(app, cast("Rollouts", nobody), ServeSettings(package=NAME))
        told = json.dumps(app.openapi()).replace(version_of(package), VERSION)
    found: Json = json.loads(told)
    return found


def page() -> str:
    """Markdown: each path with what it takes and gives, then each type with its fields."""
    contract = document()
    paths = [
        part
        for path, methods in contract["paths"].items()
        for method, operation in methods.items()
        for part in _operation(f"{method.upper()} {path}", operation)
    ]
    types = [
        part
        for name, schema in contract["components"]["schemas"].items()
        for part in _fields(name, schema)
    ]
    return "\n".join(["## Paths\n", *paths, "## Types\n", *types])


def shown(schema: Json) -> str:
    """A type in words, with links to those that have a name."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(map(shown, choices)))
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"list of {shown(schema['items'])}" if schema.get("items") else "list"
    if kind == "object" and isinstance(values := schema.get("additionalProperties"), dict):
        return f"object of {shown(values)}" if values else "object"
    return str(kind)


def _package(folder: Path) -> Package:
    config = PackageConfig(
        name=NAME,
        task="single_label",
        text_pair=False,
        labels=("A", "B"),
        max_length=256,
        pad_token_id=0,
        inputs=("input_ids", "attention_mask"),
        precision="fp32",
        batch_invariant=True,
        base_model=NAME,
    )
    cost = CostGrid(batches=(1,), lengths=(8,), ms=((1.0,),), threads=1, machine="")
    manifest = Manifest(kind="package", files={}, lineage={})
    return Package(folder=folder, manifest=manifest, config=config, cost=cost)


def _operation(title: str, operation: Json) -> Iterator[str]:
    yield f"### {title}\n\n{operation['summary']}.\n"
    rows = [
        f"| header `{one['name']}` | {shown(one['schema'])} | {one.get('description', '')} |"
        for one in operation.get("parameters", ())
    ]
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        rows.append(f"| body, `{media}` | {shown(content['schema'])} | |")
    refusals = []
    for status, answer in operation["responses"].items():
        if int(status) >= 400:  # noqa: PLR2004 - where HTTP's refusals begin
            refusals.append(status)
            continue
        for media, content in answer.get("content", {"": {}}).items():
            kind = shown(content["schema"]) if content.get("schema") else ""
            rows.append(f"| {status}{f', `{media}`' if media else ''} | {kind} | |")
    if refusals:
        rows.append(f"| {', '.join(refusals)} | [ErrorBody](#errorbody) | |")
    yield "\n".join(["| part | type | meaning |", "|---|---|---|", *rows]) + "\n"


def _fields(name: str, schema: Json) -> Iterator[str]:
    told = " ".join(schema.get("description", "").split())
    yield f"### {name}\n\n{told}\n"
    if fields := schema.get("properties"):
        needed = schema.get("required", ())
        rows = [
            f"| `{field}` | {shown(kind)} | {_default(field, kind, needed)} |"
            for field, kind in fields.items()
        ]
        yield "\n".join(["| field | type | default |", "|---|---|---|", *rows]) + "\n"


def _default(field: str, schema: Json, needed: list[str]) -> str:
    if field in needed:
        return "required"
    return f"`{json.dumps(schema['default'])}`" if "default" in schema else ""
