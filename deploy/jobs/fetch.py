"""`miniml job fetch`: what the job before made, where the next one will look for it.

On GitHub it is the artifact of the newest run of that job's workflow that succeeded on the branch,
so that nobody must name a run; where a tracking server is named, or elsewhere, the registry's newest
of the kind. Whatever comes is verified before it is there.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.errors import DeployError, NothingToTake
from deploy.options import ArtifactKind, FetchOptions
from registry import store
from registry.artifact import read_manifest, verify
from registry.transfer import copy_in

_log = logging.getLogger(__name__)
WORKFLOWS: dict[ArtifactKind, str] = {
    "dataset": "transform.yml",
    "checkpoint": "train.yml",
    "package": "deploy.yml",
}
_RUNS = 20  # an artifact may have expired while a newer run's is there
_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What was taken over. source: a run's page, or a version of the registry."""

    kind: ArtifactKind
    digest: str
    source: str
    folder: Path

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "kind": self.kind,
            "digest": self.digest,
            "source": self.source,
            "folder": str(self.folder),
        }

    def __rich__(self) -> str:
        """One sentence."""
        return f"{self.kind} {self.digest[:12]} of {self.source} is in {self.folder}"


def fetch_artifact(options: FetchOptions) -> Fetched:
    """Raises `NothingToTake`, `DeployError`, or a registry error."""
    output = options.output.absolute()
    if output.exists():
        raise DeployError(f"{output} is there already; remove it or choose another folder.")
    named = os.environ.get("MLFLOW_TRACKING_URI")
    on_github = os.environ.get("GITHUB_ACTIONS") == "true" and not named
    if on_github:
        with _staging(output) as folder:
            source = _from_github(options, folder)
            digest = verify(folder, kind=options.kind).digest
    else:
        version = store.resolve("latest", kind=options.kind)
        found = store.fetch(version)
        copy_in(found, output, read_manifest(found))
        source, digest = version.reference, version.digest
    return Fetched(kind=options.kind, digest=digest, source=source, folder=output)


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder beside *target*, which becomes it in the end; on an exception nothing is left."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield folder
        folder.chmod(0o755)
        folder.rename(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _from_github(options: FetchOptions, folder: Path) -> str:
    """Fill *folder* from the newest artifact, and return the page of the run that made it."""
    import httpx

    workflow = WORKFLOWS[options.kind]
    branch = options.branch or os.environ.get("GITHUB_REF_NAME", "main")
    with httpx.Client(
        base_url=f"{_told('GITHUB_API_URL')}/repos/{_told('GITHUB_REPOSITORY')}/actions",
        headers={
            "accept": "application/vnd.github+json",
            "authorization": f"Bearer {_told('GITHUB_TOKEN')}",
        },
        timeout=_TIMEOUT_S,
        follow_redirects=True,  # to where the bytes lie; httpx keeps the token from other hosts
    ) as client:
        try:
            for run in _runs(client, workflow, branch):
                for artifact in _artifacts(client, run["id"], options.kind):
                    if not artifact["expired"]:
                        _unpack(client, artifact, folder)
                        return str(run["html_url"])
        except httpx.HTTPError as error:
            raise DeployError(f"GitHub did not answer as it should ({error}).") from error
    raise NothingToTake(
        f"No run of {workflow} on {branch} succeeded and still has its {options.kind};"
        " run that workflow first."
    )


def _runs(client: Any, workflow: str, branch: str) -> list[Any]:
    """Of *workflow*, those that succeeded, the newest first."""
    answer = client.get(
        f"/workflows/{workflow}/runs",
        params={"status": "success", "branch": branch, "per_page": _RUNS},
    )
    answer.raise_for_status()
    runs: list[Any] = answer.json()["workflow_runs"]
    return sorted(runs, key=lambda run: str(run["created_at"]), reverse=True)


def _artifacts(client: Any, run_id: int, name: str) -> list[Any]:
    answer = client.get(f"/runs/{run_id}/artifacts", params={"name": name})
    answer.raise_for_status()
    artifacts: list[Any] = answer.json()["artifacts"]
    return artifacts


def _unpack(client: Any, artifact: Any, folder: Path) -> None:
    """The artifact's files, at *folder*; a name that leads out of it stays within (zipfile)."""
    _log.info("Taking %s, %s bytes", artifact["name"], artifact["size_in_bytes"])
    with tempfile.TemporaryFile() as file:
        with client.stream("GET", artifact["archive_download_url"]) as answer:
            answer.raise_for_status()
            for piece in answer.iter_bytes():
                file.write(piece)
        try:
            with zipfile.ZipFile(file) as archive:
                archive.extractall(folder)
        except zipfile.BadZipFile as error:
            raise DeployError(
                f"The artifact {artifact['name']} is no archive; run again."
            ) from error


def _told(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise DeployError(f"On GitHub {name} must be in the step's environment; it is not.")
    return value.rstrip("/")
