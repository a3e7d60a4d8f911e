"""Where images come from: files in a folder or in a tar that is read in place, or parts of them."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import polars as pl
from tqdm import tqdm

from icis.artifacts import file_sha256
from icis.datasets.paths import inside
from icis.errors import IcisError

Box = tuple[int, int, int, int]
"""A part of an image: left, top, right, bottom in pixels from 0; right and bottom are outside."""
PART_COLUMNS = ("left", "top", "right", "bottom")
"""An index's columns of boxes, beside ``file``."""


class ImageSource(Protocol):
    """Gives the bytes of files by their name inside the source."""

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""

    def has(self, name: str) -> bool:
        """Tell whether the file exists."""

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""

    def box(self, name: str) -> Box | None:
        """Return the part of the file's image that is meant; None is the whole image."""

    def fingerprint(self, names: list[str]) -> dict[str, str]:
        """Return hashes that change when one of the files does, by path."""


def open_source(root: Path) -> ImageSource:
    """Open a folder or an uncompressed tar."""
    if root.is_dir():
        return FolderSource(root)
    if root.is_file() and root.suffix == ".tar":
        return TarSource(root)
    if not root.exists():
        raise IcisError(f"{root} does not exist; it should be a folder of images or a .tar")
    raise IcisError(f"{root} is neither a folder nor a .tar (unpack a compressed archive first)")


@dataclass(frozen=True)
class FolderSource:
    """Files in a folder."""

    root: Path

    def names(self) -> list[str]:
        """Return the names of all files, sorted; links are followed."""
        found = []
        for folder, folders, files in os.walk(self.root, followlinks=True):
            here = Path(folder)
            folders[:] = [each for each in folders if not _leads_back(here / each)]
            found += [(here / each).relative_to(self.root).as_posix() for each in files]
        return sorted(found)

    def has(self, name: str) -> bool:
        """Tell whether the file exists."""
        return inside(self.root, name).is_file()

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        try:
            return inside(self.root, name).read_bytes()
        except OSError as error:
            raise IcisError(f"{self.root / name} cannot be read: {error.strerror}") from error

    def box(self, name: str) -> Box | None:
        """Return None: the whole image is meant."""
        return None

    def fingerprint(self, names: list[str]) -> dict[str, str]:
        """Return one hash over names and contents of all files."""
        state = hashlib.sha256()
        for name in tqdm(names, desc="hash", unit="image", disable=None, leave=False):
            state.update(name.encode() + b"\0")
            state.update(hashlib.sha256(self.read(name)).digest())
        return {f"{self.root}/ ({len(names)} images)": state.hexdigest()}


def _leads_back(folder: Path) -> bool:
    """Say whether a link leads to a folder that it lies in: a walk would never end."""
    if not folder.is_symlink():
        return False
    here = folder.parent.resolve()
    return folder.resolve() in (here, *here.parents)


@dataclass(frozen=True)
class TarSource:
    """Members of an uncompressed tar, read at their offset without unpacking."""

    path: Path

    @cached_property
    def members(self) -> dict[str, tuple[int, int]]:
        """Return offset and size of every regular file."""
        try:
            with tarfile.open(self.path, "r:") as archive:
                files = (member for member in archive if member.isreg())
                return {m.name.removeprefix("./"): (m.offset_data, m.size) for m in files}
        except (tarfile.TarError, OSError) as error:
            raise IcisError(f"{self.path} is no readable uncompressed tar: {error}") from error

    @cached_property
    def _descriptor(self) -> int:
        return os.open(self.path, os.O_RDONLY)

    def __getstate__(self) -> dict[str, Path]:
        """Leave the open file behind: another process opens its own."""
        return {"path": self.path}

    def names(self) -> list[str]:
        """Return the names of all files, sorted."""
        return sorted(self.members)

    def has(self, name: str) -> bool:
        """Tell whether the file exists."""
        return self._member(name) in self.members

    def _member(self, name: str) -> str:
        return inside(self.path, name).relative_to(self.path).as_posix()

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        if not self.has(name):
            raise IcisError(f"{self.path} has no member {name!r}")
        offset, size = self.members[self._member(name)]
        data = os.pread(self._descriptor, size, offset)
        if len(data) != size:
            raise IcisError(f"{self.path} is cut off inside {name!r}")
        return data

    def box(self, name: str) -> Box | None:
        """Return None: the whole image is meant."""
        return None

    def fingerprint(self, names: list[str]) -> dict[str, str]:
        """Return the hash of the whole tar."""
        return {str(self.path): file_sha256(self.path)}


@dataclass(frozen=True)
class PartsSource:
    """Images under names of their own: a file each, or a part of one."""

    files: ImageSource
    parts: Mapping[str, tuple[str, Box | None]]
    """Name to the file inside ``files`` and the box in it."""

    def names(self) -> list[str]:
        """Return the names of all parts, sorted."""
        return sorted(self.parts)

    def has(self, name: str) -> bool:
        """Tell whether there is such a part, and its file."""
        return name in self.parts and self.files.has(self.parts[name][0])

    def read(self, name: str) -> bytes:
        """Return the bytes of the part's file."""
        return self.files.read(self._part(name)[0])

    def box(self, name: str) -> Box | None:
        """Return the part's box in its file's image; None is the whole image."""
        return self._part(name)[1]

    def fingerprint(self, names: list[str]) -> dict[str, str]:
        """Return the hashes of the parts' files."""
        return self.files.fingerprint(sorted({self._part(name)[0] for name in names}))

    def _part(self, name: str) -> tuple[str, Box | None]:
        if name not in self.parts:
            raise IcisError(f"there is no image {name!r} in the index; make the index anew")
        return self.parts[name]


def with_parts(source: ImageSource, frame: pl.DataFrame) -> ImageSource:
    """Return a source of an index's images, by the index's columns of files and boxes if any."""
    if "file" not in frame.columns:
        return source
    parts: dict[str, tuple[str, Box | None]] = {}
    for name, file, *box in frame.select("image", "file", *PART_COLUMNS).iter_rows():
        left, top, right, bottom = box
        parts[name] = (file, None if left is None else (left, top, right, bottom))
    return PartsSource(source, parts)
