"""The compose file: valid, closed to the network, bounded, and without a secret in it."""

from __future__ import annotations

import configparser
import dataclasses
import json
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.compose.prepare import prepare
from registry.access import authorize
from serving.options import ServeOptions

ROOT = Path(__file__).parent.parent.parent
COMPOSE = ROOT / "deploy/compose"
TEXT = (COMPOSE / "compose.yaml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
CHECKER = Path(sys.executable).with_name("check-jsonschema")
PROMTOOL = shutil.which("promtool")


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("", ""),
        ("condition: service_healthy", "condition: service_well"),
        ("read_only: true", "read_only: [1]"),
        ("internal: true", "internal: {}"),
        ("cap_drop: [ALL]", "cap_drop: ALL"),
    ],
    ids=["as it is", "condition", "read_only", "network", "capabilities"],
)
def test_the_schema_agrees(tmp_path: Path, line: str, instead: str) -> None:
    """compose.yaml is what Compose's specification allows, and with one field broken it is not."""
    path = tmp_path / "compose.yaml"
    path.write_text(TEXT.replace(line, instead, 1) if line else TEXT, encoding="utf-8")
    done = subprocess.run(
        [CHECKER, "--builtin-schema", "vendor.compose-spec", path],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode == 0) == (not line), done.stdout


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_held(name: str) -> None:
    """Each says when it is well, has limits, one version, a read-only root and no rights to gain."""
    service = SERVICES[name]
    limits = service["deploy"]["resources"]["limits"]

    assert service["healthcheck"]["test"]
    assert {"cpus", "memory", "pids"} <= limits.keys()
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["cap_drop"] == ["ALL"]
    assert not re.search(r":latest$|^[^:]+$", service["image"])
    assert all(
        after["condition"] == "service_healthy" for after in service.get("depends_on", {}).values()
    )


def test_only_what_people_open_is_published() -> None:
    """API, MLflow and Grafana, and Locust's page when asked for; on this machine alone."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert published.keys() == {"api", "mlflow", "grafana", "locust"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)
    assert SERVICES["locust"]["profiles"] == ["load"]
    assert {name for name, service in SERVICES.items() if "edge" in service["networks"]} == set(
        published
    )
    networks = yaml.safe_load(TEXT)["networks"]
    assert [name for name in networks if not (networks[name] or {}).get("internal")] == ["edge"]


def test_no_secret_has_a_default() -> None:
    """Every variable is in .env.example; what is secret is empty there, and compose asks for it."""
    used = dict(re.findall(r"\$\{(\w+)(:[-?])", TEXT))
    example = dict(
        re.findall(
            r"^#? ?(\w+)=(.*)$",
            (COMPOSE / ".env.example").read_text(encoding="utf-8"),
            re.MULTILINE,
        )
    )
    secret = {name for name in used if re.search("PASSWORD|KEY", name)}

    assert used.keys() == example.keys()
    assert len(secret) >= 5
    assert {name: example[name] for name in secret} == dict.fromkeys(secret, "")
    assert [name for name in secret - {"LOAD_KEY"} if used[name] != ":?"] == []


def test_what_is_mounted_is_here() -> None:
    """Every file and folder of the tree that a service mounts exists."""
    mounted = [
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", ())
        if volume.startswith(".")
    ]

    assert len(mounted) >= 5
    assert [path for path in mounted if not (COMPOSE / path).exists()] == []


def test_the_server_knows_its_options() -> None:
    """What the API is started with are options of `miniml serve`."""
    flags = {"--" + field.name.replace("_", "-") for field in dataclasses.fields(ServeOptions)}
    verb, model, *told = SERVICES["api"]["command"]

    assert (verb, model) == ("serve", "/model")
    assert [option for option in told if option.split("=")[0] not in flags] == []


def test_mlflow_asks_who_is_there() -> None:
    """It runs the rules of `miniml registry serve`, and no password stands in its arguments."""
    service, settings = SERVICES["mlflow"], configparser.ConfigParser()
    settings.read(COMPOSE / "access.ini", encoding="utf-8")
    rules = f"{service['environment']['PYTHONPATH']}/access.py"

    assert "--app-name=basic-auth" in service["command"]
    assert f"../../registry/access.py:{rules}:ro" in service["volumes"]
    assert settings["mlflow"]["authorization_function"] == f"access:{authorize.__name__}"
    assert settings["mlflow"]["default_permission"] == "READ"
    assert "PASSWORD" not in " ".join(service["command"])


def test_prometheus_is_told_the_same() -> None:
    """Rules and intervals are those of deploy/prometheus; only the address and the key are others."""
    ours = yaml.safe_load((COMPOSE / "prometheus.yml").read_text(encoding="utf-8"))
    theirs = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    (here,), (there,) = ours.pop("scrape_configs"), theirs.pop("scrape_configs")

    assert ours == theirs
    assert here["job_name"] == there["job_name"]
    assert here["static_configs"] == [{"targets": ["api:8000"]}]


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool on this machine (package prometheus)")
def test_promtool_reads_it(tmp_path: Path) -> None:
    """The configuration and the rules beside it are valid."""
    for path in (COMPOSE / "prometheus.yml", ROOT / "deploy/prometheus/rules.yml"):
        shutil.copy(path, tmp_path)
    done = subprocess.run(
        [str(PROMTOOL), "check", "config", "--syntax-only", tmp_path / "prometheus.yml"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_secrets_are_made_once(tmp_path: Path) -> None:
    """Each is random, and a second run changes no byte; nobody else reads .env or enters secrets/."""
    shutil.copy(COMPOSE / ".env.example", tmp_path)
    prepare(tmp_path)
    made = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    prepare(tmp_path)
    values = re.findall(r"^\w+=(.*)$", (tmp_path / ".env").read_text(), re.MULTILINE)
    keys = json.loads((tmp_path / "secrets/keys.json").read_bytes())["keys"]

    assert {path: path.read_bytes() for path in made} == made
    assert len(set(values)) == len(values) >= 6
    assert all(len(value) >= 32 for value in values)
    assert [key["name"] for key in keys] == ["prometheus", "load"]
    assert (tmp_path / "secrets/prometheus.key").read_text().startswith(f"mm_{keys[0]['id']}_")
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700


def test_mlflow_images_dockerfile_is_clean() -> None:
    """hadolint agrees with what is put on MLflow's own image."""
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run(
        [linter, COMPOSE / "mlflow.Dockerfile"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout
