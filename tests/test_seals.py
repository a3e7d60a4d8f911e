"""Seals: damage of any byte of an artifact is found; and a disk's refusal is one message."""

import errno
import subprocess

import pytest

from icis.artifacts import write_text
from icis.errors import DiskError, disk_error, explaining_disk
from icis.seals import damaged, seal, seal_of


@pytest.fixture
def sealed(tmp_path):
    path, other = tmp_path / "model.json", tmp_path / "tensors"
    path.write_text("what it is")
    other.write_bytes(bytes(range(100)))
    seal(path, other)
    return path, other


def test_every_byte_counts(sealed):
    for path in sealed:
        whole = path.read_bytes()
        for position in range(len(whole)):
            data = bytearray(whole)
            data[position] ^= 1
            path.write_bytes(data)
            assert damaged(sealed[0]) == [path]
        path.write_bytes(whole)
        assert damaged(sealed[0]) == []


def test_what_is_cut_is_damaged_and_what_is_absent_is_not_judged(sealed):
    path, other = sealed
    other.write_bytes(other.read_bytes()[:-1])
    assert damaged(path) == [other]
    other.unlink()
    assert damaged(path) == []


@pytest.mark.parametrize("text", ["", "no seal", "\xff", f"{'0' * 64}  another\n"])
def test_a_damaged_seal_vouches_for_nothing(sealed, text):
    seal_of(sealed[0]).write_bytes(text.encode("latin-1"))
    assert sealed[0] in damaged(sealed[0])


def test_what_is_not_there_or_was_never_sealed_is_not_judged(sealed, tmp_path):
    sealed[0].unlink()
    assert damaged(sealed[0]) == []
    (tmp_path / "other").write_text("from elsewhere")
    assert damaged(tmp_path / "other") == []


def test_sha256sum_reads_a_seal(sealed, tmp_path):
    command = ["sha256sum", "--check", "--strict", seal_of(sealed[0]).name]
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 0
    sealed[0].write_text("another")
    assert subprocess.run(command, cwd=tmp_path, check=False, capture_output=True).returncode == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left"), "no space is left on the disk; make room"),
        (OSError(errno.EDQUOT, "Quota"), "no space is left on the disk; make room"),
        (OSError(errno.EROFS, "Read-only"), "read-only; make it writable"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space is left"),
    ],
)
def test_a_disk_that_refuses_is_named_with_the_next_step(tmp_path, error, said):
    with pytest.raises(DiskError, match=said) as caught, explaining_disk(tmp_path):
        raise error
    assert str(tmp_path) in str(caught.value)
    assert "run the same command again" in str(caught.value)


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "no"), ValueError("28")])
def test_other_errors_stay_themselves(tmp_path, error):
    assert disk_error(error) is None
    with pytest.raises(type(error)), explaining_disk(tmp_path):
        raise error


def test_writing_to_a_full_device_is_named(tmp_path):
    (tmp_path / "full").symlink_to("/dev/full")
    with pytest.raises(DiskError, match="no space is left"), explaining_disk(tmp_path):
        (tmp_path / "full").write_text("x" * 100_000)
    write_text(tmp_path / "file", "x")
