"""Shared fixtures."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real data; its absence fails the test rather than skip it."""
    folder = Path(os.environ.get("ICIS_DATA", ""))
    if not os.environ.get("ICIS_DATA") or not (folder / "README.md").is_file():
        pytest.fail("ICIS_DATA must name the folder of real data (see docs/development.md)")
    return folder
