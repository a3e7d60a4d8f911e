"""From a source's name to a folder of its files: downloaded, checked, unpacked, receipted.

Killed at any moment and started again, it ends right: an unfinished download is gone on from, an
unfinished folder is begun anew, and nothing counts as fetched before the receipt is there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from icis import layout
from icis.errors import IcisError, explaining_disk
from icis.fetching.catalogue import Source, read_catalogue
from icis.fetching.download import Downloaded, download, origins
from icis.fetching.first_seen import FirstSeen
from icis.fetching.hashing import Digest
from icis.fetching.manifests import write_manifest
from icis.fetching.receipts import Receipt, make_receipt, read_receipt, write_receipt
from icis.fetching.space import in_words, require_space
from icis.fetching.transfer import Part
from icis.fetching.unpacking import BadArchiveError, Member, Unpacking, bound


@dataclass(frozen=True)
class Fetched:
    """A source that is there."""

    receipt: Receipt
    origins: dict[str, str] = field(default_factory=dict)
    """Where each file came from; empty if all was there already."""

    @property
    def new(self) -> bool:
        """Tell whether this call fetched it."""
        return bool(self.origins)


def _nothing(_: str) -> None:
    pass


def fetch(
    source_name: str,
    *,
    keep_archive: bool = False,
    accept_changed: bool = False,
    say: Callable[[str], None] = _nothing,
    progress: bool = True,
) -> Fetched:
    """Fetch a source to ``data/fetched/<source>``, unless it is there.

    ``keep_archive`` leaves the downloads in ``data/downloads/<source>``; ``accept_changed`` takes
    files that differ from their first-seen hashes; ``say`` gets a line about what goes on.

    Raises
    ------
    IcisError
        There is no such source; a file cannot be had, is not what it should be, or is dangerous
        to unpack; the disk is too small or full.
    """
    source = read_catalogue().source(source_name)
    with locked(source_name, say):
        ledger = FirstSeen(source_name, accept_changed=accept_changed)
        receipt = read_receipt(source_name)
        if receipt is not None and _is_current(receipt, source, ledger):
            return Fetched(receipt)
        files = _download_all(source_name, source, ledger, say, progress)
        digests = {name: file.digest for name, file in files.items()}
        with explaining_disk(layout.fetched(source_name).parent):
            members = _unpack_all(source_name, source, digests, ledger, progress)
            receipt = make_receipt(source_name, source, digests, members)
            # only now: a file that cannot be unpacked must not become what others are held to
            ledger.record(
                {file.name: digests[file.name] for file in source.files if not file.has_checksum}
            )
            _install(receipt, members)
        if not keep_archive:
            shutil.rmtree(_folder(source_name))
    return Fetched(receipt, {name: file.origin for name, file in files.items()})


@contextmanager
def locked(name: str, say: Callable[[str], None] = _nothing) -> Iterator[None]:
    """Hold a source's lock; wait for another process that has it. It ends with its process."""
    layout.downloads().mkdir(parents=True, exist_ok=True)
    lock = FileLock(layout.downloads() / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{name}: waiting for another process that works on it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _is_current(receipt: Receipt, source: Source, ledger: FirstSeen) -> bool:
    """Tell whether there is nothing to do: a first-seen hash may have come with a git pull."""
    if not receipt.holds(source):
        return False
    had = {file.name: file.sha256 for file in receipt.files}
    unsure = [file.name for file in source.files if not file.has_checksum]
    firsts = {name: ledger.of(name) for name in unsure}
    return all(first is None or first.sha256 == had[name] for name, first in firsts.items())


def _folder(name: str) -> Path:
    return layout.downloads() / name


def _download_all(
    name: str,
    source: Source,
    ledger: FirstSeen,
    say: Callable[[str], None],
    progress: bool,
) -> dict[str, Downloaded]:
    """Download every file of a source; refuse before the first where the disk is too small."""
    folder = _folder(name)
    missing = sum(_missing(folder / file.name, file.size or 0) for file in source.files)
    room = source.unpacked_size or sum(file.size or 0 for file in source.files if file.unpack)
    require_space(folder, missing + room, f"fetching {name} (and unpacking it)")
    found = {}
    for file in source.files:
        if not origins(name, file) and source.note and not (folder / file.name).exists():
            raise IcisError(
                f"{name}/{file.name} has no public address. {source.note} (Lay it at "
                f"FOLDER/{name}/{file.name} and set ICIS_MIRROR=FOLDER.)"
            )
        found[file.name] = download(
            file,
            folder / file.name,
            origins=origins(name, file),
            ledger=ledger,
            room=source.unpacked_size,
            progress=progress,
        )
        said = found[file.name]
        say(f"{name}/{file.name}: {in_words(said.digest.size)} from {said.origin}")
    return found


def _missing(target: Path, size: int) -> int:
    """Return how many of a file's bytes are not here yet."""
    there = target.stat().st_size if target.exists() else Part(target).size
    return max(0, size - there)


def _unpack_all(
    name: str,
    source: Source,
    digests: dict[str, Digest],
    ledger: FirstSeen,
    progress: bool,
) -> list[Member]:
    """Unpack or move all files of a source into a fresh folder beside its place."""
    folder = _unfinished(name)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    packed = sum(digests[file.name].size for file in source.files if file.unpack)
    most = bound(packed, source.unpacked_size)
    unpacking = Unpacking(folder, most_bytes=most, progress=progress)
    try:
        for file in source.files:
            if file.unpack:
                vouched = file.has_checksum or ledger.of(file.name) is not None
                _unpack(unpacking, _folder(name) / file.name, vouched=vouched)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    members = dict(unpacking.members)
    for file in source.files:
        if not file.unpack:
            if (folder / file.name).exists():
                raise IcisError(f"{name}: {file.name} is in one of its archives too")
            _link_or_copy(_folder(name) / file.name, folder / file.name)
            found = digests[file.name]
            members[file.name] = Member(file.name, found.size, found.sha256)
    return list(members.values())


def _unpack(unpacking: Unpacking, archive: Path, *, vouched: bool) -> None:
    """Unpack an archive; one that is bad, and that no checksum vouches for, is not kept."""
    try:
        unpacking.add(archive)
    except BadArchiveError as error:
        if vouched:
            raise
        archive.unlink()
        raise BadArchiveError(
            f"{error}. There is no checksum of it, so it was deleted; run the command again to "
            "fetch it anew"
        ) from error


def _unfinished(name: str) -> Path:
    return layout.fetched(name).with_name(f".{name}.unfinished")


def _link_or_copy(path: Path, target: Path) -> None:
    """Give a file a second name; a move would lose the download to a kill before the receipt."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def _install(receipt: Receipt, members: list[Member]) -> None:
    """Put the finished folder into its place, its list beside it, and the receipt last."""
    name, place = receipt.source, layout.fetched(receipt.source)
    layout.receipt(name).unlink(missing_ok=True)
    if place.exists():
        shutil.rmtree(place)
    _unfinished(name).rename(place)
    write_manifest(name, members)
    write_receipt(receipt)
