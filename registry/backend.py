"""Runs, registered models and their tags in MLflow, as versions of ours.

A version counts only when it is sealed, which is the last tag written; everything here that lists
versions steps over the others. Numbers are MLflow's: given once, never again, even after a removal.
Embedded, bytes lie in a folder for each run below `artifact_root()`; a server says where it wants
them.
"""

from __future__ import annotations

import posixpath
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from registry.artifact import Kind, Manifest
from registry.connection import (
    artifact_root,
    create_embedded,
    embedded_uri,
    exclusive,
    open_client,
    server_uri,
    store_exists,
    translated,
    unless_there_already,
    until_not_beaten,
)
from registry.errors import NotFound, StoreUnavailable
from registry.reference import registered_name
from registry.tags import KIND, METRICS, NAME, SEALED, is_sealed, metrics_tag, to_tags, to_version
from registry.transfer import local_path
from registry.version import Version, newest_first

EXPERIMENT = "miniml"
_PAGE = 1000
_PARAMS_A_CALL, _METRICS_A_CALL = 100, 1000  # what MLflow takes in one request
_PARAM_CHARS, _KEY_CHARS = 6000, 250  # the same
_NOT_IN_A_KEY = re.compile(r"[^\w.\-: /]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One MLflow run; artifact_uri is where its files go."""

    run_id: str
    artifact_uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """An open MLflow. root: the embedded artifact folder; None when a server holds the bytes."""

    client: Any
    uri: str
    root: Path | None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Errors translated; embedded, one writer at a time, as SQLite has no queue for them."""
        lock = nullcontext() if self.root is None else exclusive()
        with translated(self.uri), lock:
            yield

    def start_run(self, *, name: str, recipe: str, manifest: Manifest) -> Run:
        """A run whose tags say what is about to be published."""
        with self.writing():
            run = self.client.create_run(
                self._experiment_id(),
                run_name=f"{manifest.kind} {name}",
                tags=to_tags(name=name, recipe=recipe, manifest=manifest),
            )
        return Run(run_id=run.info.run_id, artifact_uri=run.info.artifact_uri)

    def log(
        self,
        run: Run,
        *,
        params: Mapping[str, object],
        metrics: Mapping[str, float],
        curves: Sequence[tuple[str, int, float]],
    ) -> None:
        """Params, closing metrics, and curves of (metric, step, value)."""
        from mlflow.entities import Metric, Param

        now_ms = int(time.time() * 1000)
        pairs = [Param(_key(key), str(value)[:_PARAM_CHARS]) for key, value in params.items()]
        last = max((step for _, step, _ in curves), default=0)  # MLflow shows the highest step
        points = [*curves, *((key, last, value) for key, value in metrics.items())]
        values = [Metric(_key(key), float(value), now_ms, step) for key, step, value in points]
        with self.writing():
            for start in range(0, len(pairs), _PARAMS_A_CALL):
                self.client.log_batch(run.run_id, params=pairs[start : start + _PARAMS_A_CALL])
            for start in range(0, len(values), _METRICS_A_CALL):
                self.client.log_batch(run.run_id, metrics=values[start : start + _METRICS_A_CALL])

    def end_run(self, run: Run, *, status: str) -> None:
        """Close the run as FINISHED or FAILED."""
        with self.writing():
            self.client.set_terminated(run.run_id, status=status)

    def register(
        self,
        run: Run,
        *,
        name: str,
        recipe: str,
        manifest: Manifest,
        metrics: Mapping[str, float],
    ) -> int:
        """The number of a new version whose bytes are all in the run's folder; sealed last."""
        tags = to_tags(name=name, recipe=recipe, manifest=manifest)
        tags[METRICS] = metrics_tag(metrics)
        registered = registered_name(manifest.kind, name)
        with self.writing():
            self._create_registered(registered)
            created = until_not_beaten(
                lambda: self.client.create_model_version(
                    registered,
                    source=f"{run.artifact_uri}/{manifest.kind}",
                    run_id=run.run_id,
                    tags=tags,
                    await_creation_for=0,
                )
            )
            self.client.set_model_version_tag(
                registered, str(created.version), SEALED, manifest.digest
            )
        return int(created.version)

    def upload(self, run: Run, folder: Path, manifest: Manifest) -> None:
        """Bring a sealed folder to a server that takes artifacts itself, and count what arrived."""
        with translated(self.uri):
            self.client.log_artifacts(run.run_id, str(folder), manifest.kind)
            arrived = dict(self._sizes(run.run_id, manifest.kind))
        for name, entry in manifest.files.items():
            if arrived.get(f"{manifest.kind}/{name}") != entry.bytes:
                raise StoreUnavailable(f"{name} did not arrive whole at {self.uri}; publish again.")

    def download(self, version: Version, folder: Path) -> Path:
        """The artifact of a version on the server, below *folder*; nothing is verified here."""
        with translated(self.uri):
            return Path(self.client.download_artifacts(version.run_id, version.kind, str(folder)))

    def _sizes(self, run_id: str, path: str) -> Iterator[tuple[str, int]]:
        for entry in self.client.list_artifacts(run_id, path):
            if entry.is_dir:
                yield from self._sizes(run_id, entry.path)
            else:
                yield entry.path, entry.file_size

    def set_alias(self, version: Version, alias: str) -> Version:
        """*version* with *alias*, which points at no other of the name any more."""
        with self.writing():
            registered = registered_name(version.kind, version.name)
            number = str(version.number)
            until_not_beaten(
                lambda: self.client.set_registered_model_alias(registered, alias, number)
            )
        return replace(version, aliases=tuple(sorted({*version.aliases, alias})))

    def remove(self, registered: str, number: int, run_id: str) -> None:
        """Forget a version and its run, inside `writing`; MLflow never gives the number again."""
        self.client.delete_model_version(registered, str(number))
        with suppress(NotFound), translated(self.uri):  # the run may be gone already
            self.client.delete_run(run_id)

    def versions(self, *, kind: Kind | None = None, name: str | None = None) -> list[Version]:
        """Sealed versions, newest first."""
        with translated(self.uri):
            aliases = self._aliases()
            found = [
                self._version(raw, aliases.get(raw.name, {}))
                for raw in self._search(kind=kind, name=name)
                if is_sealed(raw)
            ]
        return newest_first(found)

    def version(self, *, kind: Kind, name: str, number: int) -> Version | None:
        """That sealed version, or None."""
        registered = registered_name(kind, name)
        try:
            with translated(self.uri):
                raw = self.client.get_model_version(registered, str(number))
                aliases = self.client.get_registered_model(registered).aliases
        except NotFound:
            return None
        return self._version(raw, aliases) if is_sealed(raw) else None

    def unsealed(self) -> list[Any]:
        """MLflow's records of versions whose publisher died between two lines, or is at work."""
        with translated(self.uri):
            return [raw for raw in self._search() if not is_sealed(raw)]

    def _search(self, *, kind: Kind | None = None, name: str | None = None) -> Iterator[Any]:
        clauses = [f"tags.`{KIND}` = '{kind}'" if kind else f"tags.`{KIND}` != ''"]
        if name is not None:
            clauses.append(f"tags.`{NAME}` = '{name}'")
        token = None
        while True:
            page = self.client.search_model_versions(
                " and ".join(clauses), max_results=_PAGE, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _aliases(self) -> dict[str, Mapping[str, str]]:
        """Registered name -> alias -> number. A search for versions does not tell them."""
        found: dict[str, Mapping[str, str]] = {}
        token = None
        while True:
            page = self.client.search_registered_models(max_results=_PAGE, page_token=token)
            found |= {model.name: model.aliases for model in page}
            token = page.token
            if not token:
                return found

    def _version(self, raw: Any, aliases: Mapping[str, str]) -> Version:
        if self.root is None:
            return to_version(raw, aliases=aliases, uri=raw.source)
        # Not the place as recorded, for the whole home may have been moved. What was published over
        # HTTP, while `registry.ui` served this store, lies where that server puts it.
        served = urlsplit(raw.source)
        proxied = served.path.lstrip("/") if served.scheme == "mlflow-artifacts" else None
        place = proxied or f"{raw.run_id}/artifacts/{raw.tags[KIND]}"
        return to_version(raw, aliases=aliases, uri=str(self.root / place))

    def _experiment_id(self) -> str:
        """The experiment of all our runs, whose folder is one that this process may write to.

        An experiment keeps the place it was made with. When that is no longer ours, because the
        embedded home was moved or a server serves somebody's embedded store, another one is used.
        """
        location = self.root.as_uri() if self.root else None
        experiment = self._experiment(EXPERIMENT, location)
        if self.root and experiment.artifact_location != location:
            experiment = self._experiment(f"{EXPERIMENT} {self.root}", location)
        elif self.uri.startswith("http") and local_path(experiment.artifact_location):
            experiment = self._experiment(f"{EXPERIMENT} served", location)
        return str(experiment.experiment_id)

    def _experiment(self, name: str, location: str | None) -> Any:
        if (found := self.client.get_experiment_by_name(name)) is None:
            with unless_there_already():
                self.client.create_experiment(name, artifact_location=location)
            found = self.client.get_experiment_by_name(name)
        return found

    def _create_registered(self, registered: str) -> None:
        with unless_there_already():
            self.client.create_registered_model(registered)


def connect() -> Backend:
    """The store, made when it is the embedded one and not there yet. Raises `StoreUnavailable`."""
    uri = server_uri()
    if uri is None:
        create_embedded()
        return Backend(client=open_client(), uri=embedded_uri(), root=artifact_root())
    return Backend(client=open_client(), uri=uri, root=None)


def connect_to_read() -> Backend | None:
    """The store, or None where nothing was ever published; then MLflow is not even imported."""
    return connect() if store_exists() else None


def _key(text: str) -> str:
    """*text* as MLflow takes it for a metric or a param: a label may hold any character."""
    clean = _NOT_IN_A_KEY.sub("_", text)[:_KEY_CHARS]
    return posixpath.normpath(f"/{clean}").lstrip("/") or "_"  # it must read as a relative path
