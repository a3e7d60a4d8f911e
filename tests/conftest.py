"""Shared fixtures."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.faults import Project

# beside other work on the cores, two threads are many times slower than one
os.environ.setdefault("OMP_NUM_THREADS", "1")


def lacking(what: str) -> None:
    """Skip a test for something that is not here, and say so; where CI is set, fail it."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real data."""
    folder = Path(os.environ.get("ICIS_DATA", "nowhere"))
    if not (folder / "README.md").is_file():
        lacking("ICIS_DATA must name the folder of real data (docs/real-data.md)")
    return folder


@pytest.fixture(scope="session")
def dot() -> str:
    """Return graphviz's program."""
    found = shutil.which("dot")
    if found is None:
        lacking("graphviz is not installed (scripts/system-packages)")
    return str(found)


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Run the small experiment of all stages undisturbed; its host stays for other runs of it."""
    from tests.faults import Project, host

    folder = tmp_path_factory.mktemp("faults")
    with host(folder) as hosts:
        project = Project(folder / "calm", hosts)
        project.completes()
        yield project
