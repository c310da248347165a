"""`miniml serve --write-config`: a Ray Serve config file of the application that it would serve.

Ray's `serve run` and `serve deploy` read it. What else Ray must be told, the environment it is
started in, stands in the file's head as lines for a shell. Starts nothing.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from registry.home import home
from serving.environment import (
    FIRST_GRPC_PORT,
    GUARDED_HAPROXY,
    HAPROXY_PORTS,
    to_export,
    wants_token,
)
from serving.errors import ServingError
from serving.locate import pin
from serving.observing.log_file import STANDARD_OUTPUT
from serving.options import ServeOptions
from serving.settings import ServeSettings, settings_for

APPLICATION = "miniml"


def refuse_existing(path: Path) -> None:
    """Raise `ServingError` when something is at *path*: it may have been edited since."""
    if path.exists():
        raise ServingError(f"{path} is there already; remove it or choose another name.")


def write_deploy_file(options: ServeOptions, path: Path) -> ServeSettings:
    """Write the file, and return what `serving.app:build` will be told by it.

    The package is named by what cannot move and by its digest, so that the file means the same
    application for ever, or an error. Raises `ServingError`, `PackageError` or a registry error.
    """
    refuse_existing(path)
    if options.request_log == STANDARD_OUTPUT:
        raise ServingError("There is no standard output behind a config file.", hint="Name a file.")
    reference, digest = pin(options.package)
    settings = settings_for(options, package=reference, digest=digest)
    # The address in the file may be made another; who may change a cluster has a key.
    settings = settings.model_copy(update={"rollout_without_key": False})
    body = yaml.safe_dump(_document(options, settings), sort_keys=False)
    head = "".join(f"# {line}".rstrip() + "\n" for line in _head(options, settings, path))
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(f"{head}\n{body}")
    except FileExistsError:
        refuse_existing(path)
        raise
    except OSError as error:
        raise ServingError(f"{path} cannot be written ({error.strerror}).") from error
    return settings


def grpc_options(options: ServeOptions) -> dict[str, Any]:
    """What Ray Serve is told of gRPC; nothing where no port was asked for."""
    if options.grpc_port is None:
        return {}
    return {
        "port": options.grpc_port,
        "grpc_servicer_functions": ["serving.grpc_door.add_open_inference"],
        "enable_reflection": False,  # ours is, with the service
    }


def _document(options: ServeOptions, settings: ServeSettings) -> dict[str, Any]:
    from ray.serve.schema import ServeDeploySchema

    from serving.app import build

    application = {
        "name": APPLICATION,
        "route_prefix": "/",
        "import_path": "serving.app:build",
        "args": settings.model_dump(mode="json", exclude_defaults=True),
        "deployments": _deployments(build(settings)),
    }
    document = {
        "proxy_location": "EveryNode",
        "http_options": {"host": options.host, "port": options.port},
        **({"grpc_options": grpc} if (grpc := grpc_options(options)) else {}),
        "applications": [application],
    }
    ServeDeploySchema.model_validate(document)
    return document


def _deployments(application: Any) -> list[dict[str, Any]]:
    """What the application's code sets; as Ray's own `serve build`, for there is no public way."""
    from ray.serve._private.build_app import build_app
    from ray.serve.deployment import deployment_to_schema

    return [
        deployment_to_schema(deployment).model_dump(mode="json", exclude_unset=True)
        for deployment in build_app(application, name=APPLICATION).deployments
    ]


def _head(options: ServeOptions, settings: ServeSettings, path: Path) -> Iterator[str]:
    """The file's comment, line by line."""
    yield f"Written by: {_command(options)}"
    yield f"It serves {settings.package} (package {(settings.digest or '')[:12]}), nothing else."
    yield "num_cpus is lanes times threads, and lanes are cores unless args say how many, both on"
    yield "the machine where this was written; write it anew for another."
    yield ""
    if _may_gather(settings):
        yield f"Ray may put all {settings.min_replicas} replicas on one machine, whose end then stops the service:"
        yield f"--max-replicas-per-node {settings.min_replicas - 1} forbids it."
        yield ""
    given = shlex.quote(str(path))
    yield "Ray must find this in the environment in which `ray start` or `serve run` is started:"
    yield f"""eval "$(sed -n 's/^# export /export /p' {given})" """
    yield (
        "The token is one secret for all nodes and clients: make it once." if wants_token() else ""
    )
    yield ""
    exported = to_export(haproxy=options.haproxy) | _registry_place(settings.package)
    for name, value in exported.items():
        if name in GUARDED_HAPROXY:  # where it lies elsewhere, Ray finds its own
            binary = shlex.quote(value)
            yield f'export {name}="$([ -x {binary} ] && echo {binary})"'
        else:
            yield f"export {name}={shlex.quote(value)}"
    if wants_token():
        make = "python3 -c 'import secrets; print(secrets.token_hex(32))'"
        yield f'export RAY_AUTH_TOKEN="${{RAY_AUTH_TOKEN:-$({make})}}"'
    yield ""
    if options.haproxy:
        names = ", ".join((*HAPROXY_PORTS, FIRST_GRPC_PORT))
        yield f"A second server on one machine needs ports of its own: {names}."
        yield ""
    yield f"Then: serve run {given}"


def _may_gather(settings: ServeSettings) -> bool:
    """Whether one machine may hold all of several replicas: where Ray puts a new one is a matter of turns."""
    most = settings.max_replicas_per_node
    return settings.min_replicas > 1 and (most is None or most >= settings.min_replicas)


def _registry_place(package: str) -> dict[str, str]:
    """Where a named version is found, from whatever folder Ray is started in."""
    if Path(package).is_dir() or "://" in package:
        return {}
    place = {"MINIML_HOME": str(home())}
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        place["MLFLOW_TRACKING_URI"] = uri
    return place


def _command(options: ServeOptions) -> str:
    """The command line that means *options*."""
    words = ["miniml", "serve", options.package]
    for field in dataclasses.fields(options):
        value, flag = getattr(options, field.name), field.name.replace("_", "-")
        if value == field.default or "argument" in field.metadata:
            continue
        if isinstance(value, tuple):
            words += [word for each in value for word in (f"--{flag}", str(each))]
        elif isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return shlex.join(words)
