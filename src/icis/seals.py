"""Seals: the hashes of an artifact's files in a file beside it, by which later damage is found.

``<artifact>.sha256`` is what ``sha256sum --check`` reads in that folder. It is written when the
artifact is whole; Parquet's own page checksums, which are verified whenever an artifact is read,
leave its metadata and its structure out.
"""

from __future__ import annotations

from pathlib import Path

from icis.artifacts import file_sha256, write_text
from icis.errors import IcisError


def seal_of(path: Path) -> Path:
    """Return where an artifact's seal lies."""
    return path.with_name(f"{path.name}.sha256")


def seal(path: Path, *others: Path) -> None:
    """Write an artifact's seal; ``others`` are files in its folder that belong to it."""
    lines = [f"{file_sha256(file)}  {file.name}\n" for file in (*others, path)]
    write_text(seal_of(path), "".join(lines))


def damaged(path: Path) -> list[Path]:
    """Return the files of an artifact that are not what was sealed.

    Files that are absent are not judged (what was made of them outlives them), nor is an artifact
    without a seal, as one of an earlier version. A seal that cannot be read vouches for nothing:
    then the artifact itself is what is returned.
    """
    if not path.exists():
        return []
    try:
        lines = seal_of(path).read_text(encoding="utf-8").splitlines()
        sealed = {
            path.with_name(name): sha for sha, name in (line.split("  ", 1) for line in lines)
        }
    except FileNotFoundError:
        return []
    except (OSError, ValueError):
        return [path]
    bad = [file for file, sha256 in sealed.items() if file.exists() and differs(file, sha256)]
    return bad if path in sealed else [*bad, path]


def differs(path: Path, sha256: str) -> bool:
    """Say whether a file is missing, unreadable or has another hash."""
    try:
        return file_sha256(path) != sha256
    except IcisError:
        return True
