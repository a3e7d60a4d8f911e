"""Where image files come from: a folder, or a tar that is read in place."""

from __future__ import annotations

import hashlib
import os
import tarfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from icis.artifacts import file_sha256
from icis.datasets.paths import inside
from icis.errors import IcisError


class ImageSource(Protocol):
    """Gives the bytes of files by their name inside the source."""

    def has(self, name: str) -> bool:
        """Tell whether the file exists."""

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""

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

    def has(self, name: str) -> bool:
        """Tell whether the file exists."""
        return inside(self.root, name).is_file()

    def read(self, name: str) -> bytes:
        """Return a file's bytes."""
        try:
            return inside(self.root, name).read_bytes()
        except OSError as error:
            raise IcisError(f"{self.root / name} cannot be read: {error.strerror}") from error

    def fingerprint(self, names: list[str]) -> dict[str, str]:
        """Return one hash over names and contents of all files."""
        state = hashlib.sha256()
        for name in names:
            state.update(name.encode() + b"\0")
            state.update(hashlib.sha256(self.read(name)).digest())
        return {f"{self.root}/ ({len(names)} images)": state.hexdigest()}


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

    def fingerprint(self, names: list[str]) -> dict[str, str]:
        """Return the hash of the whole tar."""
        return {str(self.path): file_sha256(self.path)}
