"""``icis data``: what it prints and how it ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from icis.cli import app
from icis.errors import IcisError
from tests.fetching.archives import make_zip
from tests.fetching.server import FaultyServer

AddSource = Callable[..., None]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["data", *arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


@pytest.fixture
def pets(server: FaultyServer, add_source: AddSource) -> FaultyServer:
    server.files = {"/pets.zip": make_zip({"a/b": b"1"})}
    add_source("pets", [{"name": "pets.zip", "urls": [server.url("/pets.zip")]}])
    add_source("lost", [{"name": "lost.zip", "urls": [server.url("/lost.zip")]}])
    return server


def test_list_says_titles_sizes_terms_and_benchmarks(pets: FaultyServer) -> None:
    said = run("list")
    assert "cub-images: Caltech-UCSD Birds-200-2011, images (1.2 GB)" in said
    assert "xlsa17: Proposed Splits 2.0" in said
    assert "size not known" in said
    assert "nothing is redistributed" in said
    assert "AWA2: Animals with Attributes 2; sources xlsa17, awa2-images" in said
    assert "pets: pets" in said
    assert max(map(len, said.splitlines())) < 160


def test_fetch_says_the_terms_and_where_files_came_from(pets: FaultyServer) -> None:
    said = run("fetch", "pets")
    assert said.index("Free to all.") < said.index(f"from {pets.url('/pets.zip')}")
    assert "pets: 1 files in data/fetched/pets" in said
    assert "nothing to do" in run("fetch", "pets")


def test_what_can_be_fetched_is_though_something_else_cannot(pets: FaultyServer) -> None:
    with pytest.raises(
        IcisError, match=r"1 of 2 sources were not fetched.\n\nlost/lost.zip could not"
    ):
        run("fetch", "lost", "pets")
    assert Path("data/fetched/pets/a/b").exists()


def test_verify_and_status(pets: FaultyServer) -> None:
    run("fetch", "pets", "--keep-archive")
    assert run("verify", "pets") == "pets: whole\n"
    assert run("verify", "all") == "pets: whole\n"
    said = run("status").splitlines()
    assert said[0].split()[:2] == ["source", "state"]
    assert next(line for line in said if line.startswith("pets")).split()[1:3] == ["fetched", "1"]
    Path("data/fetched/pets/a/b").write_bytes(b"2")
    Path("data/fetched/pets/c").write_bytes(b"2")
    with pytest.raises(IcisError, match="damaged: pets; delete data/fetched/SOURCE.json"):
        run("verify", "pets")
    done = CliRunner().invoke(app, ["data", "verify", "pets"])
    assert "  changed: a/b\n  extra: c\n" in done.output


def test_a_users_mistake_is_one_message_and_exit_status_2() -> None:
    command = [sys.executable, "-m", "icis", "data", "fetch", "cub-image"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "icis: there is no source or benchmark 'cub-image'; did you mean 'cub-images'?\n"
    )
    assert done.stdout == ""


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, icis.cli; "
        "heavy = {'requests', 'pydantic', 'pyarrow', 'polars', 'numpy', 'torch', 'tqdm'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
