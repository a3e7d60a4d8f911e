"""Room on the disk: asked for before work begins, explained where it runs out on the way."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from icis.errors import IcisError

FULL = (errno.ENOSPC, errno.EDQUOT)


def in_words(size: int) -> str:
    """Return a number of bytes as people say it, such as ``1.2 GB``."""
    value, unit = float(size), "B"
    for bigger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, bigger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def require_space(folder: Path, needed: int, what: str) -> None:
    """Refuse what needs more bytes than are free on the disk of a folder (which is made)."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise IcisError(
            f"{what} needs {in_words(needed)}, but the disk of {folder} has only "
            f"{in_words(free)} left; make room, or let data/ be a link to a folder on another disk"
        )


@contextmanager
def explaining_full_disk(folder: Path) -> Iterator[None]:
    """Turn the system's "no space left" while writing into words."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise IcisError(
            f"the disk of {folder} is full; make room, or let data/ be a link to a folder on "
            "another disk, then run the same command again (it goes on where it stopped)"
        ) from error
