"""The command line as a page, and whether a line of a page is one that `miniml` takes.

Read from the commands themselves, as `--help` is. Typer keeps its own copy of click, whose types are
private, so commands and contexts are Any here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from typer.exceptions import TyperException
from typer.main import get_command

import miniml

_EXAMPLE = re.compile(r"\[bold\](miniml .+?)\[/\]", re.DOTALL)
# As typer writes it behind an option's help: "[default: 8000]", "[required]".
_REMARK = re.compile(r"\s*\[(default: .+|required)\]$")
_ALTERNATIVES = re.compile(r"[a-z]+([|-][a-z]+)*")


@cache
def root() -> Any:
    """The command `miniml`, a group."""
    return get_command(miniml.app)


def every_command() -> Iterator[tuple[str, Any, Any]]:
    """Each command and group below `miniml`, in the order of --help: its words, itself, its context."""
    yield from _below("miniml", root(), None)


def page() -> str:
    """Markdown: a heading, what it is for, examples, and a table of options for each."""
    parts = []
    for words, command, context in every_command():
        level = "#" * len(words.split())
        told, examples = _help(command)
        parts.append(f"{level} {words}\n\n{told}\n")
        if examples:
            parts.append("```sh\n" + "\n".join(examples) + "\n```\n")
        if not hasattr(command, "commands"):
            parts.append(_table(command, context))
    return "\n".join(parts)


def refusal(words: Sequence[str]) -> str | None:
    """Why `miniml` would not take *words*, which follow its name; None where it would begin to work."""
    command, path, rest = root(), "miniml", list(words)
    while children := getattr(command, "commands", None):
        if not rest:
            return f"{path} wants a command"
        if rest[0].startswith("--"):
            return None if rest[0] in _options(command) else f"{path} has no {rest[0]}"
        if rest[0] not in children:
            return f"{path} has no command {rest[0]}"
        path, command = f"{path} {rest[0]}", children[rest[0]]
        rest = rest[1:]
    if "--help" in rest:
        return None
    try:
        command.make_context(path, rest)
    except TyperException as error:
        return f"{path}: {error.format_message()}"
    return None


def misnamed(words: Sequence[str]) -> str | None:
    """What of *words*, said in a sentence, is not there: a command or an option.

    In sentences `a|b` are two commands, and values may be left out.
    """
    command, path, rest = root(), "miniml", list(words)
    while rest and (children := getattr(command, "commands", None)):
        if not _ALTERNATIVES.fullmatch(rest[0]):
            break
        names = rest.pop(0).split("|")
        if strange := [name for name in names if name not in children]:
            return f"{path} has no command {strange[0]}"
        path, command = f"{path} {names[0]}", children[names[0]]
    known = _options(command)
    flags = [word.partition("=")[0] for word in rest if word.startswith("--")]
    strange = [flag for flag in flags if flag not in known]
    return f"{path} has no {strange[0]}" if strange else None


def _below(words: str, command: Any, parent: Any) -> Iterator[tuple[str, Any, Any]]:
    name = words.rpartition(" ")[2]
    context = command.make_context(name, [], parent=parent, resilient_parsing=True)
    if parent is not None:
        yield words, command, context
    for child in getattr(command, "commands", {}).values():
        yield from _below(f"{words} {child.name}", child, context)


def _options(command: Any) -> set[str]:
    flags = (flag for one in command.params for flag in (*one.opts, *one.secondary_opts))
    return {*flags, "--help"}


def _help(command: Any) -> tuple[str, list[str]]:
    """What a command is for, and its examples, which are paragraphs of their own."""
    told, examples = [], []
    for part in (command.help or "").split("\n\n"):
        if example := _EXAMPLE.fullmatch(part.strip()):
            examples.append(" ".join(example[1].split()))
        else:
            told.append(_EXAMPLE.sub(r"`\1`", part))
    return "\n\n".join(told), examples


def _table(command: Any, context: Any) -> str:
    rows = ["| option | meaning | default |", "|---|---|---|"]
    for parameter in command.params:
        name, told = parameter.get_help_record(context)
        remark = match[1] if (match := _REMARK.search(told)) else ""
        default = f"`{value}`" if (value := remark.removeprefix("default: ")) else ""
        default = "required" if remark == "required" else default
        rows.append(f"| `{_readable(name)}` | {_cell(_REMARK.sub('', told))} | {default} |")
    return "\n".join(rows) + "\n"


def _readable(name: str) -> str:
    """A parameter as a usage line has it: a list as what is repeated, an argument without its type."""
    name = re.sub(r"<list\[(\w+)\]>", r"<\1> ...", name)
    return name if name.startswith("-") else name.partition(" <")[0]


def _cell(text: str) -> str:
    """*text* within a table: neither a column's end nor a tag."""
    return text.replace("|", "&#124;").replace("<", "&lt;").replace("*", "&#42;")
