"""Runs, registered models and their tags in MLflow, as versions of ours.

A version counts only when it is sealed, which is the last tag written; everything here that lists
versions steps over the others. Numbers are MLflow's: given once, never again, even after a removal.
Embedded, bytes lie in a folder for each run below `artifact_root()`; a server says where it wants
them.
"""

from __future__ import annotations

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
    served_root,
    server_uri,
    store_exists,
    translated,
    unless_there_already,
    until_not_beaten,
)
from registry.errors import NotFound, StoreUnavailable
from registry.reference import registered_name
from registry.tags import (
    KIND,
    METRICS,
    NAME,
    SEALED,
    is_sealed,
    metrics_tag,
    to_key,
    to_tags,
    to_version,
)
from registry.transfer import local_path
from registry.version import Version, newest_first

EXPERIMENT = "miniml"
PROXIED = "mlflow-artifacts:"  # an artifact URI whose bytes pass through the server
_PAGE = 1000
_PARAMS_A_CALL, _METRICS_A_CALL = 100, 1000  # what MLflow takes in one request
_PARAM_CHARS = 6000  # the same


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
        if self.root is not None and local_path(served_root()) is None:
            raise StoreUnavailable(
                f"This home is a hub's, whose bytes lie at {served_root()}; "
                "publish through it (MLFLOW_TRACKING_URI)."
            )
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
        pairs = [Param(to_key(key), str(value)[:_PARAM_CHARS]) for key, value in params.items()]
        last = max((step for _, step, _ in curves), default=0)  # MLflow shows the highest step
        points = [*curves, *((key, last, value) for key, value in metrics.items())]
        values = [Metric(to_key(key), float(value), now_ms, step) for key, step, value in points]
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
        self.remove_run(run_id)

    def remove_run(self, run_id: str) -> None:
        """Forget a run, which may be gone already."""
        with suppress(NotFound), translated(self.uri):
            self.client.delete_run(run_id)

    def runs(self, *, before_ms: float) -> Iterator[Run]:
        """Runs of publishers begun before then, whatever came of them."""
        experiments = self.client.search_experiments(filter_string=f"name LIKE '{EXPERIMENT}%'")
        begun = f"tags.`{KIND}` != '' and attributes.start_time < {before_ms:.0f}"
        where = [experiment.experiment_id for experiment in experiments]
        token = None
        while where:
            page = self.client.search_runs(where, begun, max_results=_PAGE, page_token=token)
            for raw in page:
                place = self.place(raw.info.artifact_uri, raw.info.run_id)
                yield Run(run_id=raw.info.run_id, artifact_uri=place)
            if not (token := page.token):
                return

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
        run_place, _, kind = raw.source.rpartition("/")
        return to_version(raw, aliases=aliases, uri=f"{self.place(run_place, raw.run_id)}/{kind}")

    def place(self, artifact_uri: str, run_id: str) -> str:
        """Where the bytes of a run lie, as this process reaches them.

        Embedded, not as it was recorded, for the whole home may have been moved. What was published
        over HTTP, while `registry.hub` served this store, lies where the hub puts it. The other way
        round, what was published beside a hub is found through it: its proxy begins at our root.
        """
        if self.root is None:
            recorded = local_path(artifact_uri)
            elsewhere = recorded is not None and not recorded.is_dir()
            beside = elsewhere and self.uri.startswith("http")
            return f"{PROXIED}/{run_id}/artifacts" if beside else artifact_uri
        if artifact_uri.startswith(PROXIED):
            return f"{served_root()}/{urlsplit(artifact_uri).path.lstrip('/')}"
        return str(self.root / run_id / "artifacts")

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
