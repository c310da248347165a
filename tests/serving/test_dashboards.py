"""Dashboard and rules know only what a server says, and show it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from serving.environment import free_ports
from serving.package import Package

Listening = Callable[..., AbstractContextManager[str]]
DEPLOY = Path(__file__).parent.parent.parent / "deploy"
PROMETHEUS = shutil.which("prometheus")
START_S = 60.0
# What Grafana puts in, and how Prometheus sees a replica without Ray.
_VARIABLES = {"$__rate_interval": "1m", "$__range": "1m", "$job": ".*", "$replica": ".*"}


def queries() -> list[str]:
    """Of every panel."""
    board = json.loads((DEPLOY / "grafana/miniml.json").read_text(encoding="utf-8"))
    return [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]


def rules() -> list[dict[str, Any]]:
    """Recorded ones and alerts."""
    document = yaml.safe_load((DEPLOY / "prometheus/rules.yml").read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def test_they_ask_for_what_there_is(page: str) -> None:
    """Every name in a query is on the page, or recorded by a rule; every drift and stage is among them."""
    there = {
        sample.name for family in text_string_to_metric_families(page) for sample in family.samples
    }
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    asked = " ".join([*queries(), *(rule["expr"] for rule in rules())])
    names = set(re.findall(r"\b(?:miniml|process)_\w+", re.sub(r"[\w:]+:\w+", " ", asked)))

    assert len(names) > 30
    assert names - there == set()
    assert set(re.findall(r"\bjob\w*:\w+:\w+", asked)) - recorded == set()


@contextmanager
def scraping(url: str, folder: Path) -> Iterator[httpx.Client]:
    """A Prometheus that looks at *url* each half second, with our rules; stopped when left."""
    (port,) = free_ports(1)
    config = {
        "global": {"scrape_interval": "500ms", "evaluation_interval": "500ms"},
        "rule_files": [str(DEPLOY / "prometheus/rules.yml")],
        "scrape_configs": [
            {
                "job_name": "miniml",
                "static_configs": [{"targets": [url.removeprefix("http://")]}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    address = f"127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(str(PROMETHEUS), f"--config.file={folder}/prometheus.yml"),
                *(f"--storage.tsdb.path={folder}/data", f"--web.listen-address={address}"),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        with httpx.Client(base_url=f"http://{address}/api/v1", timeout=10) as client:
            yield client
    finally:
        process.terminate()
        process.wait(30)


def ask(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    """What a query gives now. Fails with Prometheus's own words when it is wrong."""
    for variable, stands_for in _VARIABLES.items():
        query = query.replace(variable, stands_for)
    answer = client.get("/query", params={"query": query}).json()
    assert answer["status"] == "success", f"{query}: {answer}"
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def scraped_twice(client: httpx.Client) -> bool:
    """Whether rates can be had; false as well while Prometheus starts."""
    try:
        found = ask(client, "count_over_time(miniml_package_info[1m]) >= 2")
    except (httpx.HTTPError, ValueError):
        return False
    return bool(found)


@pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus on this machine")
def test_every_panel_shows_something(
    package: Package,
    listening: Listening,
    draw: Callable[[int, int], list[str]],
    tmp_path: Path,
) -> None:
    """A real Prometheus answers each query of the dashboard and each recorded rule with a value."""
    with (
        listening(package, redis_url="redis://127.0.0.1:9/0") as url,
        httpx.Client(base_url=url) as server,
    ):
        server.post("/predict", json={"texts": draw(300, 3)})
        server.post("/predict", json={"text": ""})
        with scraping(url, tmp_path) as client:
            deadline_s = time.monotonic() + START_S
            while not scraped_twice(client):
                assert time.monotonic() < deadline_s, (tmp_path / "log").read_text()
                time.sleep(0.2)
            empty = [query for query in queries() if not ask(client, query)]
            answer = client.get("/rules").json()
    health = {rule["name"]: rule["health"] for g in answer["data"]["groups"] for rule in g["rules"]}

    assert empty == []
    assert health.keys() == {rule.get("record") or rule["alert"] for rule in rules()}
    assert "err" not in health.values()
