"""Fixtures: a folder to work in, a server, a user's catalogue that points at it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fetching.server import FaultyServer


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty folder, impatiently, without what the environment may say."""
    for name in ("ICIS_MIRROR", "ICIS_CATALOGUE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ICIS_FETCH_WAIT", "0.01")
    monkeypatch.setenv("ICIS_FETCH_ATTEMPTS", "3")
    monkeypatch.setenv("ICIS_FETCH_TIMEOUT", "5")
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    """Serve a dict of files, empty at first."""
    with FaultyServer({}) as running:
        yield running


@pytest.fixture
def add_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what adds a source to the user's catalogue: a name, its files, other keys."""
    path = tmp_path / "catalogue.yaml"
    sources: dict[str, Any] = {}
    monkeypatch.setenv("ICIS_CATALOGUE", str(path))

    def add(name: str, files: list[dict[str, Any]], **other: Any) -> None:
        about = {"title": name, "homepage": "https://example.org/", "licence": "Free to all."}
        sources[name] = {**about, "files": files, **other}
        path.write_text(json.dumps({"sources": sources}))

    path.write_text("{}")
    return add
