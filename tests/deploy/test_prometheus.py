"""Rules and dashboard, as promtool and Grafana will read them."""

from __future__ import annotations

import json
import shutil
import subprocess
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
PROMETHEUS, DASHBOARD = ROOT / "deploy/prometheus", ROOT / "deploy/grafana/miniml.json"
PROMTOOL = shutil.which("promtool")


def panels() -> list[dict[str, Any]]:
    """Of the dashboard, rows too."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return found


@pytest.mark.skipif(PROMTOOL is None, reason="no promtool on this machine (package prometheus)")
@pytest.mark.parametrize(
    "command",
    [
        ("check", "rules", "--lint-fatal", PROMETHEUS / "rules.yml"),
        ("check", "config", "--lint-fatal", PROMETHEUS / "prometheus.yml"),
        ("test", "rules", ROOT / "tests/deploy/rules_test.yml"),
    ],
    ids=["rules", "config", "alerts"],
)
def test_promtool_agrees(command: tuple[str | Path, ...]) -> None:
    """Rules and configuration are valid, and each alert is raised by what it is for and by no less."""
    done = subprocess.run(
        [str(PROMTOOL), *map(str, command)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_panel_says_what_it_shows() -> None:
    """Each has an id of its own, a title, and where it draws a unit, a description and its legend."""
    found = panels()
    ids = [panel["id"] for panel in found]

    assert len(set(ids)) == len(ids)
    assert all(panel["title"] for panel in found)
    for panel in found:
        if panel["type"] != "row":
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert panel["description"].endswith("."), panel["title"]
            assert all(target["legendFormat"] for target in panel["targets"]), panel["title"]


def test_panels_do_not_cover_each_other() -> None:
    """Each stands in the grid's 24 columns, beside or below the others."""
    places = [panel["gridPos"] for panel in panels()]

    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


def test_the_dashboard_is_anybodys() -> None:
    """It names no data source of its own, and every query heeds the chosen server and replica."""
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    variables = {variable["name"]: variable["type"] for variable in board["templating"]["list"]}

    assert variables == {"DS_PROMETHEUS": "datasource", "job": "query", "replica": "query"}
    for panel in panels():
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "${DS_PROMETHEUS}"
            selectors = target["expr"].count("{")
            assert target["expr"].count('job=~"$job", replica=~"$replica"') == selectors > 0
