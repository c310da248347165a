"""A page beside a record: one self-contained file made of a template; all of it or nothing."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any


def render(room: str, **values: Any) -> str:
    """`page.html.j2` of *room*, a package, with *values*; what comes from a record is escaped."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    source = files(room).joinpath("page.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(**values)


def write_whole(page: str, path: Path) -> Path:
    """*page* at *path*, or nothing."""
    part = path.with_suffix(".part")
    part.write_text(page, encoding="utf-8")
    return part.replace(path)
