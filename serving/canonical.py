"""Close enough is equal: a package may have its texts read in a canonical form.

Texts with one form are one text to the model: they share an answer and an entry of the cache. A
package names its function by a dotted path, `module:function`. Packages come from a registry, and a
path such as `os:system` would run what callers send; so only the functions of this module are found
by themselves, and any other path must be named by whoever runs the command, too.
"""

from __future__ import annotations

import importlib
import os
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from serving.errors import EngineFailed, PackageError

ALLOW_CODE = "MINIML_ALLOW_CODE"  # the setting `allow_code`, for commands that have no such option


def collapsed(text: str) -> str:
    """Unicode NFC; each run of white space is one space, and there is none at either end."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def casefolded(text: str) -> str:
    """Unicode NFC; letters that differ only in case are equal (a canonical caseless match)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).casefold())


def collapsed_casefolded(text: str) -> str:
    """Both: `casefolded`, with white space as in `collapsed`."""
    return collapsed(casefolded(text))


BUILT_IN = {
    f"serving.canonical:{function.__name__}": function
    for function in (collapsed, casefolded, collapsed_casefolded)
}


class Canonicalizer:
    """The function that *path* names."""

    def __init__(self, path: str, function: Callable[[str], str]) -> None:
        self.path = path
        self._function = function

    def forms(self, texts: Sequence[str]) -> list[str]:
        """The canonical form of each text; the text itself where that would be empty or blank.

        Raises `EngineFailed`, naming the place of the text, when the function raises or gives no
        text: the package's fault, not the caller's.
        """
        return [self._form(text, place) for place, text in enumerate(texts)]

    def _form(self, text: str, place: int) -> str:
        try:
            form = self._function(text)
            str.encode(form)  # half a surrogate pair is no text; the tokenizer would raise
        except Exception as error:
            raise EngineFailed(
                f"the canonicaliser {self.path} failed on text {place}"
                f" ({type(error).__name__}: {error})."
            ) from error
        return form if form and not form.isspace() else text


def refuse_unknown_code(path: str | None, allow_code: str | None) -> None:
    """Raise `PackageError` unless *path* is one of `BUILT_IN`, none at all, or *allow_code*.

    allow_code: the path that whoever runs this trusts, besides that in the environment.
    """
    if path is None:
        return
    if not _is_path(path):
        raise PackageError(f"{path!r} is no canonicaliser; it is written module:function.")
    if path in BUILT_IN or path in (allow_code, os.environ.get(ALLOW_CODE)):
        return
    raise PackageError(
        f"The package has its texts changed by {path}, which is not miniml's own code; if you trust"
        f" it, say --allow-code {path} or set {ALLOW_CODE}={path}."
    )


def open_canonicalizer(path: str | None, *, allow_code: str | None = None) -> Canonicalizer | None:
    """What *path* names; None for none.

    Raises `PackageError` for code that nobody allowed, or that cannot be imported here.
    """
    refuse_unknown_code(path, allow_code)
    if path is None:
        return None
    return Canonicalizer(path, BUILT_IN.get(path) or _imported(path))


def _is_path(path: object) -> bool:
    if not isinstance(path, str):  # a package's JSON may hold anything
        return False
    module, _, name = path.partition(":")
    return all(part.isidentifier() for part in (*module.split("."), *name.split(".")))


def _imported(path: str) -> Callable[[str], str]:
    module, _, name = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # an import runs somebody else's code
        raise PackageError(
            f"The canonicaliser {path} cannot be imported here ({error}); install it, or put it on"
            " PYTHONPATH."
        ) from error
    if not callable(found):
        raise PackageError(f"The canonicaliser {path} is no function.")
    return found  # type: ignore[no-any-return]
