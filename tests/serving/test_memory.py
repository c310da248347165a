"""Laws of giving memory back: nothing is lost, and only what a file still says is given."""

from __future__ import annotations

import numpy as np
import pytest

from serving.engine import Engine
from serving.memory import anonymous_bytes, clean_mappings, give_back_memory
from serving.package import Package

CLEAN = """\
1000-3000 r-xp 00000000 fe:00 42    /usr/lib/a library.so
Rss:                   8 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me
"""
NOT_CLEAN = {
    "written to": CLEAN.replace("r-xp", "rw-p"),
    "relocated": CLEAN.replace("Anonymous:             0", "Anonymous:             8"),
    "relocated and swapped": CLEAN.replace("Swap:                  0", "Swap:                  8"),
    "no file": CLEAN.replace("/usr/lib/a library.so", "[vdso]"),
    "no name": CLEAN.replace("/usr/lib/a library.so", ""),
}


def test_a_file_that_is_only_read_is_clean() -> None:
    """Its place is given, wherever it stands among others."""
    maps = "".join([*NOT_CLEAN.values(), CLEAN, *NOT_CLEAN.values()])

    assert list(clean_mappings(maps.splitlines())) == [(0x1000, 0x3000)]


@pytest.mark.parametrize("why", NOT_CLEAN)
def test_what_would_be_lost_is_kept(why: str) -> None:
    """What was or may be changed since it was read is no copy of a file."""
    maps = CLEAN + NOT_CLEAN[why]

    assert len(list(clean_mappings(maps.splitlines()))) == 1


def test_answers_stay_what_they_were(package: Package) -> None:
    """A loaded engine computes the same bits afterwards, with libraries and weights read again."""
    engine = Engine(package, threads=1, streams=1)
    texts = [golden.text for golden in package.golden()]
    before = engine.logits(texts, None)

    give_back_memory()

    assert np.array_equal(engine.logits(texts, None), before)
    assert np.array_equal(Engine(package, threads=1, streams=1).logits(texts, None), before)


def test_what_is_taken_is_seen() -> None:
    """Memory that was written to is among the process's own, to within what else it does."""
    before_bytes = anonymous_bytes()
    taken = b"x" * 64 * 2**20
    grown_bytes = anonymous_bytes() - before_bytes

    assert 60 * 2**20 < grown_bytes < 80 * 2**20
    assert len(taken) == 64 * 2**20
