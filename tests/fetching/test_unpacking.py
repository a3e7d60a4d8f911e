"""Archives: honest ones come out whole, hostile and damaged ones do no harm."""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import hashlib
import io
import shutil
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from icis.errors import IcisError
from icis.fetching import unpacking
from icis.fetching.unpacking import LEAST_BOUND, BadArchiveError, Member, Unpacking, bound
from tests.fetching.archives import add, make_odd_tar, make_tar, make_zip

FILES = {"top/a.txt": b"a" * 3000, "top/deep/b c.bin": bytes(range(256)) * 50, "readme": b""}
MODES = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2"}
OUT = Path("out")
LONG = f"{'n' * 150}/{'n' * 150}"


def unpack(data: bytes, name: str = "x.tar.gz", most: int = 10**6) -> dict[str, Member]:
    Path(name).write_bytes(data)
    OUT.mkdir(exist_ok=True)
    work = Unpacking(OUT, most_bytes=most, progress=False)
    work.add(Path(name))
    return work.members


def refused(data: bytes, name: str = "x.tar.gz", most: int = 10**6) -> str:
    with pytest.raises(BadArchiveError) as caught:
        unpack(data, name, most)
    assert name in str(caught.value)
    outside = {path.name for path in Path().iterdir()} - {"out", name}
    assert outside == set()
    return str(caught.value)


def packed(suffix: str, files: dict[str, bytes] = FILES) -> bytes:
    return make_zip(files) if suffix == ".zip" else make_tar(files, MODES[suffix])


SUFFIXES = [*MODES, ".zip"]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_come_out_with_their_hashes(suffix: str) -> None:
    members = unpack(packed(suffix), f"x{suffix}")
    assert sorted(members) == sorted(FILES)
    for path, data in FILES.items():
        assert (OUT / path).read_bytes() == data
        assert members[path] == Member(path, len(data), hashlib.sha256(data).hexdigest())


def test_a_tar_as_others_pack_it() -> None:
    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "./", type=tarfile.DIRTYPE)
        add(tar, "./empty/", type=tarfile.DIRTYPE)
        add(tar, "./a", b"first")
        add(tar, "a", b"last", mode=0o4777)
        add(tar, "hard", type=tarfile.LNKTYPE, linkname="./a")
        add(tar, "sub/soft", type=tarfile.SYMTYPE, linkname="../a")
        add(tar, LONG, b"long")
        add(tar, "gr\udcfc\udcdf", b"latin")

    data = make_odd_tar(fill)
    members = unpack(data)
    assert (OUT / "empty").is_dir()
    for name in ("a", "hard", "sub/soft"):
        assert (OUT / name).read_bytes() == b"last"
        assert not (OUT / name).is_symlink()
        assert (OUT / name).stat().st_nlink == 1
        assert (OUT / name).stat().st_mode & 0o7111 == 0
        assert members[name].size == 4
    assert members[LONG].size == 4
    assert members[r"gr\xfc\xdf"].path.encode()


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "a/..", "\\evil", "c:\\evil"])
def test_names_that_lead_out(name: str, here: Path) -> None:
    assert "leads out of the folder" in refused(make_tar({"a/b": b"", name: b"x"}))
    Path("x.tar.gz").unlink()
    assert "leads out of the folder" in refused(make_zip({"a/b": b"", name: b"x"}), "x.zip")
    assert not (here.parent / "evil").exists()
    assert not Path("/evil").exists()


def test_folders_that_lead_out() -> None:
    data = make_odd_tar(lambda tar: add(tar, "../evil", type=tarfile.DIRTYPE))
    assert "leads out" in refused(data)
    Path("x.tar.gz").unlink()
    assert "leads out" in refused(make_zip({"../evil/": b""}), "x.zip")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../x", "../x.tar.gz", "nothing", "folder"])
def test_links_out_or_to_nothing(kind: bytes, target: str) -> None:
    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "folder/a", b"a")
        add(tar, "link", type=kind, linkname=target)
        add(tar, "after", b"a")

    assert "link" in refused(make_odd_tar(fill))
    assert not (OUT / "link").exists()


def test_a_link_is_not_written_through() -> None:
    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "d", type=tarfile.SYMTYPE, linkname="..")
        add(tar, "d/evil", b"x")

    assert "link" in refused(make_odd_tar(fill))
    assert not Path("evil").exists()


def test_a_link_to_itself() -> None:
    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "a", b"a")
        add(tar, "a", type=tarfile.LNKTYPE, linkname="./a")

    assert "link to itself" in refused(make_odd_tar(fill))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes(kind: bytes) -> None:
    assert "device" in refused(make_odd_tar(lambda tar: add(tar, "d", type=kind)))


def test_links_and_devices_in_a_zip() -> None:
    for mode in (0o120777, 0o020666, 0o010666):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            info = zipfile.ZipInfo("link")
            info.external_attr = mode << 16
            file.writestr(info, "/etc/passwd")
        assert "is a link or a device" in refused(buffer.getvalue(), "x.zip")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_bombs_stop_at_the_bound(suffix: str) -> None:
    data = packed(suffix, {f"{i}": b"\0" * 100_000 for i in range(20)})
    assert "more than 1000000 bytes unpacked" in refused(data, f"x{suffix}")
    assert sum(path.stat().st_size for path in OUT.iterdir()) <= 1_000_000
    assert "unpacked_size" in refused(data, f"x{suffix}")


def test_huge_declared_sizes_are_refused_before_anything_is_written() -> None:
    header = tarfile.TarInfo("huge")
    header.size = 10**15
    assert "more than 1000000 bytes" in refused(gzip.compress(header.tobuf() + b"\0" * 10_000))
    assert list(OUT.iterdir()) == []


def test_a_zip_that_lies_about_its_sizes() -> None:
    data = bytearray(make_zip({"a": b"\0" * 5_000_000}))
    for signature, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + place
        assert struct.unpack_from("<I", data, at) == (5_000_000,)
        struct.pack_into("<I", data, at, 10)
    refused(bytes(data), "x.zip")
    assert sum(path.stat().st_size for path in OUT.rglob("*")) <= 1_000_000


def test_links_count_as_copies() -> None:
    def fill(tar: tarfile.TarFile) -> None:
        add(tar, "a", b"\0" * 300_000)
        for i in range(10):
            add(tar, f"l{i}", type=tarfile.LNKTYPE, linkname="a")

    assert "more than 1000000 bytes" in refused(make_odd_tar(fill))


def test_a_sparse_file_counts_as_what_it_becomes() -> None:
    header = tarfile.TarInfo("sparse")
    header.type = tarfile.GNUTYPE_SPARSE
    header.size = 0
    buf = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    buf[483:495] = b"%011o\0" % 10**9
    buf[148:156] = b" " * 8
    buf[148:156] = b"%06o\0 " % sum(buf)
    assert "more than 1000000 bytes" in refused(gzip.compress(bytes(buf) + b"\0" * 10_240))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_too_many_files(suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MOST_FILES", 5)
    unpack(packed(suffix, {f"{i}": b"" for i in range(5)}), f"x{suffix}")
    data = packed(suffix, {f"{i}": b"" for i in range(10)})
    assert "more than 5 members" in refused(data, f"x{suffix}")


def test_names_too_long_to_be_held_in_memory() -> None:
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        header = tarfile.TarInfo("n")
        header.type, header.size = kind, 10**12
        assert "a header says" in refused(
            gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + b"\0" * 10_240)
        )


def test_sizes_below_zero() -> None:
    good, bad = tarfile.TarInfo("a"), tarfile.TarInfo("b")
    bad.size = -1024
    data = good.tobuf() + bad.tobuf(tarfile.GNU_FORMAT) + b"\0" * 10_240
    assert "a header says -1024 bytes" in refused(data, "x.tar")


def test_endless_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "MOST_PADDING", 10**6)
    data = gzip.decompress(make_tar({"a": b"a"})) + b"\0" * 3_000_000
    assert "follow its end" in refused(gzip.compress(data))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_truncated_archives_are_named(suffix: str, share: float) -> None:
    files = {f"{i}": hashlib.sha512(b"%d" % i).digest() * 100 for i in range(9)}
    data = packed(suffix, files)
    if suffix == ".tar":
        data = data.rstrip(b"\0")  # what follows is the mark of the end and padding
    text = refused(data[: int(len(data) * share)], f"x{suffix}")
    assert "truncated or damaged" in text or "cannot be unpacked" in text


def test_a_tar_cut_between_two_members_is_not_whole() -> None:
    data = make_tar({"a": b"a" * 512, "b": b"b" * 512}, "w")
    assert "it ends too early" in refused(data[:1024], "x.tar")
    Path("x.tar").unlink()
    assert "it ends too early" in refused(gzip.compress(data[:1024]), "x.tgz")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_flipped_bits_are_seen_where_the_format_can(suffix: str) -> None:
    good = packed(suffix, {"a": hashlib.sha512(b"a").digest() * 1000, "b": b"b"})
    for place in range(0, min(len(good), 4000), 97):
        data = bytearray(good)
        data[place] ^= 0x55
        with contextlib.suppress(BadArchiveError):
            unpack(bytes(data), f"x{suffix}")
        shutil.rmtree(OUT)


def test_a_damaged_header_in_the_middle_is_no_end() -> None:
    data = bytearray(make_tar({"a": b"a", "b": b"b"}, "w"))
    data[1024 + 150] ^= 0xFF
    assert "a header is damaged" in refused(bytes(data), "x.tar")


def test_a_wrong_checksum_of_the_packing_is_seen() -> None:
    data = bytearray(make_tar({"a": b"a"}))
    data[-6] ^= 0xFF
    refused(bytes(data))
    data = bytearray(bz2.compress(make_tar({"a": b"a"}, "w")))
    data[-3] ^= 0xFF
    Path("x.tar.gz").unlink()
    refused(bytes(data), "x.tar.bz2")


@pytest.mark.parametrize("name", ["x.zip", "x.tar", "x.tgz", "x.tar.bz2"])
@pytest.mark.parametrize("data", [b"", b"<html>no such page</html>", b"\0" * 2000])
def test_what_is_no_archive(name: str, data: bytes) -> None:
    assert "\n" not in refused(data, name)


def test_an_encrypted_zip() -> None:
    data = bytearray(make_zip({"a": b"a" * 100}))
    data[data.index(b"PK\x03\x04") + 6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    assert "password" in refused(bytes(data), "x.zip")


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("a" * 300, "b")])
def test_names_that_clash_or_cannot_be(names: tuple[str, str]) -> None:
    assert "cannot be unpacked" in refused(make_tar(dict.fromkeys(names, b"x")))


def test_two_archives_may_not_hold_the_same_file() -> None:
    OUT.mkdir()
    Path("x.zip").write_bytes(make_zip({"a": b"1", "b": b"1"}))
    Path("y.zip").write_bytes(make_zip({"c": b"2", "./b": b"2"}))
    work = Unpacking(OUT, most_bytes=100, progress=False)
    work.add(Path("x.zip"))
    with pytest.raises(BadArchiveError, match=r"y.zip: its member './b' is in another archive"):
        work.add(Path("y.zip"))
    assert (OUT / "b").read_bytes() == b"1"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_disk_too_small_for_the_declared_sizes(
    suffix: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(IcisError, match=f"unpacking x{suffix} needs") as caught:
        unpack(packed(suffix), f"x{suffix}")
    assert not isinstance(caught.value, BadArchiveError)
    assert not (OUT / "top/deep/b c.bin").exists()


def test_a_disk_that_gets_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *args: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    data = make_tar(FILES)
    Path("x.tar.gz").write_bytes(data)
    OUT.mkdir()
    work = Unpacking(OUT, most_bytes=10**6, progress=False)
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(IcisError, match="no space is left on the disk; make room") as caught:
        work.add(Path("x.tar.gz"))
    assert not isinstance(caught.value, BadArchiveError)


def test_the_bound() -> None:
    assert bound(10, None) == LEAST_BOUND
    assert bound(LEAST_BOUND, None) == 20 * LEAST_BOUND
    assert bound(10**12, 1000) == 1100
