"""Damaged files are found by their checksums and made anew by the same command; nothing is trusted.

What is in ``data/`` and the cells' files; a damaged download is what ``icis data verify`` finds.
"""

import os

import pytest

from icis import layout
from icis.artifacts import file_sha256
from tests.faults import SIZE, Project, assert_undisturbed
from tests.pipeline import CELLS, copy, planned

pytestmark = pytest.mark.slow

ICIS = CELLS / "icis-hidden-32_max-epochs-30"
NETWORK = layout.backbone("drawn", "small")
HEADS = layout.seen_heads("drawn", "small", "linear-last_epochs-5")
ARTIFACTS = {
    "index": layout.index("drawn"),
    "descriptors": layout.descriptors("drawn", "att"),
    "tensors of the trained backbone": NETWORK / "model.safetensors",
    "record of the trained backbone": NETWORK / "trained.json",
    "features": layout.features("drawn", "small"),
    "seen heads": HEADS,
    "injected head": ICIS / "seed-0.safetensors",
    "history": ICIS / "seed-1.history.parquet",
    "manifest": CELLS / "mlp-hidden-32_max-epochs-25/injection.json",
    "metrics of a cell": CELLS / "conse-default.parquet",
    "record of a batch": layout.batch("tiny", "drawn", "small", HEADS.stem, "att", "1"),
    "all metrics": layout.metrics("tiny"),
}


def flip(path):
    """Change one bit; the file keeps its size and its times, as when a disk decays."""
    about, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))


def cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def empty(path):
    path.write_bytes(b"")


@pytest.fixture
def project(calm, tmp_path):
    return Project(copy(calm.folder, tmp_path / "run"), calm.hosts)


def sums(folder):
    """Return the hashes of all artifacts."""
    return {name: file_sha256(folder / path) for name, path in ARTIFACTS.items()}


@pytest.mark.parametrize("damage", [flip, cut, empty])
def test_whatever_is_damaged_is_found_and_made_anew(calm, project, damage):
    for path in ARTIFACTS.values():
        damage(project.folder / path)
    found = project.completes("--dry-run")
    for name in ("index", "descriptors", "features", "seen heads"):
        assert f"damaged, and made anew: {ARTIFACTS[name]}" in found, name
    assert str(NETWORK / "model.safetensors") in found
    assert "files of cells are missing or damaged" in found
    assert sums(project.folder) != sums(calm.folder)
    project.completes()
    assert sums(project.folder) == sums(calm.folder)
    assert_undisturbed(project, calm)
    assert "Nothing to be done" in project.completes()


# what depends on an artifact is looked at again, and found to be made of the same
AFTER = {"collect": 1, "plot": 1, "tabulate": 1, "finish": 1, "track": 1}


@pytest.mark.parametrize(
    ("name", "jobs"),
    [
        ("seen heads", {"train_head": 1, "cells": 3, **AFTER}),
        ("injected head", {"cells": 1, **AFTER}),
        ("history", {"cells": 1, **AFTER}),
        ("record of a batch", {"cells": 1, **AFTER}),
        ("all metrics", {"collect": 1, "track": 1}),
    ],
)
def test_what_is_not_damaged_is_not_made_anew(calm, project, name, jobs):
    flip(project.folder / ARTIFACTS[name])
    assert planned(project.folder, *SIZE, **project.hosts) == jobs
