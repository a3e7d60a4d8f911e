"""A full disk and a read-only folder: told with the next step; then the same command completes.

Small mounts, since root may write everywhere else. They need root; where that is not had, the tests
are skipped and say so, and where CI is set they fail.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import lacking
from tests.faults import Project, assert_undisturbed
from tests.pipeline import copy

pytestmark = pytest.mark.slow

KIB = 1024
LATER = ("data/features", "data/heads", "results")
"""What is removed from a finished run, for the next one to make it."""


class Mounts:
    """Mounts of a test, which are taken away at its end."""

    def __init__(self) -> None:
        self.places: list[Path] = []

    def mount(self, place: Path, *arguments: str) -> None:
        """Mount something at a place."""
        done = subprocess.run(
            ["mount", *arguments, str(place)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            lacking(f"small mounts need root (mount: {done.stderr.strip()})")
        self.places.append(place)

    def change(self, place: Path, options: str) -> None:
        """Change the options of a mount."""
        subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)

    def remove(self) -> None:
        """Take all away, the latest first."""
        while self.places:
            subprocess.run(["umount", "--lazy", str(self.places.pop())], check=True)


@pytest.fixture
def mounts():
    found = Mounts()
    yield found
    found.remove()


def used(folder):
    """Return the bytes of a folder's files, in the pages of a tmpfs."""
    files = [each for each in folder.rglob("*") if each.is_file()]
    return sum(-(-each.stat().st_size // 4096) * 4096 for each in files)


def half_done(calm, folder):
    """Return a copy of the finished run that lacks what comes after the trained backbone."""
    copy(calm.folder, folder)
    for name in LATER:
        shutil.rmtree(folder / name)
    return folder


def limited(calm, tmp_path, mounts, where, room):
    """Return a half-done project, and a place in it where this many KiB are left."""
    made, folder = half_done(calm, tmp_path / "made"), tmp_path / "run"
    shutil.copytree(made, folder, symlinks=True)
    source, place = made / where, folder / where
    place.mkdir(exist_ok=True)
    there = source.exists()
    size = (used(source) if there else 0) + room * KIB
    mounts.mount(place, "-t", "tmpfs", "-o", f"size={size}", "none")
    if there:
        shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True)
    return Project(folder, calm.hosts), place


@pytest.mark.parametrize(("where", "room"), [("data", 16), ("results", 100), (".", 100)])
def test_a_full_disk(calm, tmp_path, mounts, where, room):
    project, place = limited(calm, tmp_path, mounts, where, room)
    assert "no space is left on the disk; make room, then run the same command again" in (
        project.fails()
    )
    mounts.change(place, "size=256m")
    project.completes()
    assert_undisturbed(project, calm)


def test_a_full_disk_for_snakemakes_own_records(calm, tmp_path, mounts):
    """Snakemake warns and goes on; that artifacts are whole does not hang on its records."""
    project, place = limited(calm, tmp_path, mounts, ".snakemake", 4)
    done = project.run()
    assert "No space left on device" in done.stdout + done.stderr
    mounts.change(place, "size=256m")
    project.completes()
    assert_undisturbed(project, calm)


@pytest.mark.parametrize("where", ["data", "results", ".snakemake", "."])
def test_a_read_only_folder(calm, tmp_path, mounts, where):
    folder = half_done(calm, tmp_path / "run")
    project = Project(folder, calm.hosts)
    place = folder if where == "." else folder / where
    place.mkdir(exist_ok=True)
    mounts.mount(place, "--bind", str(place))
    mounts.change(place, "ro,bind")
    said = project.fails()
    assert "read-only; make it writable, then run the same command again" in said
    mounts.change(place, "rw,bind")
    project.completes()
    assert_undisturbed(project, calm)
