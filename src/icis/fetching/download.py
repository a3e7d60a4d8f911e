"""A file from the first origin that gives it right: a mirror, then the official addresses."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from icis.errors import IcisError, explaining_disk
from icis.fetching.catalogue import SourceFile
from icis.fetching.first_seen import FirstSeen
from icis.fetching.hashing import CHUNK, Digest, bar, digest
from icis.fetching.space import require_space
from icis.fetching.transfer import OriginError, Part, Patience, Transfer, WrongFileError

MIRROR = "ICIS_MIRROR"
EARLIER = "an earlier download"


@dataclass(frozen=True)
class Downloaded:
    """A file that came whole, what it is known by, and from where it came."""

    digest: Digest
    origin: str


def origins(source: str, file: SourceFile) -> list[str]:
    """Return where to look for a file, in order: addresses, or paths below a mirror's folder.

    ``ICIS_MIRROR`` names a folder or an address that has the file as ``<source>/<file>`` or
    ``<file>``; it comes first.
    """
    mirror = os.environ.get(MIRROR, "")
    if not mirror:
        return list(file.urls)
    if mirror.startswith(("http://", "https://")):
        base = mirror.rstrip("/")
        found = [f"{base}/{quote(source)}/{quote(file.name)}", f"{base}/{quote(file.name)}"]
    else:
        folder = Path(mirror).expanduser()
        if not folder.is_dir():
            raise IcisError(
                f"{MIRROR}={mirror} is no folder; expected a folder or an address, or unset it"
            )
        found = [str(folder / source / file.name), str(folder / file.name)]
    return [*found, *file.urls]


def download(
    file: SourceFile,
    target: Path,
    *,
    origins: list[str],
    ledger: FirstSeen,
    room: int | None = None,
    patience: Patience | None = None,
    progress: bool = True,
) -> Downloaded:
    """Fetch a file to ``target``, from the first of the origins that gives it right.

    What an earlier, interrupted call fetched is gone on from. ``room`` are the bytes that will be
    needed beside the file (to unpack it), None for as many again as the file itself has.

    Raises
    ------
    IcisError
        No origin gave it, with what went wrong at each; the disk is too small or full.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    fetch = _Fetch(file, Part(target), ledger, room, patience, progress)
    problems, wrong = list[str](), False
    with explaining_disk(target.parent):
        if target.exists():
            found = digest(target, progress=progress)
            if not fetch.problem(found):
                return Downloaded(found, EARLIER)
            target.unlink()
        for origin in origins:
            try:
                return Downloaded(fetch.from_origin(origin), origin)
            except OriginError as error:
                problems.append(f"  {origin}: {error}")
                wrong |= isinstance(error, WrongFileError)
    raise IcisError(_in_words(file, ledger, problems, wrong))


def _in_words(file: SourceFile, ledger: FirstSeen, problems: list[str], wrong: bool) -> str:
    key = ledger.key(file.name)
    if problems:
        lines = [f"{key} could not be fetched:", *problems]
    else:
        lines = [f"{key} has no public address, and {MIRROR} is not set."]
    lines.append(
        f"Get the file by other means, lay it at FOLDER/{key}, and run the command again with "
        f"{MIRROR}=FOLDER."
    )
    if wrong and (file.has_checksum or file.size):
        lines.append(
            "If its publishers changed it and you trust the new one, give its size and checksums "
            "in a file named by ICIS_CATALOGUE."
        )
    if wrong and not file.has_checksum and ledger.of(file.name):
        lines.append(
            f"If you accept the change, delete the entry {key!r}, or run icis data fetch "
            f"{ledger.source} --accept-changed."
        )
    return "\n".join(lines)


class _Fetch:
    """One file's way through its origins, with what was found wrong on it."""

    def __init__(
        self,
        file: SourceFile,
        part: Part,
        ledger: FirstSeen,
        room: int | None,
        patience: Patience | None,
        progress: bool,
    ) -> None:
        self.file, self.part, self.ledger = file, part, ledger
        self.room = room if file.unpack else 0
        self.patience, self.progress = patience or Patience.from_environment(), progress

    def from_origin(self, origin: str) -> Digest:
        """Fetch from one origin and check; a part joined from two connections gets two chances."""
        resumed = self._fill(origin)
        found = digest(self.part.path, progress=self.progress)
        problem = self.problem(found)
        if problem and resumed:
            self.part.discard()
            self._fill(origin)
            found = digest(self.part.path, progress=self.progress)
            problem = self.problem(found)
        if problem:
            self.part.discard()
            raise WrongFileError(problem)
        self.part.finish()
        return found

    def problem(self, found: Digest) -> str:
        """Say what is wrong with a file, nothing if all that is known of it holds."""
        for what in ("size", "md5", "sha256"):
            expected, actual = getattr(self.file, what), getattr(found, what)
            if expected is not None and expected != actual:
                return f"{what} is {actual}, but {expected} was published"
        return "" if self.file.has_checksum else self.ledger.problem(self.file.name, found)

    def _fill(self, origin: str) -> bool:
        """Fill the part; return whether it holds bytes of an earlier connection."""
        if not origin.startswith(("http://", "https://")):
            self._copy(Path(origin))
            return False
        transfer = Transfer(
            origin,
            self.part,
            size=self.file.size,
            checked=self.file.has_checksum or self.ledger.of(self.file.name) is not None,
            room=self.room,
            patience=self.patience,
            progress=self.progress,
        )
        transfer.run()
        return transfer.resumed

    def _copy(self, path: Path) -> None:
        if not path.is_file():
            raise OriginError("there is no such file")
        size = path.stat().st_size
        if self.file.size is not None and size != self.file.size:
            raise WrongFileError(f"has {size} bytes, expected {self.file.size}")
        room = size if self.room is None else self.room
        require_space(self.part.path.parent, size + room, f"copying {path} (and unpacking it)")
        try:
            source = path.open("rb")
        except OSError as error:
            raise OriginError(f"cannot be read: {error.strerror}") from error
        self.part.begin({"url": str(path)})
        with (
            source,
            self.part.path.open("wb") as file,
            bar(path.name, total=size, progress=self.progress) as shown,
        ):
            while chunk := source.read(CHUNK):
                file.write(chunk)
                shown.update(len(chunk))
