"""The site as it is built: every page, the references within, and nothing from elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from docs import commands, contract
from docs.checks import ROOT, SITE, pages

pytest.importorskip("mkdocs", reason="pip install 'miniml[docs]'")
CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make docs` makes, made elsewhere."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder


def test_every_page_is_there(site: Path) -> None:
    """A page of HTML for each page of Markdown."""
    wanted = {page.relative_to(SITE) for page in pages() if page.is_relative_to(SITE)}

    assert [page for page in wanted if not (site / page).with_suffix(".html").is_file()] == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    """No script, style, font, picture or frame of any page comes from another host."""
    loading = re.compile(
        r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(https?:|//)[^>]*>"
        r"|<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preload|preconnect|icon))[^>]*"
        r"\bhref=[\"']?(https?:|//)[^>]*>"
        r"|url\([\"']?https?:",
    )
    found = {
        page.relative_to(site): match.group()
        for page in (*site.rglob("*.html"), *site.rglob("*.css"))
        if (match := loading.search(page.read_text(encoding="utf-8")))
    }

    assert found == {}


def test_the_references_are_made(site: Path) -> None:
    """Each command, each path and what Python may import stand on their pages."""
    told = {
        name: (site / "reference" / f"{name}.html").read_text(encoding="utf-8")
        for name in ("commands", "http", "python")
    }

    for words, _, _ in commands.every_command():
        assert f'id="{words.replace(" ", "-")}"' in told["commands"]
    for path in contract.document()["paths"]:
        assert path in told["http"]
    for name in (
        "serving.client.Client",
        "registry.store.resolve",
        "export.pipeline.export_package",
    ):
        assert f'id="{name}"' in told["python"]
    assert not any("&lt;!-- every" in text or "<!-- every" in text for text in told.values())


def test_our_code_is_not_published(site: Path) -> None:
    """What makes the pages is no part of them."""
    assert [*site.rglob("*.py"), *site.rglob("*.pyc")] == []


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_it_opens_from_disk(site: Path) -> None:
    """Without a server, pages show, search finds, and nothing beyond the folder is asked for."""
    asked: list[str] = []
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: faults.append(error.message))
        page.goto((site / "index.html").as_uri())
        page.locator("input[name=query]").click()
        page.keyboard.type("shadow")
        found = page.locator(".md-search-result__item a").first
        found.wait_for()
        page.goto(str(found.evaluate("link => link.href")))
        told = page.locator("article").inner_text()
        browser.close()

    assert "shadow" in told.lower()
    assert [url for url in asked if not url.startswith((site.as_uri(), "data:", "blob:"))] == []
    assert faults == []
