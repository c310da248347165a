"""Laws of `--write-config`: Ray reads the file, and it means what `miniml serve` would do."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve._private.constants import DEFAULT_GRPC_PORT
from ray.serve.config import gRPCOptions
from ray.serve.schema import ServeDeploySchema

from registry import store
from serving.app import build
from serving.environment import to_export
from serving.errors import PackageError, ServingError
from serving.grpc_door import add_open_inference
from serving.options import ServeOptions
from serving.package import Package
from serving.server import serve
from serving.settings import ServeSettings, settings_for

MakePackage = Callable[..., Package]
PORT = 8123


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of Ray's or ours is set, and what is set in the test goes with it."""
    for name in {*os.environ, *to_export(haproxy=True)}:
        if name.startswith(("RAY_", "MINIML_", "MLFLOW_", "OMP_", "TOKENIZERS_")):
            monkeypatch.setenv(name, "")  # so that it is taken back, whoever sets it
            monkeypatch.delenv(name)
    monkeypatch.setenv("MINIML_HOME", str(tmp_path / "home"))


def written(path: Path, package: str, **more: Any) -> tuple[ServeOptions, ServeDeploySchema]:
    """What was asked for, and the file as Ray reads it."""
    options = ServeOptions(package=package, port=PORT, write_config=path, **more)
    serve(options)
    return options, ServeDeploySchema.model_validate(yaml.safe_load(path.read_text()))


def exported(path: Path) -> dict[str, str]:
    """The environment after the line for a shell that the file's head has."""
    (line,) = [line for line in path.read_text().split("\n") if line.startswith("# eval")]
    command = f"{line.removeprefix('# ')}; env"
    environment = {"PATH": os.environ["PATH"]}
    shell = ["/bin/sh", "-c", command]
    told = subprocess.run(shell, env=environment, capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in told.splitlines())


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"lanes": 3, "threads": 1, "max_queue_ms": 750.5, "device": "cpu"},
        {"host": "0.0.0.0", "insecure": True, "haproxy": False},
        {"grpc_port": 9123},
        {"threads": 1, "min_replicas": 2, "max_replicas": 6, "max_replicas_per_node": 2},
        {
            "otlp": "http://127.0.0.1:4318",
            "trace_share": 0.25,
            "request_log": Path("/var/log/requests.jsonl"),
            "log_texts": True,
        },
    ],
)
def test_the_file_means_what_serve_would_do(
    package: Package, tmp_path: Path, more: dict[str, Any]
) -> None:
    """Address, settings and what the replica needs are those of `miniml serve`, read back by Ray."""
    options, schema = written(tmp_path / "serve.yaml", str(package.folder), **more)
    (application,) = schema.applications
    (deployment,) = application.deployments
    settings = ServeSettings(**application.args)
    running: Any = build(settings)._bound_deployment

    assert (schema.http_options.host, schema.http_options.port) == (options.host, PORT)
    assert schema.grpc_options.port == (options.grpc_port or DEFAULT_GRPC_PORT)
    assert bool(schema.grpc_options.grpc_servicer_functions) == bool(options.grpc_port)
    assert settings.local_only == bool(options.grpc_port)
    served = settings_for(options, package=str(package.folder), digest=package.digest)
    # But for this: a file may be made to listen elsewhere.
    assert settings == served.model_copy(update={"rollout_without_key": False})
    assert (application.import_path, application.route_prefix) == ("serving.app:build", "/")
    assert deployment.name == running.name
    assert deployment.max_ongoing_requests == running.max_ongoing_requests
    assert deployment.ray_actor_options.num_cpus == running.ray_actor_options["num_cpus"]
    assert running._replica_config.max_replicas_per_node == options.max_replicas_per_node
    if options.max_replicas_per_node:
        assert deployment.max_replicas_per_node == options.max_replicas_per_node
    assert deployment.max_surge_percent == 25
    assert not deployment.logging_config.enable_access_log


@pytest.mark.parametrize(
    ("least", "most_on_one", "said"),
    [(1, None, False), (3, None, True), (3, 3, True), (3, 2, False), (0, None, False)],
)
def test_the_file_says_where_one_machine_may_hold_all(
    package: Package, tmp_path: Path, least: int, most_on_one: int | None, said: bool
) -> None:
    """And what forbids it: several replicas are of no use against the end of a machine that has all."""
    path = tmp_path / "serve.yaml"
    limits = {"min_replicas": least, "max_replicas": 4, "max_replicas_per_node": most_on_one}
    written(path, str(package.folder), threads=1, **limits)
    assert ("--max-replicas-per-node 2 forbids it." in path.read_text()) is said


def test_models_beside_the_first_are_named_for_ever(
    package: Package, make_package: MakePackage, tmp_path: Path
) -> None:
    """With their digests, in the file as `serve` would have them; another package in their place is refused."""
    store.publish(make_package(name="topics", seed=1).folder, name="topics")
    folder = make_package(name="local", seed=2)
    also = ("topics@latest", str(folder.folder))
    _, schema = written(
        tmp_path / "serve.yaml", str(package.folder), also=also, models_mb=100.0, lanes=1
    )
    args = schema.applications[0].args
    settings = ServeSettings(**args)
    wanted: Any = build(settings)._bound_deployment

    assert (settings.also, settings.models_bytes) == (("topics/1", str(folder.folder)), 100 * 2**20)
    head = (tmp_path / "serve.yaml").read_text().splitlines()[0]
    assert f"--also topics@latest --also {folder.folder} --models-mb 100.0" in head
    models = wanted.init_args[0].models
    assert [model.name for model in models] == ["tiny", "topics", "local"]
    assert tuple(model.digest for model in models[1:]) == settings.also_digests
    with pytest.raises(PackageError, match="topics/1 is package"):
        build(settings.model_copy(update={"also_digests": ("0" * 64, folder.digest)}))
    with pytest.raises(PackageError, match="2 models stand beside the first, but 1 digests"):
        build(settings.model_copy(update={"also_digests": ("0" * 64,)}))


@pytest.mark.parametrize(
    ("said", "means"),
    [('["a/1", "b"]', ("a/1", "b")), ("a/1", ("a/1",)), ("[]", ()), (["a"], ("a",))],
)
def test_models_are_told_as_json_or_as_one(
    monkeypatch: pytest.MonkeyPatch, said: Any, means: tuple[str, ...]
) -> None:
    """As `serve run serving.app:build also=...` gives them to the settings, and the environment does."""
    assert ServeSettings(package="p", also=said).also == means
    if isinstance(said, str):
        monkeypatch.setenv("MINIML_ALSO", said)
        assert ServeSettings(package="p").also == means


def test_ray_finds_the_service_by_its_name(package: Package, tmp_path: Path) -> None:
    """What the file names can be imported, and is what adds our service."""
    _, schema = written(tmp_path / "serve.yaml", str(package.folder), grpc_port=9123)
    options = gRPCOptions(**schema.grpc_options.model_dump())

    assert options.grpc_servicer_func_callable == [add_open_inference]


@pytest.mark.parametrize(
    ("more", "local_only"),
    [
        ({"grpc_port": 9123}, True),
        ({"grpc_port": 9123, "host": "::1"}, True),
        ({"grpc_port": 9123, "host": "0.0.0.0", "insecure": True}, False),
        ({}, False),
    ],
)
def test_without_keys_grpc_is_for_who_listens_here(more: dict[str, Any], local_only: bool) -> None:
    """On loopback without keys gRPC answers this machine alone; elsewhere somebody said --insecure."""
    options = ServeOptions(package="p", **more)

    assert settings_for(options, package="p", digest="0" * 64).local_only == local_only


@pytest.mark.parametrize("haproxy", [True, False])
def test_the_head_sets_what_serve_sets(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, haproxy: bool
) -> None:
    """One line for a shell sets all of it, a token too; what the caller had set stays."""
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    path = tmp_path / "a folder" / "serve.yaml"
    path.parent.mkdir()
    written(path, str(package.folder), haproxy=haproxy)
    found = exported(path)

    assert to_export(haproxy=haproxy).items() <= found.items()
    assert found["OMP_NUM_THREADS"] == "3"
    assert ("RAY_SERVE_ENABLE_HA_PROXY" in found) == haproxy
    assert len(found["RAY_AUTH_TOKEN"]) == 64
    assert found["RAY_AUTH_TOKEN"] not in path.read_text()


def test_a_name_is_written_as_its_version(package: Package, tmp_path: Path) -> None:
    """`tiny@latest` becomes `tiny/1` with its digest, and where that is found from any folder."""
    store.publish(package.folder, name="tiny")
    path = tmp_path / "serve.yaml"
    _, schema = written(path, "tiny@latest")
    store.publish(package.folder, name="tiny")

    assert schema.applications[0].args == {"package": "tiny/1", "digest": package.digest}
    assert exported(path)["MINIML_HOME"] == str(tmp_path / "home")


def test_a_package_written_anew_is_refused(make_package: MakePackage, tmp_path: Path) -> None:
    """When the folder holds another package later, the file starts nothing."""
    package, other = make_package(), make_package(max_length=16)
    folder = tmp_path / "tiny"
    package.folder.rename(folder)
    _, schema = written(tmp_path / "serve.yaml", str(folder))
    folder.rename(tmp_path / "old")
    other.folder.rename(folder)

    with pytest.raises(PackageError, match=f"is package {other.digest[:12]}, not"):
        build(ServeSettings(**schema.applications[0].args))


def test_a_file_that_is_there_is_left_alone(package: Package, tmp_path: Path) -> None:
    """It is refused with one sentence, and not touched."""
    path = tmp_path / "serve.yaml"
    path.write_text("mine")

    with pytest.raises(ServingError, match=r"serve\.yaml is there already; remove it or choose"):
        written(path, str(package.folder))
    assert path.read_text() == "mine"


def test_a_folder_that_is_not_there_is_one_sentence(package: Package, tmp_path: Path) -> None:
    """The file that cannot be written is named."""
    with pytest.raises(ServingError, match=r"nowhere/serve\.yaml cannot be written"):
        written(tmp_path / "nowhere" / "serve.yaml", str(package.folder))


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"request_log": Path("-")}, "no standard output behind a config file"),
        ({"otlp": "localhost:4318"}, "--otlp must be the URL"),
        ({"log_texts": True}, "name one with --request-log"),
        ({"trace_share": 1.5}, "--trace-share must be from 0 to 1, not 1.5"),
    ],
)
def test_what_no_replica_could_do_is_not_written(
    package: Package, tmp_path: Path, more: dict[str, Any], why: str
) -> None:
    """Each is refused with one sentence, and there is no file."""
    path = tmp_path / "serve.yaml"

    with pytest.raises(ServingError, match=why):
        written(path, str(package.folder), **more)
    assert not path.exists()


def test_the_command_is_said_as_it_was_given(package: Package, tmp_path: Path) -> None:
    """The first line can be run again."""
    path = tmp_path / "serve.yaml"
    written(path, str(package.folder), lanes=2, haproxy=False)
    given = shlex.split(path.read_text().split("\n")[0].removeprefix("# Written by: "))

    assert given == [
        *("miniml", "serve", str(package.folder), "--port", str(PORT), "--lanes", "2"),
        *("--no-haproxy", "--write-config", str(path)),
    ]
