"""Receipts of what was fetched whole, and finding it again: ``fetched:<source>/<glob>``.

The same content gives the same receipt: there are no times and no addresses in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from icis import layout
from icis.errors import IcisError
from icis.fetching.catalogue import (
    PREFIX,
    FileName,
    Md5,
    Sha256,
    Source,
    read_catalogue,
    source_of,
)
from icis.schema import Strict, canonical_hash

if TYPE_CHECKING:
    from icis.fetching.hashing import Digest
    from icis.fetching.unpacking import Member

__all__ = [
    "FetchedFile",
    "Receipt",
    "content",
    "fingerprint",
    "locate",
    "make_receipt",
    "read_receipt",
    "source_of",
    "write_receipt",
]

JUNK = "__MACOSX"
"""A folder that a Mac adds to a zip; what it holds only looks like the files themselves."""
SHOWN = 5


class FetchedFile(Strict):
    """A file as it was downloaded."""

    name: FileName
    size: int
    md5: Md5
    sha256: Sha256


class Receipt(Strict):
    """A source that was fetched whole."""

    source: str
    fingerprint: Sha256
    """Of the part of the catalogue entry that decides on what the folder holds."""
    files: list[FetchedFile]
    n_files: int
    """Files in the folder."""
    bytes: int
    """Bytes in the folder."""
    content: Sha256
    """Of the list of files: paths, sizes, hashes."""

    def holds(self, source: Source) -> bool:
        """Tell whether this is what a catalogue entry asks for.

        A checksum that the entry did not have then is compared with what was downloaded: to learn
        it later is no reason to fetch gigabytes again.
        """
        if self.fingerprint != fingerprint(source):
            return False
        published = {file.name: file for file in source.files}
        return all(
            expected in (None, getattr(file, what))
            for file in self.files
            for what in ("size", "md5", "sha256")
            for expected in [getattr(published[file.name], what)]
        )


def fingerprint(source: Source) -> str:
    """Return the hash of what an entry makes of its files: which there are, unpacked or not."""
    return canonical_hash([{"name": file.name, "unpack": file.unpack} for file in source.files])


def make_receipt(
    name: str, source: Source, digests: Mapping[str, Digest], members: Iterable[Member]
) -> Receipt:
    """Return the receipt of a source's downloaded files and what is in its folder."""
    listed = list(members)
    return Receipt(
        source=name,
        fingerprint=fingerprint(source),
        files=[
            FetchedFile(name=file, size=each.size, md5=each.md5, sha256=each.sha256)
            for file, each in sorted(digests.items())
        ],
        n_files=len(listed),
        bytes=sum(member.size for member in listed),
        content=content(listed),
    )


def content(members: Iterable[Member]) -> str:
    """Return the hash of a list of files, whatever its order."""
    state = hashlib.sha256()
    for member in sorted(members, key=lambda member: member.path):
        state.update(f"{member.path}\0{member.size}\0{member.sha256}\n".encode())
    return state.hexdigest()


def write_receipt(receipt: Receipt) -> None:
    """Write a receipt."""
    from icis.artifacts import write_json

    write_json(layout.receipt(receipt.source), receipt.model_dump(mode="json"))


def read_receipt(name: str) -> Receipt | None:
    """Return a source's receipt; None if there is none, or one that does not stand for a folder."""
    if not layout.fetched(name).is_dir() or not layout.manifest(name).is_file():
        return None
    try:
        return Receipt.model_validate_json(layout.receipt(name).read_bytes(), strict=True)
    except (FileNotFoundError, ValidationError):
        return None


def locate(text: str) -> Path:
    """Return the one file or folder that a ``fetched:<source>/<glob>`` means.

    ``*`` stands for anything in a name, ``**`` for any folders; without a glob it is the source's
    whole folder.

    Raises
    ------
    IcisError
        The source is unknown or was not fetched; nothing matches, or more than one thing does.
    """
    source = source_of(text)
    if source is None:
        raise IcisError(f"{text!r}: expected {PREFIX}<source>/<glob>")
    folder = layout.fetched(source)
    if not layout.receipt(source).is_file() or not folder.is_dir():
        read_catalogue().source(source)  # a name that is unknown gets a suggestion
        raise IcisError(f"{text}: {source} was not fetched; run: icis data fetch {source}")
    glob = text.removeprefix(PREFIX).partition("/")[2].strip("/")
    if not glob:
        return folder
    if ".." in Path(glob).parts:
        raise IcisError(f"{text}: '..' leads out of {folder}; expected a path or glob inside")
    found = _matches(folder, glob)
    if len(found) == 1:
        return found[0]
    if not found:
        raise IcisError(
            f"{text}: nothing in {folder} matches; look what there is, or verify that it is whole: "
            f"icis data verify {source}"
        )
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    listed = ", ".join(path.relative_to(folder).as_posix() for path in found[:SHOWN])
    raise IcisError(f"{text}: expected one match in {folder}, found {listed}{more}; be more exact")


def _matches(folder: Path, glob: str) -> list[Path]:
    try:
        found = {path for path in folder.glob(glob) if JUNK not in path.relative_to(folder).parts}
    except (ValueError, NotImplementedError) as error:
        raise IcisError(f"fetched glob {glob!r} is none: {error}") from error
    return sorted(found)
