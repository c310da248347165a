"""The build context of an image: the Dockerfile, the locks, our source, the package; nothing else.

Equal inputs give equal files. Knows no engine.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from deploy.errors import DeployError, NoSource
from deploy.options import Target
from registry.artifact import read_manifest
from registry.transfer import copy_in

ROOT = Path(__file__).parent.parent.parent
ROOMS = ("benchmarks", "deploy", "export", "registry", "serving", "training")
DOCKERFILE, PACKAGE, SOURCE = "Dockerfile", "package", "src"
_BUILD_FILES = ("install.sh", "requirements-build.lock")
_OUR_FILES = ("LICENSE", "README.md", "miniml.py", "pyproject.toml")
# Of the source: records that documents are made of, what clusters read, what tools leave behind.
_NOT_IN_SOURCE = shutil.ignore_patterns(
    *("results", "aws", "compose", "grafana", "k8s", "prometheus"),
    *("__pycache__", "*.pyc", ".*"),
)


def lock_of(target: Target) -> str:
    """The name of the file that pins what the image holds."""
    return f"requirements-{target}.lock"


def lay_out(folder: Path, *, target: Target, package: Path | None) -> Path:
    """Fill the new *folder*, and return it.

    package: a verified one, copied to `package/`; None leaves that empty, for images whose model is
    mounted. Raises `NoSource`, or `DeployError` when there is something at *folder*.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DeployError(f"{folder} is not empty; name a new folder, or remove it.")
    docker = ROOT / "deploy" / "docker"
    ours = [ROOT / name for name in _OUR_FILES]
    for path in (docker / DOCKERFILE, *ours):
        if not path.is_file():
            raise NoSource(
                f"{path} is not here: images are made from a checkout of miniml, not from a wheel."
            )
    folder.mkdir(parents=True, exist_ok=True)
    for name in (DOCKERFILE, *_BUILD_FILES, lock_of(target)):
        shutil.copyfile(docker / name, folder / name)
    source = folder / SOURCE
    source.mkdir()
    for path in ours:
        shutil.copyfile(path, source / path.name)
    for room in ROOMS:
        shutil.copytree(
            ROOT / room, source / room, ignore=_NOT_IN_SOURCE, copy_function=shutil.copy
        )
    put = folder / PACKAGE
    if package is None:
        put.mkdir()
    else:
        copy_in(package, put, read_manifest(package))
    return folder
