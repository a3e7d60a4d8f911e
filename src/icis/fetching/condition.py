"""In what condition the fetched files are: whole or damaged, there or not."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from icis import layout
from icis.fetching.catalogue import Catalogue, read_catalogue
from icis.fetching.fetch import locked
from icis.fetching.hashing import bar
from icis.fetching.manifests import read_manifest
from icis.fetching.receipts import read_receipt
from icis.fetching.transfer import Part


@dataclass(frozen=True)
class Damage:
    """Paths in a source's folder that are not as they were fetched; all empty if it is whole."""

    missing: list[str]
    changed: list[str]
    extra: list[str]

    def __bool__(self) -> bool:
        """Tell whether there is any."""
        return bool(self.missing or self.changed or self.extra)


def verify(source_name: str, *, progress: bool = True) -> Damage:
    """Hash all files of a source anew and compare them with the list made when it was fetched.

    Raises
    ------
    IcisError
        There is no such source; it was not fetched; the list is damaged.
    """
    read_catalogue().source(source_name)
    folder = layout.fetched(source_name)
    with locked(source_name):
        members = read_manifest(source_name)
        found = set(_files(folder))
        changed = []
        total = sum(member.size for member in members.values())
        with bar(f"verify {source_name}", total=total, progress=progress) as shown:
            for path in sorted(found & set(members)):
                member = members[path]
                if (folder / path).stat().st_size != member.size or (
                    _sha256(folder / path) != member.sha256
                ):
                    changed.append(path)
                shown.update(member.size)
    return Damage(sorted(set(members) - found), changed, sorted(found - set(members)))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> Iterator[str]:
    """Return the paths of all that is no folder, relative to the folder given."""
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in [*files, *links]:
            yield Path(parent, name).relative_to(folder).as_posix()


FETCHED, OUTDATED, PARTLY, ABSENT = "fetched", "outdated", "partly downloaded", "absent"


@dataclass(frozen=True)
class Status:
    """How far a source is; sizes in bytes."""

    source: str
    state: str
    """fetched, outdated (the catalogue changed since), partly downloaded, or absent."""
    n_files: int
    unpacked: int
    downloaded: int
    """Bytes in the folder of downloads: an unfinished download, or archives that were kept."""
    size: int | None
    """Bytes to download, None where they are not known."""


def status() -> list[Status]:
    """Return how far each source of the catalogue is, in the catalogue's order."""
    catalogue = read_catalogue()
    return [_status(name, catalogue) for name in catalogue.sources]


def _status(name: str, catalogue: Catalogue) -> Status:
    source, receipt = catalogue.source(name), read_receipt(name)
    files = [layout.downloads() / name / file.name for file in source.files]
    parts = [Part(path).path for path in files]
    downloaded = sum(path.stat().st_size for path in [*files, *parts] if path.exists())
    if receipt is not None:
        state = FETCHED if receipt.holds(source) else OUTDATED
        return Status(name, state, receipt.n_files, receipt.bytes, downloaded, source.size)
    return Status(name, PARTLY if downloaded else ABSENT, 0, 0, downloaded, source.size)
