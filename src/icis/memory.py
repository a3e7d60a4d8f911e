"""What the C library does with large blocks of memory that are given back."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# of glibc's malloc.h, with what it does by itself once large blocks have come and gone
TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 * 2**20, TRIM_THRESHOLD: 64 * 2**20}
KEEPING = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}

_lock = threading.Lock()
_users = 0


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep what tensors give back, for those that come after them; then let go of it.

    glibc gives every block of more than 32 MiB back to the system, and the next one is new memory,
    a page fault for each 4 KiB of it (docs/performance.md has what that costs). This holds for the
    process's main thread. Other C libraries are left as they are.
    """
    _enter()
    try:
        yield
    finally:
        _leave()


def _enter() -> None:
    global _users
    with _lock:
        _users += 1
        if _users == 1:
            _set(KEEPING)


def _leave() -> None:
    global _users
    with _lock:
        _users -= 1
        if _users == 0 and _set(USUAL):
            ctypes.CDLL(None).malloc_trim(0)


def _set(values: dict[int, int]) -> bool:
    """Return whether there is a glibc that takes the values."""
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):  # another C library
        return False
    return all(library.mallopt(key, value) == 1 for key, value in values.items())
