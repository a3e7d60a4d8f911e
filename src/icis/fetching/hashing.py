"""Size and checksums of a file, in one reading."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

CHUNK = 1 << 20


@dataclass(frozen=True)
class Digest:
    """What a file is known by: its size in bytes and two checksums in hexadecimal."""

    size: int
    md5: str
    sha256: str


def digest(path: Path, *, progress: bool = True) -> Digest:
    """Read a file once and return its size and checksums."""
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    with (
        path.open("rb") as file,
        bar(f"check {path.name}", total=path.stat().st_size, progress=progress) as shown,
    ):
        while chunk := file.read(CHUNK):
            md5.update(chunk)
            sha256.update(chunk)
            size += len(chunk)
            shown.update(len(chunk))
    return Digest(size, md5.hexdigest(), sha256.hexdigest())


def bar(
    what: str, *, total: int | None, done: int = 0, progress: bool = True, unit: str = "B"
) -> tqdm[NoReturn]:
    """Return a progress bar, quiet when not a terminal."""
    return tqdm(
        desc=what,
        total=total,
        initial=done,
        unit=unit,
        unit_scale=True,
        disable=None if progress else True,
        leave=False,
    )
