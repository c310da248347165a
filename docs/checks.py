"""What is wrong with a page: links and anchors that lead nowhere, blocks that are not what they say.

`problems` is all of it; it runs nothing but `bash -n`, which reads a script and does not run it.
"""

from __future__ import annotations

import ast
import configparser
import importlib
import json
import re
import subprocess
import tomllib
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import hcl2
import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from docs import shell
from docs.commands import misnamed
from docs.hooks import filled

ROOT = Path(__file__).parent.parent
SITE = ROOT / "docs"
ROOMS = ("benchmarks", "deploy", "docs", "export", "registry", "serving", "training")
# Languages of blocks that nothing here can read, and why.
UNREAD = {
    "text": "output, pictures, and lines with gaps for the reader to fill",
    "diff": "two versions of something, neither of them whole",
    "promql": "only promtool reads it, which is not on every machine",
    "nginx": "only nginx reads it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """A fenced block. line: of its first fence, from 1. language: "" where it names none."""

    line: int
    language: str
    text: str


def pages() -> list[Path]:
    """Every page that is written for people: the README's, and those of the site."""
    return [ROOT / "README.md", *sorted(SITE.rglob("*.md"))]


def blocks(markdown: str) -> list[Fence]:
    """The fenced blocks of a page, in order."""
    return [
        Fence(
            line=token.map[0] + 1 if token.map else 0,
            language=(token.info.split() or [""])[0],
            text=token.content,
        )
        for token in _parsed(markdown)
        if token.type == "fence"
    ]


def problems(page: Path, markdown: str | None = None) -> list[str]:
    """A sentence each. markdown: instead of what stands in *page*."""
    text = page.read_text(encoding="utf-8") if markdown is None else markdown
    found = [
        f"line {block.line}: {problem}" for block in blocks(text) for problem in _in_block(block)
    ]
    for line, token in _inline(text):
        if token.type == "code_inline" and token.content.startswith("miniml "):
            found.extend(_named(misnamed(token.content.split()[1:]), line))
        elif href := token.attrGet("href") or token.attrGet("src"):
            found.extend(_named(_astray(page, text, str(href)), line))
    name = page.relative_to(ROOT) if page.is_relative_to(ROOT) else page
    return [f"{name}, {one}" for one in found]


def anchors(markdown: str) -> set[str]:
    """What a link to a heading may say: what both GitHub and the site make of the heading."""
    tokens = _parsed(filled(markdown))
    titles = [
        "".join(child.content for child in after.children or ())
        for token, after in pairwise(tokens)
        if token.type == "heading_open"
    ]
    return {slug for title in titles if (slug := _on_site(title)) == _on_github(title)}


def _parsed(markdown: str) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(markdown)


def _inline(markdown: str) -> Iterator[tuple[int, Token]]:
    """Links, images and code within sentences and tables, each with its line."""
    for token in _parsed(markdown):
        for child in token.children or ():
            yield (token.map[0] + 1 if token.map else 0), child


def _named(problem: str | None, line: int) -> list[str]:
    return [] if problem is None else [f"line {line}: {problem}"]


def _astray(page: Path, markdown: str, href: str) -> str | None:
    """Why a link leads nowhere; None where it leads somewhere, or to another site."""
    if re.match(r"[a-z][a-z0-9+.-]*:", href):
        return None
    path, _, anchor = href.partition("#")
    target = (page.parent / path).resolve() if path else page
    if path and not target.is_relative_to(SITE if page.is_relative_to(SITE) else ROOT):
        return f"{href} leads out of what is published"
    if path and not target.is_file():
        return f"{href} leads to no file"
    if anchor:
        text = markdown if target == page else target.read_text(encoding="utf-8")
        if target.suffix != ".md" or anchor not in anchors(text):
            return f"{href} leads to no heading"
    return None


def _on_site(title: str) -> str:
    """As Python-Markdown's `toc` names a heading."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def _on_github(title: str) -> str:
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


def _in_block(block: Fence) -> list[str]:
    if not block.language:
        return ["a block that names no language"]
    if block.language in UNREAD:
        return []
    if (read := READERS.get(block.language)) is None:
        return [f"nothing here reads {block.language}"]
    return [f"{block.language}: {problem}" for problem in read(block.text)]


def _shell(text: str) -> list[str]:
    syntax = subprocess.run(
        ["bash", "-n"],  # noqa: S607 - whichever bash reads it
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    return [syntax.stderr.strip()] if syntax.returncode else shell.problems(text)


def _console(text: str) -> list[str]:
    """What is typed behind a `$`, the rest being what came back; all of it, where there is no `$`."""
    typed = [line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")]
    return _shell("\n".join(typed) or text)


def _python(text: str) -> list[str]:
    """Whether it compiles, and whether what it imports of ours is there."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        return [str(error)]
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found += [_missing(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [_missing(alias.name, None) for alias in node.names]
    return [problem for problem in found if problem]


def _missing(module: str, name: str | None) -> str:
    if module.partition(".")[0] not in ROOMS:
        return ""
    try:
        there = importlib.import_module(module)
    except ImportError as error:
        return str(error)
    return "" if name is None or hasattr(there, name) else f"{module} has no {name}"


def _reader(read: Callable[[str], object]) -> Callable[[str], list[str]]:
    """What *read* says when it cannot."""

    def problems_of(text: str) -> list[str]:
        try:
            read(text)
        except Exception as error:  # noqa: BLE001 - each parser has its own kinds
            return [" ".join(str(error).split()) or type(error).__name__]
        return []

    return problems_of


def _json(text: str) -> None:
    """One document, or one a line."""
    try:
        json.loads(text)
    except ValueError:
        lines = text.strip().splitlines()
        if len(lines) == 1 or not all(line.startswith("{") for line in lines):
            raise
        for line in lines:
            json.loads(line)


READERS: dict[str, Callable[[str], list[str]]] = {
    "bash": _shell,
    "sh": _shell,
    "console": _console,
    "python": _python,
    "json": _reader(_json),
    "yaml": _reader(lambda text: list(yaml.safe_load_all(text))),
    "toml": _reader(tomllib.loads),
    "hcl": _reader(hcl2.loads),
    "ini": _reader(lambda text: configparser.ConfigParser(interpolation=None).read_string(text)),
}
