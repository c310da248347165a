"""What is wrong with the commands of a script that people copy from a page. Nothing of it is run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

from docs import contract
from docs.commands import refusal
from serving.access.gate import OPEN_PATHS

ROOT = Path(__file__).parent.parent
_OPERATORS = set("();<>|&")
_QUOTED = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*\"""")
# Quoted operators, while quotations are taken off: characters that no page has.
_HIDE = {ord(sign): chr(0xE000 + ord(sign)) for sign in _OPERATORS}
_SHOW = {ord(hidden): chr(sign) for sign, hidden in _HIDE.items()}
_ASSIGNMENT = re.compile(r"\w+=")
_TARGET = re.compile(r"^([a-z][a-z-]*(?: [a-z][a-z-]*)*):(?!=)", re.MULTILINE)
_OURS = re.compile(r"https?://(?:127\.0\.0\.1|localhost):8000(?:/|$)")
_GAPS = (contract.NAME, contract.VERSION)
# HAProxy's own answer, which balancers ask for; it is in no contract.
_BEHIND = ("/-/healthz",)
_DATA = ("-d", "--data", "--data-binary", "--data-raw", "--json", "-F", "-T")


def problems(script: str) -> list[str]:
    """A sentence each: a command, option, target or path that is not there, an argument that is missing."""
    found = [_problem(words) for words in simple_commands(script)]
    return [problem for problem in found if problem]


def simple_commands(script: str) -> Iterator[list[str]]:
    """The words of each command: of a pipe, a list or a substitution each, redirections left out."""
    for line in whole_lines(script):
        yield from _apart(_words(line))


def whole_lines(script: str) -> Iterator[str]:
    """The lines that have something in them; what a backslash or an open quotation continues is one."""
    pending = ""
    for line in script.replace("\\\n", " ").splitlines():
        pending += f"{line}\n"
        try:
            words = _words(pending)
        except ValueError:  # a quotation that goes on in the next line
            continue
        if words:
            yield pending.strip()
        pending = ""


def _words(line: str) -> list[str]:
    """Operators are words of their own; quoted ones hidden. ValueError for an open quotation."""
    hidden = _QUOTED.sub(lambda match: match[0].translate(_HIDE), line)
    lexer = shlex.shlex(hidden, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    return list(lexer)


def _apart(words: Sequence[str]) -> Iterator[list[str]]:
    command: list[str] = []
    rest = iter(words)
    for word in rest:
        if set(word) - _OPERATORS or not word:
            command.append(word.translate(_SHOW))
        elif "<" in word or ">" in word:
            next(rest, None)
            if command[-1:] in (["1"], ["2"]):  # the number of what is redirected
                command.pop()
        else:
            yield command
            command = []
    yield command


def _problem(words: list[str]) -> str | None:
    while words and _ASSIGNMENT.match(words[0]):
        words = words[1:]
    if not words:
        return None
    name = words[0].removeprefix(".venv/bin/")
    if name == "miniml":
        return refusal(words[1:])
    if name == "make":
        return _make(words[1:])
    if name == "curl":
        return _curl(words[1:])
    return None


def _make(words: Sequence[str]) -> str | None:
    wanted = [word for word in words if "=" not in word and not word.startswith("-")]
    unknown = [word for word in wanted if word not in targets()]
    return f"make has no target {unknown[0]}" if unknown else None


def _curl(words: Sequence[str]) -> str | None:
    """Of a server of ours: whether it has the path, for the method that curl would use."""
    sends = any(word in _DATA for word in words)
    method = "POST" if sends else "GET"
    for option, value in pairwise(words):
        if option in ("-X", "--request"):
            method = value
    for url in filter(_OURS.match, words):
        path = urlsplit(url).path or "/"
        if method not in methods(path):
            return f"a server has no {method} {path}"
    return None


@cache
def targets() -> frozenset[str]:
    """Of the Makefile."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return frozenset(name for names in _TARGET.findall(text) for name in names.split())


def methods(path: str) -> frozenset[str]:
    """What may be done at *path* of a server; empty where nothing is served."""
    found = {method for known, allowed in _paths() if _fits(path, known) for method in allowed}
    return frozenset(found | ({"GET"} if path in OPEN_PATHS or path in _BEHIND else set()))


def _fits(path: str, known: str) -> bool:
    here, there = path.split("/"), known.split("/")
    return len(here) == len(there) and all(
        mine == yours or (yours in _GAPS and mine) for mine, yours in zip(here, there, strict=True)
    )


@cache
def _paths() -> tuple[tuple[str, frozenset[str]], ...]:
    paths = contract.document()["paths"]
    return tuple(
        (path, frozenset(method.upper() for method in operations))
        for path, operations in paths.items()
    )
