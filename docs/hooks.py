"""What mkdocs calls while it builds: pages that ask for a reference get it, made of the code.

A page asks by a line of its own, so that it has a place in links, and is a page where no site is built.
"""

from __future__ import annotations

from docs import commands, contract

MADE = {
    "<!-- every command -->": commands.page,
    "<!-- every path -->": contract.page,
}


def on_page_markdown(markdown: str, **_: object) -> str:
    """mkdocs' event: the page before it becomes HTML."""
    return filled(markdown)


def filled(markdown: str) -> str:
    """*markdown* with what was made in place of what asked for it."""
    for asked, make in MADE.items():
        if asked in markdown:
            markdown = markdown.replace(asked, make())
    return markdown
