"""Unpacking archives that nobody vouches for: nothing outside the folder, no links, no bombs.

What comes out are plain folders and files with plain permissions. Links inside of a tar become
copies of the files they name; links out of it, devices and the like are refused, as is an archive
that holds more than it should.
"""

from __future__ import annotations

import errno
import hashlib
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from icis.errors import IcisError, explaining_disk
from icis.fetching.hashing import CHUNK, bar
from icis.fetching.space import require_space

MOST_FILES = 1_000_000
"""Files that a source may hold; ImageNet's training set has 1.3 million, no set here a tenth."""
LEAST_BOUND = 2 * 10**9
"""Bytes that a source may have unpacked at any rate, where its catalogue entry does not say."""
MOST_GROWTH = 20
"""How many times its packed size a source may have then; texts grow up to tenfold."""
TOLERANCE = 1.1
"""How much more than ``unpacked_size`` a source may have."""
MOST_PADDING = 10**8
"""Bytes that may follow the end of a tar."""
LONGEST_NAME = 10**6
"""Bytes of a header that does nothing but name the next one's file."""
TAR_MODES: dict[str, Literal["r:", "r:gz", "r:bz2"]] = {
    ".tar": "r:",
    ".tar.gz": "r:gz",
    ".tgz": "r:gz",
    ".tar.bz2": "r:bz2",
}
NAMES = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)


class BadArchiveError(IcisError):
    """An archive that is damaged, or that holds what it must not."""


@dataclass(frozen=True)
class Member:
    """A file as it was written: its path in the folder, with slashes, its bytes, its hash."""

    path: str
    size: int
    sha256: str


def bound(packed: int, unpacked: int | None) -> int:
    """Return the bytes that a source may have unpacked; ``unpacked`` is what is known of it."""
    if unpacked is not None:
        return int(TOLERANCE * unpacked)
    return max(LEAST_BOUND, MOST_GROWTH * packed)


class Unpacking:
    """The files of a source on their way into a new folder that nobody else writes to."""

    def __init__(self, folder: Path, *, most_bytes: int, progress: bool = True) -> None:
        """Begin with an empty folder; ``most_bytes`` bounds all archives together."""
        self.folder, self.progress = folder, progress
        self.most_bytes = most_bytes
        self.members: dict[str, Member] = {}
        self._written = 0
        self._archive = Path()
        self._earlier = frozenset[str]()

    def add(self, archive: Path) -> None:
        """Unpack an archive into the folder.

        Raises
        ------
        BadArchiveError
            It is damaged or dangerous; the member is named.
        IcisError
            The disk is too small or full.
        """
        self._archive, self._earlier = archive, frozenset(self.members)
        with _explaining(archive), explaining_disk(self.folder):
            if archive.name.endswith(".zip"):
                self._add_zip(archive)
            else:
                self._add_tar(archive)
        if len(self.members) == len(self._earlier):
            raise BadArchiveError(f"{archive} holds no file")

    def _add_zip(self, archive: Path) -> None:
        with zipfile.ZipFile(archive) as packed:
            infos = packed.infolist()
            self._require_few(len(infos))
            declared = sum(info.file_size for info in infos)
            self._require_small(declared, "all members together")
            require_space(self.folder, declared, f"unpacking {archive.name}")
            for info in self._shown(infos):
                kind = stat.S_IFMT(info.external_attr >> 16)
                if info.is_dir():
                    self._path(info.filename).mkdir(parents=True, exist_ok=True)
                elif kind in (0, stat.S_IFREG):
                    with packed.open(info) as source:
                        self._write(info.filename, source)
                else:
                    raise self._bad(info.filename, "is a link or a device, not a file")

    def _add_tar(self, archive: Path) -> None:
        links = list[tuple[str, str]]()
        # names that are not UTF-8 must still be text: they go into the list of files
        mode = next(mode for suffix, mode in TAR_MODES.items() if archive.name.endswith(suffix))
        with tarfile.open(
            archive, mode, tarinfo=_Header, encoding="utf-8", errors="backslashreplace"
        ) as packed:
            for number, info in enumerate(self._shown(packed)):
                self._require_few(number)
                if info.isdir():
                    self._path(info.name).mkdir(parents=True, exist_ok=True)
                elif info.isreg():
                    self._require_small(info.size, info.name)
                    require_space(self.folder, info.size, f"unpacking {archive.name}")
                    source = packed.extractfile(info)
                    assert source is not None
                    self._write(info.name, source)
                elif info.islnk():
                    links.append((info.name, info.linkname))
                elif info.issym():
                    links.append((info.name, str(PurePosixPath(info.name).parent / info.linkname)))
                else:
                    raise self._bad(info.name, "is a device or a pipe, not a file")
            self._read_padding(packed)
        for name, linked in links:
            self._copy(name, linked)

    def _shown(self, members: Any) -> Iterator[Any]:
        """Iterate over members with a progress bar."""
        total = len(members) if isinstance(members, list) else None
        what = f"unpack {self._archive.name}"
        with bar(what, total=total, progress=self.progress, unit=" files") as shown:
            for member in members:
                yield member
                shown.update()

    def _path(self, name: str) -> Path:
        """Return where a member belongs; a name that leads out of the folder is refused."""
        parts = PurePosixPath(name).parts
        if name.startswith(("/", "\\")) or ".." in parts or "\0" in name or name[1:3] == ":\\":
            raise self._bad(name, "leads out of the folder to unpack to")
        return self.folder.joinpath(*parts)

    def _write(self, name: str, source: IO[bytes]) -> None:
        path = self._path(name)
        inside = path.relative_to(self.folder).as_posix()
        if inside in self._earlier:
            raise self._bad(name, "is in another archive of the source too")
        self._require_few(len(self.members))
        path.parent.mkdir(parents=True, exist_ok=True)
        sha256, size = hashlib.sha256(), 0
        with path.open("wb") as file:
            while chunk := source.read(CHUNK):
                # a header may lie: what counts is what comes out
                self._require_small(len(chunk), name)
                self._written += len(chunk)
                size += len(chunk)
                sha256.update(chunk)
                file.write(chunk)
        self.members[inside] = Member(inside, size, sha256.hexdigest())

    def _copy(self, name: str, linked: str) -> None:
        """Write a link as a copy of the file that it names."""
        target = self._normal(name, linked)
        if target not in self.members or target in self._earlier:
            raise self._bad(name, f"is a link to {linked}, which is no file of the archive")
        if target == self._path(name).relative_to(self.folder).as_posix():
            raise self._bad(name, "is a link to itself")
        with (self.folder / target).open("rb") as source:
            self._write(name, source)

    def _normal(self, name: str, linked: str) -> str:
        """Return a link's target as a path in the folder; one that leads out is refused."""
        if linked.startswith("/"):
            raise self._bad(name, f"is a link out of the archive, to {linked}")
        parts = list[str]()
        for part in PurePosixPath(linked).parts:
            if part != "..":
                parts.append(part)
            elif parts:
                parts.pop()
            else:
                raise self._bad(name, f"is a link out of the archive, to {linked}")
        return "/".join(parts)

    def _require_few(self, number: int) -> None:
        if number > MOST_FILES:
            raise BadArchiveError(f"{self._archive} holds more than {MOST_FILES} members: refused")

    def _require_small(self, size: int, name: str) -> None:
        if self._written + size > self.most_bytes:
            raise self._bad(
                name,
                f"would make more than {self.most_bytes} bytes unpacked. If that is right, give "
                "the source's unpacked_size (bytes) in a file named by ICIS_CATALOGUE",
            )

    def _read_padding(self, packed: tarfile.TarFile) -> None:
        """Read what follows the last member: only at its end a checksum of the packing holds."""
        rest: Any = packed.fileobj
        read = 0
        while chunk := rest.read(CHUNK):
            read += len(chunk)
            if read > MOST_PADDING:
                raise BadArchiveError(
                    f"{self._archive}: more than {MOST_PADDING} bytes follow its end: refused"
                )

    def _bad(self, name: str, what: str) -> BadArchiveError:
        return BadArchiveError(f"{self._archive}: its member {name[:200]!r} {what}: refused")


class _Header(tarfile.TarInfo):
    """A tar's header; tarfile takes a missing or damaged one for the end of the archive."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        if len(buf) != tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends too early")
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            if any(buf):
                raise tarfile.ReadError(f"a header is damaged: {error}") from error
            raise
        # tarfile reads such a name into memory whole, and goes back by a size below zero
        if header.size < 0 or (header.type in NAMES and header.size > LONGEST_NAME):
            raise tarfile.ReadError(f"a header says {header.size} bytes")
        return header


DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    # an encrypted zip, a packing that Python does not know
    RuntimeError,
    # a name that is no path, a number out of range in a header
    ValueError,
)
CLASHES = (errno.EEXIST, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EILSEQ)
"""Errors of names: a file where a folder should be, a name that the disk cannot hold."""


@contextmanager
def _explaining(archive: Path) -> Iterator[None]:
    """Turn whatever the libraries raise on bad archives into words."""
    try:
        yield
    except IcisError:
        raise
    except DAMAGE as error:
        what = " ".join(str(error).split())
        raise BadArchiveError(f"{archive} is truncated or damaged: {what}") from error
    except OSError as error:
        # gzip and bz2 report damage without a number
        if error.errno is None or error.errno in CLASHES:
            raise BadArchiveError(f"{archive} cannot be unpacked: {error}") from error
        raise
