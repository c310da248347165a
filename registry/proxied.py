"""Bytes of sealed folders through a tracking server, which alone knows where they lie.

MLflow's own client asks the server for links into its bucket and follows them, so every machine would
have to reach the bucket. Here a machine needs the server alone, by the calls of its proxy
(`mlflow-artifacts:`), and bytes are counted on their way. Nothing is verified here.
"""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any
from urllib.parse import quote

from registry.artifact import MANIFEST, SIGNATURE, Manifest, files_to_copy
from registry.connection import translated
from registry.errors import NotFound
from registry.progress import CountedFile, Moved, moving
from registry.transfer import inside, read_fetched_manifest

_TIMEOUT_S = (20, 600)  # to connect; to answer, which a server does when its bucket has the file
_CHUNK_BYTES = 1 << 20


def upload_proxied(source: Path, place: str, tracking_uri: str, manifest: Manifest) -> None:
    """Put a sealed folder to *place*, its manifest last, so that a broken upload is no artifact."""
    told = f"Uploading {manifest.kind}"
    with translated(tracking_uri), moving(told, manifest.total_bytes) as moved:
        for name in files_to_copy(source, manifest):
            with CountedFile(source / name, moved) as file:
                _ask(place, tracking_uri, "PUT", name, data=file)


def download_proxied(place: str, tracking_uri: str, folder: Path, present: Container[str]) -> Path:
    """Fill *folder* with the sealed folder at *place*: what its manifest lists, and its signature.

    present: the names there; what is missing among them is left out, for the verification to tell.
    Raises `NotFound` where there is no manifest.
    """
    if MANIFEST not in present:
        raise NotFound(f"{place} holds no {MANIFEST}; publish the artifact again.")
    with translated(tracking_uri):
        (folder / MANIFEST).write_bytes(_ask(place, tracking_uri, "GET", MANIFEST).content)
        manifest = read_fetched_manifest(folder, place)
        with moving(f"Downloading {manifest.kind}", manifest.total_bytes) as moved:
            for name in (*manifest.files, SIGNATURE):
                if name in present:
                    path = inside(folder, name, place)
                    _save(_ask(place, tracking_uri, "GET", name, stream=True), path, moved)
    return folder


def remove_proxied(place: str, tracking_uri: str) -> None:
    """Have the server forget all bytes below *place*; there may be none any more."""
    with translated(tracking_uri):
        _ask(place, tracking_uri, "DELETE")


def _save(answer: Any, path: Path, moved: Moved) -> None:
    with answer, path.open("wb") as file:
        for chunk in answer.iter_content(chunk_size=_CHUNK_BYTES):
            file.write(chunk)
            moved(len(chunk))


def _ask(place: str, tracking_uri: str, method: str, name: str = "", **how: Any) -> Any:
    """The good answer of the server's proxy for *name* below *place*. Raises requests' errors."""
    from mlflow.store.artifact.mlflow_artifacts_repo import MlflowArtifactsRepository
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.request_utils import augmented_raise_for_status
    from mlflow.utils.rest_utils import http_request

    url = MlflowArtifactsRepository.resolve_uri(place, tracking_uri)
    answer = http_request(
        get_default_host_creds(url),
        f"/{quote(name)}" if name else "",
        method,
        timeout=_TIMEOUT_S,
        raise_on_status=False,  # the last answer says more than that there were too many
        **how,
    )
    augmented_raise_for_status(answer)
    return answer
