"""Laws of the playground, in a real browser: it works by keyboard, on a phone, and asks nobody else."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from serving.access.keys import create_key
from serving.package import Package
from serving.protocols.contract import request_errors

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
Listening = Callable[..., AbstractContextManager[str]]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
TEXTS = "the staff was good\nthe soup was very bad and cold\nstaff"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Watched:
    """A page of *url*, with what it complained of and whom else it asked."""

    def __init__(self, browser: Browser, url: str, **settings: Any) -> None:
        self.context = browser.new_context(**settings)
        self.page: Page = self.context.new_page()
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", self._heard)
        self.page.on("request", lambda request: self._asked(request.url, url))
        self.page.goto(url)

    def _asked(self, whom: str, allowed: str) -> None:
        if not whom.startswith((allowed, "data:")):
            self.problems.append(whom)

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.problems.append(message.text)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_are_answered_at_any_width(
    browser: Browser, package: Package, listening: Listening, width: int, scheme: str
) -> None:
    """Bars for every label of every text, timings, the card; nothing sticks out, nothing complains."""
    with listening(package) as url:
        seen = Watched(browser, url, viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = seen.page
        expect(page.get_by_role("heading", name="tiny: 3 labels")).to_be_visible()
        page.get_by_label("One text a line").fill(TEXTS)
        page.get_by_role("button", name="Classify").click()
        expect(page.get_by_role("article")).to_have_count(3)
        expect(page.get_by_role("article").first.locator(".score")).to_have_count(3)
        expect(page.get_by_role("article").first.locator(".given")).to_have_count(1)
        expect(page.get_by_role("heading", name="Where the time went")).to_be_visible()
        expect(page.locator("#times")).to_contain_text("none")
        expect(page.locator("#card")).to_contain_text(package.digest[:12])
        page.get_by_role("button", name="Classify").click()
        expect(page.locator("#times")).to_contain_text("all")
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        seen.context.close()

    assert wide <= 0
    assert seen.problems == []


def test_the_keyboard_is_enough(browser: Browser, package: Package, listening: Listening) -> None:
    """From the address bar by tab and keys alone to an answer and to the copied command."""
    with listening(package) as url:
        seen = Watched(browser, url, permissions=["clipboard-read", "clipboard-write"])
        page = seen.page
        expect(page.get_by_role("heading", name="tiny: 3 labels")).to_be_visible()
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "texts":
                break
        page.keyboard.press("Control+A")
        page.keyboard.type("good")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_role("article")).to_have_count(1)
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id") == "copy-curl":
                break
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        copied = page.evaluate("navigator.clipboard.readText()")
        seen.context.close()

    assert copied.startswith(f"curl {url}/predict")
    assert '{"text":"good"}' in copied
    assert seen.problems == []


def test_a_file_of_texts_is_taken(
    browser: Browser, package: Package, listening: Listening, tmp_path: Path
) -> None:
    """Its lines fill the field; a file that is none is said so."""
    good, bad = tmp_path / "texts.jsonl", tmp_path / "broken.jsonl"
    good.write_text('{"text": "good soup"}\n{"text": "bad\\nsoup"}\n')
    bad.write_text("{\n")
    with listening(package) as url:
        seen = Watched(browser, url)
        page = seen.page
        page.get_by_label("A file of texts").set_input_files(good)
        expect(page.get_by_label("One text a line")).to_have_value("good soup\nbad soup")
        page.get_by_label("A file of texts").set_input_files(bad)
        expect(page.get_by_role("status")).to_contain_text("broken.jsonl cannot be read")
        seen.context.close()

    assert seen.problems == []


def test_markup_in_a_text_is_a_text(
    browser: Browser, package: Package, listening: Listening
) -> None:
    """Nothing that is classified is ever run or drawn."""
    evil = '<img src=x onerror="document.title=1"><script>document.title=2</script> good'
    with listening(package) as url:
        seen = Watched(browser, url)
        page = seen.page
        page.get_by_label("One text a line").fill(evil)
        page.get_by_role("button", name="Classify").click()
        expect(page.get_by_role("article").get_by_text(evil)).to_be_visible()
        title = page.title()
        seen.context.close()

    assert title == "tiny · miniml"
    assert seen.problems == []


def test_a_server_with_keys_is_asked_with_one(
    browser: Browser, package: Package, listening: Listening, tmp_path: Path
) -> None:
    """Without it the page says what is missing and shows where it goes; with it, it works."""
    file = tmp_path / "keys.json"
    _, secret = create_key(file, "me")
    with listening(package, keys=str(file)) as url:
        seen = Watched(browser, url)
        page = seen.page
        expect(page.get_by_role("status")).to_contain_text("A key that is valid is needed")
        page.get_by_label("API key").fill(secret)
        page.get_by_label("API key").press("Tab")
        expect(page.get_by_role("heading", name="tiny: 3 labels")).to_be_visible()
        page.get_by_label("One text a line").fill("good")
        page.get_by_role("button", name="Classify").click()
        expect(page.get_by_role("article")).to_have_count(1)
        shown = page.locator("#curl").text_content()
        seen.context.close()

    assert shown
    assert secret not in shown


def test_the_docs_page_lists_every_error(
    browser: Browser, package: Package, listening: Listening
) -> None:
    """Filled from the contract: each error that a request can meet, beside its status."""
    with listening(package) as url:
        seen = Watched(browser, url)
        seen.page.goto(f"{url}/docs")
        for kind in request_errors():
            row = seen.page.locator("#errors tr", has_text=str(kind.status)).first
            expect(row).to_contain_text(kind.__name__)
        seen.context.close()

    assert seen.problems == []
