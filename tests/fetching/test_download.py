"""Downloads over a bad line, from bad servers, onto a bad disk."""

from __future__ import annotations

import errno
import hashlib
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from icis.errors import IcisError
from icis.fetching import download as downloading
from icis.fetching.catalogue import SourceFile
from icis.fetching.download import EARLIER, Downloaded, download, origins
from icis.fetching.first_seen import FirstSeen
from icis.fetching.transfer import Part, Patience
from tests.fetching.server import Fault, FaultyServer

DATA = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
QUICK = Patience(timeout=5, attempts=3, wait=0.01, longest_wait=0.2)
TARGET = Path("data/downloads/s/a.bin")
CHUNK = 1 << 16


def known(**facts: Any) -> SourceFile:
    return SourceFile(name="a.bin", md5=hashlib.md5(DATA).hexdigest(), **facts)


def unknown() -> SourceFile:
    return SourceFile(name="a.bin")


def get(
    *places: str, file: SourceFile | None = None, patience: Patience = QUICK, **options: Any
) -> Downloaded:
    return download(
        file or known(),
        TARGET,
        origins=list(places),
        ledger=FirstSeen("s", **options),
        patience=patience,
    )


def leave_part(data: bytes, **state: str) -> None:
    part = Part(TARGET)
    part.begin(state)
    part.path.write_bytes(data)


def nothing_left() -> bool:
    return list(TARGET.parent.iterdir()) == []


def test_a_file_that_comes_well(server: FaultyServer) -> None:
    server.files = {"/a.bin": DATA}
    done = get(server.url("/a.bin"))
    assert TARGET.read_bytes() == DATA
    assert done.digest.sha256 == hashlib.sha256(DATA).hexdigest()
    assert done.origin == server.url("/a.bin")
    assert [path.name for path in TARGET.parent.iterdir()] == ["a.bin"]
    assert server.log[0].headers["Accept-Encoding"] == "identity"


def test_a_file_that_is_there_is_checked_and_not_fetched_again(server: FaultyServer) -> None:
    server.files = {"/a.bin": DATA}
    get(server.url("/a.bin"))
    assert get(server.url("/a.bin")).origin == EARLIER
    assert len(server.log) == 1
    TARGET.write_bytes(OTHER)
    get(server.url("/a.bin"))
    assert TARGET.read_bytes() == DATA


@pytest.mark.parametrize("file", [known(), unknown()])
def test_a_cut_connection_is_gone_on_from(server: FaultyServer, file: SourceFile) -> None:
    server.files = {"/a.bin": DATA}
    server.faults["/a.bin"] = Fault(cut_after=150_000, times=1)
    get(server.url("/a.bin"), file=file)
    assert TARGET.read_bytes() == DATA
    first, second = server.log
    assert first.range is None
    assert second.range is not None
    start = int(second.range.removeprefix("bytes=").rstrip("-"))
    assert 150_000 - CHUNK < start <= 150_000
    assert second.if_range == f'"{hashlib.md5(DATA).hexdigest()}"'


def test_a_connection_that_is_always_cut_still_ends_if_it_gets_further(
    server: FaultyServer,
) -> None:
    server.files = {"/a.bin": DATA}
    server.faults["/a.bin"] = Fault(cut_after=CHUNK)
    get(server.url("/a.bin"))
    assert TARGET.read_bytes() == DATA
    assert len(server.log) > QUICK.attempts


def test_a_connection_that_never_gets_further_is_given_up(server: FaultyServer) -> None:
    server.files = {"/a.bin": DATA}
    server.faults["/a.bin"] = Fault(cut_after=CHUNK, no_range=True)
    with pytest.raises(IcisError, match=r"tried 3 times in a row"):
        get(server.url("/a.bin"))
    assert not TARGET.exists()


def test_a_server_without_ranges_starts_over(server: FaultyServer) -> None:
    server.files = {"/a.bin": DATA}
    server.faults["/a.bin"] = Fault(cut_after=150_000, times=1)
    server.faults["/a.bin"].after = lambda: server.faults.update({"/a.bin": Fault(no_range=True)})
    get(server.url("/a.bin"))
    assert TARGET.read_bytes() == DATA
    assert server.ranges("/a.bin")[1] is not None


@pytest.mark.parametrize("file", [known(), unknown()])
def test_without_validators_only_a_checksum_allows_to_resume(
    server: FaultyServer, file: SourceFile
) -> None:
    server.files = {"/a.bin": DATA}
    server.faults["/a.bin"] = Fault(cut_after=150_000, times=1, no_validators=True)
    get(server.url("/a.bin"), file=file)
    assert TARGET.read_bytes() == DATA
    assert (server.ranges("/a.bin")[1] is not None) == file.has_checksum
    assert server.log[1].if_range is None


@pytest.mark.parametrize("ignore_if_range", [False, True])
def test_a_file_that_changes_between_two_connections_is_fetched_anew(
    server: FaultyServer, ignore_if_range: bool
) -> None:
    server.files = {"/a.bin": OTHER}
    server.faults["/a.bin"] = Fault(cut_after=150_000, times=1)

    def change() -> None:
        server.files = {"/a.bin": DATA}
        server.faults["/a.bin"] = Fault(ignore_if_range=ignore_if_range)

    server.faults["/a.bin"].after = change
    get(server.url("/a.bin"), file=unknown())
    assert TARGET.read_bytes() == DATA


def test_halves_of_two_files_joined_unawares_get_a_second_chance(server: FaultyServer) -> None:
    server.files = {"/a.bin": DATA}
    server.faults["/a.bin"] = Fault(no_validators=True)
    leave_part(OTHER[:1000], url=server.url("/a.bin"))
    get(server.url("/a.bin"))
    assert TARGET.read_bytes() == DATA
    assert server.ranges("/a.bin") == ["bytes=1000-", None]


def test_a_whole_part_of_a_killed_run_needs_no_bytes(server: FaultyServer) -> None:
    server.files = {"/a.bin": DATA}
    leave_part(DATA, url=server.url("/a.bin"))
    get(server.url("/a.bin"), file=known(size=len(DATA)))
    assert server.log == []
    TARGET.unlink()
    leave_part(DATA, url=server.url("/a.bin"))
    get(server.url("/a.bin"))  # its size is not known: the server answers 416
    assert server.ranges("/a.bin") == [f"bytes={len(DATA)}-"]


def test_a_part_longer_than_the_file_is_dropped(server: FaultyServer) -> None:
    server.files = {"/a.bin": DATA}
    for file in (known(), known(size=len(DATA))):
        leave_part(DATA + b"more", url=server.url("/a.bin"))
        get(server.url("/a.bin"), file=file)
        assert TARGET.read_bytes() == DATA
        TARGET.unlink()


def test_a_part_of_another_address_is_not_gone_on_from(server: FaultyServer) -> None:
    server.files = {"/a.bin": DATA}
    leave_part(OTHER[:1000], url="http://127.0.0.1:1/a.bin")
    get(server.url("/a.bin"))
    assert server.ranges("/a.bin") == [None]


def test_a_part_with_a_damaged_state_is_not_gone_on_from(server: FaultyServer) -> None:
    server.files = {"/a.bin": DATA}
    leave_part(OTHER[:1000])
    Part(TARGET).state.write_text('{"url": 3')
    get(server.url("/a.bin"))
    assert server.ranges("/a.bin") == [None]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_busy_server_is_asked_again(server: FaultyServer, status: int) -> None:
    server.files = {"/a.bin": DATA}
    server.faults["/a.bin"] = Fault(status=status, times=2, retry_after="0")
    get(server.url("/a.bin"))
    assert len(server.log) == 3


@pytest.mark.parametrize(
    ("retry_after", "waited"),
    [
        ("1", 0.2),  # no longer than the longest wait
        ("Wed, 01 Jan 2020 00:00:00 GMT", 0.01),  # that has passed
        ("soon", 0.01),
    ],
)
def test_retry_after_is_honoured_within_bounds(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch, retry_after: str, waited: float
) -> None:
    slept = list[float]()
    monkeypatch.setattr("icis.fetching.transfer.sleep", slept.append)
    server.files = {"/a.bin": DATA}
    server.faults["/a.bin"] = Fault(status=503, times=1, retry_after=retry_after)
    get(server.url("/a.bin"))
    assert slept == [waited]


def test_back_off_grows(server: FaultyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    slept = list[float]()
    monkeypatch.setattr("icis.fetching.transfer.sleep", slept.append)
    server.faults["/a.bin"] = Fault(status=503)
    with pytest.raises(IcisError, match="answers 503"):
        get(server.url("/a.bin"), patience=Patience(attempts=5, wait=1))
    assert slept == [1, 2, 4, 8]


def test_a_stalled_server_is_an_error_and_the_rest_is_fetched(server: FaultyServer) -> None:
    server.files = {"/a.bin": DATA}
    server.faults["/a.bin"] = Fault(stall_after=2 * CHUNK, times=1)
    get(server.url("/a.bin"), patience=Patience(timeout=0.3, attempts=3, wait=0.01))
    assert server.ranges("/a.bin") == [None, f"bytes={2 * CHUNK}-"]
    server.faults["/b.bin"] = Fault(stall_after=0)
    server.files = {"/b.bin": DATA}
    TARGET.unlink()
    with pytest.raises(IcisError, match=r"no data for 0.2 s"):
        get(server.url("/b.bin"), patience=Patience(timeout=0.2, attempts=2, wait=0.01))


def test_a_slow_server_is_none(server: FaultyServer) -> None:
    server.files = {"/a.bin": DATA}
    server.faults["/a.bin"] = Fault(delay=0.02)
    get(server.url("/a.bin"), patience=Patience(timeout=0.5, attempts=1))
    assert len(server.log) == 1


@pytest.mark.parametrize("status", [404, 403, 410])
def test_what_a_mirror_lacks_comes_from_the_official_address(
    server: FaultyServer, status: int
) -> None:
    server.files = {"/official/a.bin": DATA}
    server.faults["/mirror/a.bin"] = Fault(status=status)
    done = get(server.url("/mirror/a.bin"), server.url("/official/a.bin"))
    assert done.origin == server.url("/official/a.bin")
    assert [request.path for request in server.log] == ["/mirror/a.bin", "/official/a.bin"]


def test_when_the_official_address_is_dead_the_mirror_helps(server: FaultyServer) -> None:
    server.files = {"/s/a.bin": DATA}
    done = get("http://127.0.0.1:1/a.bin", server.url("/s/a.bin"))
    assert done.origin == server.url("/s/a.bin")


def test_an_origin_that_lacks_the_file_leaves_the_part_of_another(server: FaultyServer) -> None:
    server.files = {"/official/a.bin": DATA}
    leave_part(DATA[:1000], url=server.url("/official/a.bin"))
    get(server.url("/mirror/a.bin"), "nowhere/a.bin", server.url("/official/a.bin"))
    assert server.ranges("/official/a.bin") == ["bytes=1000-"]


def test_a_wrong_checksum_goes_to_the_next_origin(server: FaultyServer) -> None:
    server.files = {"/bad/a.bin": OTHER, "/good/a.bin": DATA}
    assert get(server.url("/bad/a.bin"), server.url("/good/a.bin")).origin.endswith("/good/a.bin")
    assert TARGET.read_bytes() == DATA


def test_where_all_origins_fail_all_are_listed_with_help(server: FaultyServer) -> None:
    server.files = {"/bad/a.bin": OTHER}
    with pytest.raises(IcisError) as caught:
        get(server.url("/bad/a.bin"), server.url("/none/a.bin"), "folder/a.bin")
    text = str(caught.value)
    assert "s/a.bin could not be fetched" in text
    assert f"{server.url('/bad/a.bin')}: md5 is {hashlib.md5(OTHER).hexdigest()}" in text
    assert f"{hashlib.md5(DATA).hexdigest()} was published" in text
    assert f"{server.url('/none/a.bin')}: answers 404" in text
    assert "folder/a.bin: there is no such file" in text
    assert "ICIS_MIRROR=FOLDER" in text
    assert "ICIS_CATALOGUE" in text
    assert "--accept-changed" not in text
    assert nothing_left()


def test_a_wrong_sha256_is_seen_behind_a_right_md5(server: FaultyServer) -> None:
    server.files = {"/a.bin": DATA}
    with pytest.raises(IcisError, match=f"sha256 is .*{'0' * 64} was published"):
        get(server.url("/a.bin"), file=known(sha256="0" * 64))


def test_a_wrong_size_is_refused_before_the_body(server: FaultyServer) -> None:
    server.files = {"/a.bin": DATA}
    with pytest.raises(IcisError, match="offers 300000 bytes, expected 5"):
        get(server.url("/a.bin"), file=known(size=5))
    assert nothing_left()


@pytest.mark.parametrize("size", [299_999, 300_001])
def test_a_wrong_size_is_seen_without_a_content_length(server: FaultyServer, size: int) -> None:
    server.files = {"/a.bin": DATA}
    server.faults["/a.bin"] = Fault(no_length=True)
    with pytest.raises(IcisError, match="sends more than|size is 300000, but 300001"):
        get(server.url("/a.bin"), file=known(size=size))
    assert not TARGET.exists()


def test_a_body_without_content_length_is_taken(server: FaultyServer) -> None:
    server.files = {"/a.bin": DATA}
    server.faults["/a.bin"] = Fault(no_length=True)
    get(server.url("/a.bin"), file=unknown())
    assert TARGET.read_bytes() == DATA


def test_a_web_page_is_no_file(server: FaultyServer) -> None:
    server.files = {"/a.bin": b"<html>please log in</html>"}
    server.faults["/a.bin"] = Fault(content_type="text/html; charset=utf-8")
    with pytest.raises(IcisError, match="gives a web page"):
        get(server.url("/a.bin"), file=unknown())


def test_an_address_that_is_none(server: FaultyServer) -> None:
    with pytest.raises(IcisError, match="could not be fetched"):
        get("http://[::1/a.bin")


def test_first_seen_hashes_are_recorded_and_enforced(server: FaultyServer) -> None:
    server.files = {"/a.bin": DATA}
    done = get(server.url("/a.bin"), file=unknown())
    FirstSeen("s").record({"a.bin": done.digest})
    TARGET.unlink()
    server.files = {"/a.bin": OTHER}
    before = Path("data/first-seen.json").read_text()
    with pytest.raises(IcisError) as caught:
        get(server.url("/a.bin"), file=unknown())
    text = str(caught.value)
    assert hashlib.sha256(DATA).hexdigest() in text
    assert hashlib.sha256(OTHER).hexdigest() in text
    assert "icis data fetch s --accept-changed" in text
    assert "'s/a.bin'" in text
    assert Path("data/first-seen.json").read_text() == before
    done = get(server.url("/a.bin"), file=unknown(), accept_changed=True)
    FirstSeen("s", accept_changed=True).record({"a.bin": done.digest})
    assert json.loads(Path("data/first-seen.json").read_text()) == {
        "s/a.bin": {"sha256": hashlib.sha256(OTHER).hexdigest(), "size": 300_000}
    }


def test_the_record_keeps_what_is_there_and_is_sorted(server: FaultyServer) -> None:
    server.files = {"/a.bin": DATA}
    done = get(server.url("/a.bin"), file=unknown())
    FirstSeen("s").record({"a.bin": done.digest})
    FirstSeen("b").record({"a.bin": done.digest})
    assert list(json.loads(Path("data/first-seen.json").read_text())) == ["b/a.bin", "s/a.bin"]


def test_a_damaged_record_is_named(here: Path) -> None:
    (here / "data").mkdir()
    (here / "data/first-seen.json").write_text('{"s/a.bin": {"sha256": "x"}}')
    with pytest.raises(IcisError, match=r"data/first-seen.json is damaged.*git"):
        FirstSeen("s")


def test_a_mirror_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICIS_MIRROR", str(tmp_path / "mirror"))
    file = known(urls=["https://example.org/a.bin"])
    with pytest.raises(IcisError, match=r"ICIS_MIRROR=.* is no folder"):
        origins("s", file)
    (tmp_path / "mirror/s").mkdir(parents=True)
    (tmp_path / "mirror/a.bin").write_bytes(DATA)
    done = get(*origins("s", file))
    assert done.origin == str(tmp_path / "mirror/a.bin")
    assert (tmp_path / "mirror/a.bin").read_bytes() == DATA
    TARGET.unlink()
    (tmp_path / "mirror/a.bin").unlink()
    (tmp_path / "mirror/s/a.bin").write_bytes(OTHER[:10])
    with pytest.raises(IcisError, match="has 10 bytes, expected 300000"):
        get(*origins("s", file), file=known(size=len(DATA)))
    with pytest.raises(IcisError, match="md5 is"):
        get(*origins("s", file))


def test_a_mirror_is_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ICIS_MIRROR", "http://mirror.example/data/")
    assert origins("s", known(urls=["https://example.org/a.bin"])) == [
        "http://mirror.example/data/s/a.bin",
        "http://mirror.example/data/a.bin",
        "https://example.org/a.bin",
    ]


def test_no_address_and_no_mirror() -> None:
    with pytest.raises(IcisError, match="s/a.bin has no public address, and ICIS_MIRROR"):
        get()


def test_a_disk_too_small_is_seen_before_the_body(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=250_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    server.files = {"/a.bin": DATA}
    with pytest.raises(IcisError, match=r"fetching a.bin .* needs 300.0 kB, .* only 250.0 kB left"):
        get(server.url("/a.bin"))
    (tmp_path / "a.bin").write_bytes(DATA)
    with pytest.raises(IcisError, match=r"copying .*a.bin .* needs 300.0 kB"):
        get(str(tmp_path / "a.bin"))
    assert nothing_left()
    # what is there already does not count: 1000 bytes short would be too many
    leave_part(DATA[:60_000], url=server.url("/a.bin"))
    get(server.url("/a.bin"))


@pytest.mark.parametrize("local", [False, True])
def test_a_disk_that_gets_full_leaves_no_file_taken_for_whole(
    server: FaultyServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, local: bool
) -> None:
    server.files = {"/a.bin": DATA}
    (tmp_path / "a.bin").write_bytes(DATA)
    place = str(tmp_path / "a.bin") if local else server.url("/a.bin")
    opened = Path.open

    def full(path: Path, mode: str = "r", **options: Any) -> Any:
        file = opened(path, mode, **options)
        if path.suffix != ".part" or mode not in ("ab", "wb"):
            return file

        class Full:
            def __enter__(self) -> Full:
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def write(self, data: bytes) -> int:
                file.write(data[:1000])
                if not data:
                    return 0
                raise OSError(errno.ENOSPC, "No space left on device")

        return Full()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(
            IcisError, match=r"data/downloads/s: no space is left on the disk; make room"
        ):
            get(place)
    assert not TARGET.exists()
    get(place)
    assert TARGET.read_bytes() == DATA
    if not local:
        assert server.ranges("/a.bin") == [None, "bytes=1000-"]


def test_patience_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Patience.from_environment() == Patience(timeout=5, attempts=3, wait=0.01)
    monkeypatch.delenv("ICIS_FETCH_TIMEOUT")
    assert Patience.from_environment().timeout == 60
    for bad in ("soon", "-1", "inf", "0", "nan"):
        monkeypatch.setenv("ICIS_FETCH_TIMEOUT", bad)
        with pytest.raises(IcisError, match=f"ICIS_FETCH_TIMEOUT={bad}: expected a number"):
            Patience.from_environment()


def test_other_errors_of_the_disk_are_not_taken_for_a_full_one(
    monkeypatch: pytest.MonkeyPatch, server: FaultyServer
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    server.files = {"/a.bin": DATA}
    monkeypatch.setattr(downloading, "digest", broken)
    with pytest.raises(OSError, match="Input/output"):
        get(server.url("/a.bin"))
