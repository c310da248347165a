"""The runbook's and the guides' commands run, page by page, in order, against a real server."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
RUNBOOK, MIGRATION = ROOT / "docs/runbook", ROOT / "docs/migration"
# tritonclient wants other libraries than ours: `make clients`.
CLIENTS = ROOT / ".venv/clients/bin/python"
STOP_S = 90.0


def pages() -> list[Path]:
    """All but the one that every guide begins with, whose commands the server is made by.

    The last one ends the server.
    """
    last = RUNBOOK / "restart-and-drain.md"
    every = {*RUNBOOK.glob("*.md"), *MIGRATION.glob("*.md")}
    return [*sorted(every - {MIGRATION / "index.md", last}), last]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
def test_what_stands_there_runs(station: Any, page: Path) -> None:
    """Every command ends with 0, every query can be answered, and every script runs, in order."""
    if page.stem == "triton" and not CLIENTS.exists():
        pytest.skip("no environment for clients: make clients")
    if meanwhile := station.aside.get(page):
        meanwhile.result()
    else:
        station.do(page)


def test_the_drain_ended_it(station: Any) -> None:
    """After the last page's command the server is gone, with 0."""
    assert station.server
    assert station.server.wait(STOP_S) == 0


def test_what_is_collected_holds_no_key(station: Any) -> None:
    """No key is in what the runbook collects for others to read, and all else that it names is."""
    (archive,) = station.folder.glob("incident-*.tar.gz")
    with tarfile.open(archive) as tar:
        files = {
            member.name: content.read()
            for member in tar.getmembers()
            if (content := tar.extractfile(member))
        }
    names = {Path(name).name for name in files}

    assert {"info", "rollout", "metrics", "requests.jsonl", "processes", "versions"} <= names
    secret = station.environment["MINIML_API_KEY"].split("_", 2)[2].encode()
    assert [name for name, content in files.items() if secret in content] == []
    assert json.loads(next(c for n, c in files.items() if n.endswith("/info")))["name"] == "reviews"


def test_patience_is_needed(shorter: dict[str, str]) -> None:
    """Each thing that is made shorter here stands in a page as it is written."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages())

    assert [words for words in shorter if words not in text] == []
