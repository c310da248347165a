"""Giving memory back to the kernel that only loading needed.

What a library or a file of weights was read once for, at its start, stays in the process's share of
memory for good, though nobody looks at it again.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path

_MAPS = Path("/proc/self/smaps")
_STATUS = Path("/proc/self/status")


def give_back_memory() -> None:
    """Return to the kernel what was freed, and pages of files that can be read again.

    Demo's package: 8 and 18 MB. Does nothing where the system has no such calls.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError, ValueError):  # no Linux, another C library
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)
        libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        for start, end in clean_mappings(_MAPS.read_text(encoding="utf-8").splitlines()):
            libc.madvise(start, end - start, mmap.MADV_DONTNEED)


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind; 0 where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name == "RssAnon":
                return int(value.split()[0]) * 1024  # they say kB and mean KiB
    return 0


def clean_mappings(maps: Iterable[str]) -> Iterator[tuple[int, int]]:
    """Start and end of each mapping that is as its file is, and that nobody can write to.

    Of these alone nothing is lost: the next look reads the file, from the page cache as a rule. A
    library's relocated part cannot be written to either, but is not what its file says, in memory or
    in swap. maps: lines as in /proc/PID/smaps.
    """
    mapping: tuple[int, int] | None = None
    for line in maps:
        first, *fields = line.split(maxsplit=5)
        if not first.endswith(":"):
            start, _, end = first.partition("-")
            is_read_only_file = "w" not in fields[0] and fields[-1].startswith("/")
            mapping = (int(start, 16), int(end, 16)) if is_read_only_file else None
        elif first in ("Anonymous:", "Swap:") and fields[0] != "0":
            mapping = None
        elif first == "VmFlags:" and mapping:  # the last of a mapping's lines
            yield mapping
