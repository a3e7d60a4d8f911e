"""Fetching whole sources: from the catalogue to a folder with a receipt, whatever happens."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from icis import layout
from icis.artifacts import read_frame
from icis.errors import IcisError
from icis.fetching import fetch as fetching
from icis.fetching.condition import status, verify
from icis.fetching.fetch import Fetched, fetch
from icis.fetching.manifests import read_manifest
from icis.fetching.receipts import locate, read_receipt, source_of
from tests.fetching.archives import add, make_odd_tar, make_tar, make_zip
from tests.fetching.server import Fault, FaultyServer

AddSource = Callable[..., None]
FILES = {"top/images/a.jpg": b"a" * 1000, "top/images/b.jpg": b"b" * 2000, "top/list.txt": b"a\nb"}
ZIP = make_zip(FILES)
SEEN = Path("data/first-seen.json")
SETTLED = ["pets", "pets.files.parquet", "pets.json"]


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def fetch_quietly(name: str = "pets", **options: bool) -> Fetched:
    return fetch(name, progress=False, **options)


@pytest.fixture
def pets(server: FaultyServer, add_source: AddSource) -> FaultyServer:
    """Serve a source of two files, an archive with a checksum and a text without."""
    server.files = {"/pets.zip": ZIP, "/notes.txt": b"notes"}
    files = [
        {"name": "pets.zip", "urls": [server.url("/pets.zip")], "md5": md5(ZIP)},
        {"name": "notes.txt", "urls": [server.url("/notes.txt")]},
    ]
    add_source("pets", files)
    return server


def folder() -> dict[str, bytes]:
    root = Path("data/fetched/pets")
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def settled() -> None:
    """Check that the source is whole and nothing of the work is left."""
    assert folder() == {**FILES, "notes.txt": b"notes"}
    assert sorted(path.name for path in Path("data/fetched").iterdir()) == SETTLED
    assert not Path("data/downloads/pets").exists()
    assert not verify("pets", progress=False)


def test_a_source_is_fetched_once(pets: FaultyServer) -> None:
    done = fetch_quietly()
    assert done.new
    assert done.origins == {
        "pets.zip": pets.url("/pets.zip"),
        "notes.txt": pets.url("/notes.txt"),
    }
    settled()
    again = fetch_quietly()
    assert not again.new
    assert again.receipt == done.receipt
    assert len(pets.log) == 2


def test_the_receipt_and_the_list(pets: FaultyServer) -> None:
    fetch_quietly()
    receipt = json.loads(layout.receipt("pets").read_text())
    assert sorted(receipt) == ["bytes", "content", "files", "fingerprint", "n_files", "source"]
    assert receipt["n_files"] == 4
    assert receipt["bytes"] == 3008
    assert receipt["files"][1] == {
        "name": "pets.zip",
        "size": len(ZIP),
        "md5": md5(ZIP),
        "sha256": hashlib.sha256(ZIP).hexdigest(),
    }
    rows = read_frame(layout.manifest("pets")).rows()
    assert [row[0] for row in rows] == sorted([*FILES, "notes.txt"])
    assert rows[0] == ("notes.txt", 5, hashlib.sha256(b"notes").hexdigest())


def test_the_same_content_gives_the_same_receipt(
    pets: FaultyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch_quietly()
    first = layout.receipt("pets").read_bytes()
    shutil.rmtree("data")
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror/pets.zip").write_bytes(ZIP)
    monkeypatch.setenv("ICIS_MIRROR", str(tmp_path / "mirror"))
    done = fetch_quietly()
    assert done.origins["pets.zip"] == str(tmp_path / "mirror/pets.zip")
    assert layout.receipt("pets").read_bytes() == first


def test_archives_are_kept_on_demand(pets: FaultyServer) -> None:
    fetch_quietly(keep_archive=True)
    assert Path("data/downloads/pets/pets.zip").read_bytes() == ZIP
    layout.receipt("pets").unlink()
    fetch_quietly()
    assert len(pets.log) == 2
    settled()


def test_a_checksum_learnt_later_is_no_reason_to_fetch_again(
    pets: FaultyServer, add_source: AddSource
) -> None:
    fetch_quietly()
    entry = {"name": "pets.zip", "sha256": hashlib.sha256(ZIP).hexdigest(), "size": len(ZIP)}
    notes = {"name": "notes.txt", "urls": [pets.url("/notes.txt")]}
    add_source("pets", [entry, notes])
    assert not fetch_quietly().new
    add_source("pets", [{**entry, "sha256": "0" * 64}, notes])
    assert [each.state for each in status() if each.source == "pets"] == ["outdated"]
    with pytest.raises(IcisError, match="pets/pets.zip has no public address"):
        fetch_quietly()
    assert verify("pets", progress=False).missing == []


def test_a_change_of_the_entry_fetches_anew(pets: FaultyServer, add_source: AddSource) -> None:
    fetch_quietly()
    add_source("pets", [{"name": "pets.zip", "urls": [pets.url("/pets.zip")], "unpack": False}])
    fetch_quietly()
    assert folder() == {"pets.zip": ZIP}


def test_first_seen_hashes_are_for_files_without_a_checksum(pets: FaultyServer) -> None:
    fetch_quietly()
    notes = {"sha256": hashlib.sha256(b"notes").hexdigest(), "size": 5}
    assert json.loads(SEEN.read_text()) == {"pets/notes.txt": notes}
    shutil.rmtree("data/fetched")
    pets.files = {"/pets.zip": ZIP, "/notes.txt": b"other notes"}
    with pytest.raises(IcisError, match="--accept-changed"):
        fetch_quietly()
    assert not layout.receipt("pets").exists()
    fetch_quietly(accept_changed=True)
    assert json.loads(SEEN.read_text())["pets/notes.txt"]["size"] == 11
    assert not fetch_quietly().new


def test_another_first_seen_hash_makes_what_is_there_outdated(pets: FaultyServer) -> None:
    fetch_quietly()
    shutil.copy(SEEN, "mine.json")
    SEEN.write_text(json.dumps({"pets/notes.txt": {"sha256": "0" * 64, "size": 5}}))
    with pytest.raises(IcisError, match="0{64} .5 bytes. when it was first fetched"):
        fetch_quietly()
    shutil.copy("mine.json", SEEN)
    assert not fetch_quietly().new


def test_a_truncated_archive_that_nobody_vouches_for_is_not_kept_nor_recorded(
    server: FaultyServer, add_source: AddSource
) -> None:
    add_source("pets", [{"name": "pets.zip", "urls": [server.url("/pets.zip")]}])
    server.files = {"/pets.zip": ZIP[:-30]}
    server.faults["/pets.zip"] = Fault(no_length=True, times=1)
    with pytest.raises(IcisError, match=r"pets.zip is truncated or damaged: .*it was deleted"):
        fetch_quietly()
    assert not SEEN.exists()
    assert not Path("data/fetched/.pets.unfinished").exists()
    server.files = {"/pets.zip": ZIP}
    fetch_quietly()
    assert folder() == FILES


def test_a_hostile_archive_with_the_right_checksum_leaves_nothing(
    server: FaultyServer, add_source: AddSource
) -> None:
    bad = make_odd_tar(lambda tar: [add(tar, "a", b"a"), add(tar, "../../evil", b"x")])
    server.files = {"/pets.tgz": bad}
    add_source("pets", [{"name": "pets.tgz", "urls": [server.url("/pets.tgz")], "md5": md5(bad)}])
    with pytest.raises(IcisError, match="leads out of the folder"):
        fetch_quietly()
    assert list(Path("data/fetched").iterdir()) == []
    assert not Path("data/evil").exists()


def test_a_bomb_is_bounded_by_what_is_known(server: FaultyServer, add_source: AddSource) -> None:
    bomb = make_zip({"a": b"\0" * 5_000_000})
    server.files = {"/pets.zip": bomb}
    entry = {"name": "pets.zip", "urls": [server.url("/pets.zip")]}
    add_source("pets", [entry], unpacked_size=1_000_000)
    with pytest.raises(IcisError, match="unpacked_size"):
        fetch_quietly()
    add_source("pets", [entry], unpacked_size=5_000_000)
    fetch_quietly()


def test_several_archives_share_a_folder(server: FaultyServer, add_source: AddSource) -> None:
    server.files = {"/a.zip": make_zip({"a/1": b"1"}), "/b.tgz": make_tar({"b/2": b"2"})}
    names = ("a.zip", "b.tgz")
    add_source("pets", [{"name": name, "urls": [server.url(f"/{name}")]} for name in names])
    fetch_quietly()
    assert folder() == {"a/1": b"1", "b/2": b"2"}


def test_a_file_beside_an_archive_that_holds_it(
    server: FaultyServer, add_source: AddSource
) -> None:
    server.files = {"/a.zip": make_zip({"b.txt": b"1"}), "/b.txt": b"2"}
    names = ("a.zip", "b.txt")
    add_source("pets", [{"name": name, "urls": [server.url(f"/{name}")]} for name in names])
    with pytest.raises(IcisError, match="b.txt is in one of its archives too"):
        fetch_quietly()


def test_a_disk_too_small_is_seen_before_the_first_request(
    pets: FaultyServer, add_source: AddSource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    files = [{"name": "a.zip", "urls": [pets.url("/pets.zip")], "size": 10_000}]
    add_source("big", files, unpacked_size=90_000)
    usage = shutil.disk_usage(tmp_path)._replace(free=99_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(IcisError, match=r"fetching big .* needs 100.0 kB, .* only 100.0 kB left"):
        fetch_quietly("big")
    assert pets.log == []


def test_unknown_sources_get_a_suggestion(pets: FaultyServer) -> None:
    with pytest.raises(IcisError, match="no source 'pest'; did you mean 'pets'"):
        fetch_quietly("pest")


def test_a_source_without_address_says_its_note(add_source: AddSource) -> None:
    add_source("pets", [{"name": "pets.zip"}], note="Ask the zoo.")
    with pytest.raises(IcisError, match="Ask the zoo.*ICIS_MIRROR"):
        fetch_quietly()


# --- kills, and two at once

RUN = [sys.executable, "-c", "from icis.fetching.fetch import fetch; fetch('pets', say=print)"]


def start() -> subprocess.Popen[str]:
    return subprocess.Popen(RUN, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


def test_killed_while_downloading(pets: FaultyServer, add_source: AddSource) -> None:
    data = make_zip({**FILES, "big": random.Random(0).randbytes(1_000_000)})
    pets.files = {"/pets.zip": data, "/notes.txt": b"notes"}
    files = [{"name": name, "urls": [pets.url(f"/{name}")]} for name in ("notes.txt", "pets.zip")]
    add_source("pets", files)
    pets.faults["/pets.zip"] = Fault(stall_after=500_000, times=1)
    process = start()
    part = Path("data/downloads/pets/pets.zip.part")
    wait_for(lambda: part.exists() and part.stat().st_size > 100_000)
    size = {each.source: each for each in status()}["pets"]
    kill(process)
    assert size.state == "partly downloaded"
    assert size.downloaded > 100_000
    fetch_quietly()
    assert folder().keys() == {*FILES, "notes.txt", "big"}
    assert pets.ranges("/notes.txt") == [None]
    first, second = pets.ranges("/pets.zip")
    assert first is None
    assert second is not None
    assert int(second.removeprefix("bytes=").rstrip("-")) > 100_000


def test_killed_while_unpacking(server: FaultyServer, add_source: AddSource) -> None:
    files = {f"{i % 50}/{i}": b"x" * 100 for i in range(8000)}
    server.files = {"/pets.tgz": make_tar(files)}
    add_source("pets", [{"name": "pets.tgz", "urls": [server.url("/pets.tgz")]}])
    process = start()
    unfinished = Path("data/fetched/.pets.unfinished")
    wait_for(lambda: (unfinished / "49").exists())
    kill(process)
    assert unfinished.exists()
    assert not Path("data/fetched/pets").exists()
    fetch_quietly()
    assert folder() == files
    assert sorted(path.name for path in Path("data/fetched").iterdir()) == SETTLED
    assert len(server.log) == 1


@pytest.mark.parametrize(
    "step", ["write_manifest", "write_receipt", "shutil.rmtree", "_link_or_copy"]
)
def test_ended_between_any_two_steps(
    pets: FaultyServer, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        where = f"{fetching.__name__}.{step}"
        if step == "shutil.rmtree":
            patch.setattr(shutil, "rmtree", stop)
        else:
            patch.setattr(where, stop)
        with pytest.raises(KeyboardInterrupt):
            fetch_quietly()
    assert (read_receipt("pets") is not None) == (step == "shutil.rmtree")
    fetch_quietly()
    assert len(pets.log) == 2
    shutil.rmtree("data/downloads/pets", ignore_errors=True)
    settled()


def test_two_at_once_fetch_once(pets: FaultyServer) -> None:
    pets.faults["/pets.zip"] = Fault(delay=0.5, times=1)
    both = [start(), start()]
    said = [process.communicate(timeout=30)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert "waiting for another process" in "".join(said)
    assert len(pets.log) == 2
    settled()


# --- what is there


def test_verify_finds_damage(pets: FaultyServer) -> None:
    fetch_quietly()
    root = Path("data/fetched/pets/top")
    (root / "images/a.jpg").unlink()
    (root / "images/b.jpg").write_bytes(b"c" * 2000)
    (root / "list.txt").write_bytes(b"longer than before")
    (root / "new").symlink_to("images")
    damage = verify("pets", progress=False)
    assert damage.missing == ["top/images/a.jpg"]
    assert damage.changed == ["top/images/b.jpg", "top/list.txt"]
    assert damage.extra == ["top/new"]
    assert damage


def test_verify_what_was_not_fetched(pets: FaultyServer) -> None:
    with pytest.raises(IcisError, match="pets was not fetched; run: icis data fetch pets"):
        verify("pets")
    with pytest.raises(IcisError, match="did you mean 'pets'"):
        verify("petz")


def test_a_list_that_is_not_the_receipts(pets: FaultyServer) -> None:
    fetch_quietly()
    receipt = json.loads(layout.receipt("pets").read_text())
    layout.receipt("pets").write_text(json.dumps({**receipt, "content": "0" * 64}))
    with pytest.raises(IcisError, match="does not belong to"):
        read_manifest("pets")


@pytest.mark.parametrize("text", ["", "{}", "no json"])
def test_a_damaged_receipt_is_none(pets: FaultyServer, text: str) -> None:
    fetch_quietly()
    layout.receipt("pets").write_text(text)
    assert read_receipt("pets") is None
    assert fetch_quietly().new
    settled()


def test_status(pets: FaultyServer) -> None:
    assert {each.source: each.state for each in status()}["pets"] == "absent"
    fetch_quietly(keep_archive=True)
    found = {each.source: each for each in status()}
    assert found["pets"].state == "fetched"
    assert found["pets"].n_files == 4
    assert found["pets"].unpacked == 3008
    assert found["pets"].downloaded == len(ZIP) + 5
    assert found["cub-images"].state == "absent"
    assert found["cub-images"].size == 1_150_585_339


def test_locate(pets: FaultyServer) -> None:
    with pytest.raises(IcisError, match="icis data fetch pets"):
        locate("fetched:pets/top")
    fetch_quietly()
    root = Path("data/fetched/pets")
    assert locate("fetched:pets") == locate("fetched:pets/") == root
    assert locate("fetched:pets/**/images") == root / "top/images"
    assert locate("fetched:pets/top/list.txt") == root / "top/list.txt"
    (root / "__MACOSX/top/images").mkdir(parents=True)
    assert locate("fetched:pets/**/images") == root / "top/images"
    with pytest.raises(IcisError, match="nothing in data/fetched/pets matches"):
        locate("fetched:pets/**/none")
    with pytest.raises(IcisError, match="found top/images/a.jpg, top/images/b.jpg; be more exact"):
        locate("fetched:pets/**/*.jpg")
    with pytest.raises(IcisError, match="leads out"):
        locate("fetched:pets/../other")
    with pytest.raises(IcisError, match="did you mean 'pets'"):
        locate("fetched:pet/x")
    with pytest.raises(IcisError, match="expected fetched:"):
        locate("pets/x")
    with pytest.raises(IcisError, match="is none"):
        locate("fetched:pets/a**b")


def test_source_of() -> None:
    assert source_of("fetched:pets/**/images") == "pets"
    assert source_of("fetched:pets") == "pets"
    assert source_of("data/pets") is None
