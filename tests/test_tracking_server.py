"""A real ``mlflow server``: several writers, and one that dies while it is written to."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from icis import layout, mlflow_store
from icis.artifacts import write_text
from icis.mlflow_store import MlflowClient, StoreError
from icis.plan import Plan
from icis.stages import track
from tests.logged import (
    Server,
    assert_rebuilt,
    invocations,
    is_cell,
    make_plan,
    stored,
    write_cell,
    write_cells,
    write_head,
)
from tests.pipeline import environment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a server for the module."""
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def here(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of the test's own, with the server as store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    return tmp_path


def start(folder: Path, plan: Plan, uri: str) -> subprocess.Popen[bytes]:
    write_text(folder / "experiment.json", plan.experiment.model_dump_json())
    command = [sys.executable, "-m", "icis", "track", "--config", "experiment.json"]
    return subprocess.Popen(command, cwd=folder, env=environment(MLFLOW_TRACKING_URI=uri))


def test_artifacts_go_through_the_server(server: Server, here: Path) -> None:
    plan = make_plan("served", methods=("conse",))
    [cell] = plan.cells.values()
    write_cell(plan, cell, heads={"0": write_head(plan, cell, 0), "1": ""})
    write_text(layout.table("served", "main", "csv"), "a table")
    track.run(plan)
    track.run(plan)
    client = MlflowClient(server.uri)
    current, old = stored(client, plan)
    assert (len(current), old) == (2, [])
    [parent] = invocations(client, plan)
    path = client.download_artifacts(parent.info.run_id, "tables/main.csv", str(here))
    assert Path(path).read_text() == "a table"
    [first] = [run for run in current if run.data.tags["icis.seed"] == "0"]
    assert [each.path for each in client.list_artifacts(first.info.run_id, "head")] == [
        "head/seed-0.safetensors"
    ]
    assert not list(here.glob("ml*"))
    assert_rebuilt(plan)


def test_several_experiments_at_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    plans = [make_plan(f"at-once-{number}", methods=("conse",), seeds=4) for number in range(3)]
    writers = []
    for plan in plans:
        folder = tmp_path / plan.experiment.name
        folder.mkdir()
        monkeypatch.chdir(folder)
        write_cells(plan)
        writers.append(start(folder, plan, server.uri))
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    for plan in plans:
        monkeypatch.chdir(tmp_path / plan.experiment.name)
        current, old = stored(MlflowClient(server.uri), plan)
        assert (len(current), old) == (4, [])
        assert_rebuilt(plan)


def test_one_experiment_from_several_folders_at_once(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    plan = make_plan("shared", methods=("conse",), seeds=4)
    writers = []
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        write_cells(plan)
        writers.append(start(tmp_path / name, plan, server.uri))
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("shared").experiment_id
    runs = [run for run in mlflow_store.list_runs(client, experiment) if is_cell(run)]
    assert all(run.data.tags.get("icis.complete") == "true" for run in runs)
    tags = [run.data.tags for run in runs]
    counting = [each["icis.key"] for each in tags if "icis.superseded" not in each]
    assert len(counting) == len(set(counting)) == 4
    assert_rebuilt(plan)
    done = track.run(plan)
    assert done is not None
    assert (done.new, done.superseded) == (0, 0)
    whole = [run for run in invocations(client, plan) if "icis.superseded" not in run.data.tags]
    assert [run.info.run_id for run in whole] == [done.run_id]


WRITES = ("create_run", "log_batch", "log_inputs", "log_artifact", "set_terminated", "set_tag")


def kill_at(patch: pytest.MonkeyPatch, server: Server, calls: int) -> None:
    """Kill the server at a writing call."""
    left = iter(range(calls))

    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(left, None) is None:
                server.kill()
            return method(*args, **kwargs)

        return call

    for name in WRITES:
        patch.setattr(MlflowClient, name, wrap(getattr(MlflowClient, name)))


def test_a_server_killed_while_it_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path / "server")
    plan = make_plan("cut-off", methods=("conse",), seeds=3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    write_cells(plan)
    try:
        for calls in (4, 7):  # in the first run, and in a later one
            server.start()
            with pytest.MonkeyPatch.context() as patch:
                kill_at(patch, server, calls)
                assert track.run(plan, may_wait=True) is None
            assert json.loads(layout.tracked("cut-off").read_text())["status"] == "pending"
        with pytest.raises(StoreError, match="does not answer"):
            track.run(plan)
        server.start()
        assert track.sync()["cut-off"].complete == 3
        client = MlflowClient(server.uri)
        current, old = stored(client, plan)
        assert (len(current), old) == (3, [])
        assert len(invocations(client, plan)) == 1
        assert_rebuilt(plan)
    finally:
        server.kill()
