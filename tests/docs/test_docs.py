"""Pages say what is so: links lead somewhere, blocks are what they say, commands and paths exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from docs import commands, contract
from docs.checks import ROOT, SITE, UNREAD, anchors, blocks, pages, problems
from docs.hooks import MADE, filled
from docs.shell import methods, simple_commands

HERE = SITE / "a-page.md"  # as a page beside the others; it is not there


def fenced(language: str, text: str) -> str:
    """A page of one block."""
    return f"# A page\n\n```{language}\n{text}\n```\n"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_nothing_is_wrong_with_it(page: Path) -> None:
    """Every link and anchor of a page leads somewhere, every block and command is one."""
    assert problems(page) == []


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("[x](index.md)", "[x](indexx.md)", "no file"),
        ("[x](api.md#native)", "[x](api.md#naive)", "no heading"),
        ("# Two words\n[x](#two-words)", "# Two words\n[x](#two_words)", "no heading"),
        ("![x](aws.svg)", "![x](aws.png)", "no file"),
        ("| a |\n|---|\n| [x](api.md) |", "| a |\n|---|\n| [x](apis.md) |", "no file"),
        ("[x](https://example.com/gone)", "[x](../README.md)", "out of what is published"),
        ("`miniml serve NAME --port 1`", "`miniml serve NAME --prot 1`", "has no --prot"),
        ("`miniml shadow start|stop`", "`miniml shadow start|end`", "no command end"),
        (fenced("text", "a"), fenced("", "a"), "names no language"),
        (fenced("sh", "ls"), fenced("fish", "ls"), "nothing here reads fish"),
        (fenced("sh", "if true; then ls; fi"), fenced("sh", "if true; then ls"), "sh: "),
        (fenced("sh", "miniml top"), fenced("sh", "miniml tip"), "no command tip"),
        (fenced("sh", "miniml keys list"), fenced("sh", "miniml keys"), "wants a command"),
        (
            fenced("sh", "miniml keys create a"),
            fenced("sh", "miniml keys create"),
            "Missing argument",
        ),
        (
            fenced("bash", "miniml serve a --port 1"),
            fenced("bash", "miniml serve a --port one"),
            "valid integer",
        ),
        (
            fenced("bash", "A=1 miniml serve a \\\n  --port 1"),
            fenced("bash", "A=1 miniml serve a \\\n  --prt 1"),
            "--prt",
        ),
        (
            fenced("sh", "cat a | miniml predict 2>log"),
            fenced("sh", "cat a | miniml predit 2>log"),
            "no command predit",
        ),
        (fenced("sh", "make check OVERLAY=cpu"), fenced("sh", "make chek"), "no target chek"),
        (
            fenced("sh", "curl http://127.0.0.1:8000/predict -d '{}'"),
            fenced("sh", "curl http://127.0.0.1:8000/predict"),
            "no GET /predict",
        ),
        (
            fenced("sh", "curl http://127.0.0.1:8000/v2/models/reviews/ready"),
            fenced("sh", "curl http://127.0.0.1:8000/v2/models/reviews/red"),
            "no GET /v2/models/reviews/red",
        ),
        (
            fenced("sh", "curl -X DELETE http://localhost:8000/cache"),
            fenced("sh", "curl -X DELETE http://localhost:8000/info"),
            "no DELETE /info",
        ),
        (fenced("python", "x = await y"), fenced("python", "x = await"), "python: "),
        (
            fenced("python", "from serving.client import Client"),
            fenced("python", "from serving.client import Clint"),
            "no Clint",
        ),
        (
            fenced("python", "import tritonclient.grpc"),
            fenced("python", "import serving.cliant"),
            "serving.cliant",
        ),
        (
            fenced("console", "$ miniml top\nx"),
            fenced("console", "$ miniml tip\nx"),
            "no command tip",
        ),
        (fenced("json", '{"a": 1}'), fenced("json", '{"a": 1,}'), "json: "),
        (fenced("json", '{"a": 1}\n{"a": 2}'), fenced("json", '{"a": 1}\n{"a": 2'), "json: "),
        (fenced("yaml", "a: [1]"), fenced("yaml", "a: [1"), "yaml: "),
        (fenced("toml", "a = 1"), fenced("toml", "a = "), "toml: "),
        (fenced("ini", "[a]\nb = 1"), fenced("ini", "b = 1"), "ini: "),
        (fenced("hcl", "a = { b = 1 }"), fenced("hcl", "a = { b = "), "hcl: "),
    ],
)
def test_what_is_planted_is_found(right: str, wrong: str, words: str) -> None:
    """Of two pages that differ in one fault, the one with it has one problem, and the other none."""
    found = problems(HERE, wrong)

    assert problems(HERE, right) == []
    assert len(found) == 1
    assert words in found[0]


def test_a_problem_says_where(tmp_path: Path) -> None:
    """The line is the block's own, of the page that was read."""
    page = tmp_path / "page.md"
    page.write_text("# A page\n\nText.\n\n" + fenced("json", "{"), encoding="utf-8")

    assert [one.partition(":")[0] for one in problems(page)] == [f"{page}, line 7"]


@pytest.mark.parametrize(
    ("title", "anchor"),
    [
        ("Several models", {"several-models"}),
        ("What `serve` does", {"what-serve-does"}),
        ("GET /rollout", {"get-rollout"}),
        ("A - B", set()),  # a-b on the site, a---b on GitHub
    ],
)
def test_an_anchor_is_one_on_github_and_on_the_site(title: str, anchor: set[str]) -> None:
    """A heading that the two name differently cannot be linked to."""
    assert anchors(f"# {title}\n") == anchor


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("a b | c d", [["a", "b"], ["c", "d"]]),
        ("a 'b | c' # d", [["a", "b | c"]]),
        ('a ";" b', [["a", ";", "b"]]),
        ("a 2>&1 >b c", [["a", "c"]]),
        ("a &&\\\n b; c", [["a"], ["b"], ["c"]]),
        ("a 'b\nc' d", [["a", "b\nc", "d"]]),
        ("a $(b c)", [["a", "$"], ["b", "c"]]),
    ],
)
def test_a_script_is_its_commands(script: str, expected: list[list[str]]) -> None:
    """Pipes, lists, substitutions, quotations, continued lines and redirections are told apart."""
    assert [words for words in simple_commands(script) if words] == expected


def test_a_page_asks_for_each_reference_once() -> None:
    """What is made of the code stands on one page each, and nowhere twice."""
    texts = [page.read_text(encoding="utf-8") for page in pages()]

    assert {asked: sum(text.count(asked) for text in texts) for asked in MADE} == dict.fromkeys(
        MADE, 1
    )
    assert not any(asked in filled("\n".join(texts)) for asked in MADE)


def test_every_command_is_in_its_reference() -> None:
    """A heading for each command and group, and a row for each of its options."""
    page = commands.page()
    titles = {line.lstrip("# ") for line in page.splitlines() if line.startswith("#")}
    every = list(commands.every_command())

    assert len(every) > 40
    assert {words for words, _, _ in every} == titles
    for words, command, _ in every:
        part = page.partition(f" {words}\n")[2].partition("\n#")[0]
        for flag in commands._options(command) - {"--help"}:
            assert not flag.startswith("-") or flag in part, f"{words} {flag}"


def test_every_example_of_the_help_is_a_command() -> None:
    """What --help shows as an example would be taken."""
    assert problems(HERE, commands.page()) == []


def test_every_path_is_in_its_reference() -> None:
    """A heading for each method of each path and for each type, and all links between them lead there."""
    page, document = contract.page(), contract.document()
    headings = anchors(page)

    for path, operations in document["paths"].items():
        assert methods(path) >= {method.upper() for method in operations}
        for method in operations:
            assert f"\n### {method.upper()} {path}\n" in f"\n{page}"
    assert {name.lower() for name in document["components"]["schemas"]} <= headings
    assert problems(HERE, page) == []


def test_unread_languages_are_used() -> None:
    """What needs no check is known by name, and is no more than that."""
    used = {block.language for page in pages() for block in blocks(page.read_text("utf-8"))}

    assert "text" in used
    assert not UNREAD.keys() & {"bash", "sh", "python", "json", "yaml"}


def listed(nav: Any) -> list[str]:
    """The pages that a `nav` of mkdocs names."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in listed(part)]


def test_the_site_has_every_page() -> None:
    """Each page stands in mkdocs.yml's navigation, once."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    assert sorted(listed(config["nav"])) == sorted(
        str(page.relative_to(SITE)) for page in pages() if page.is_relative_to(SITE)
    )
