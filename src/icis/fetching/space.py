"""Room on the disk: asked for before work begins."""

from __future__ import annotations

import shutil
from pathlib import Path

from icis.errors import IcisError


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
