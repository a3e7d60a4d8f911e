"""A store that cannot be reached, or fails, costs seconds and no record."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from icis import layout, mlflow_store, tracked, tracking
from icis.errors import IcisError
from icis.mlflow_store import MlflowClient, MlflowException, StoreError
from icis.plan import Plan
from icis.stages import track
from icis.workflow import Workflow
from tests.logged import assert_rebuilt, invocations, make_plan, stored, write_cells
from tests.pipeline import environment

GOOD = "sqlite:///mlflow.db"


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Return an experiment with cells on disk, not logged yet."""
    monkeypatch.chdir(tmp_path)
    plan = make_plan("waiting", methods=("conse",))
    write_cells(plan)
    return plan


def closed_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def receipt(name: str = "waiting") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(layout.tracked(name).read_text())
    return found


def icis(*arguments: str, uri: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "icis", *arguments], capture_output=True, text=True, check=False,
        env=environment(MLFLOW_TRACKING_URI=uri),
    )  # fmt: skip


def test_a_dead_server_is_a_pending_receipt_and_sync_catches_up(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = f"http://me:secret@127.0.0.1:{closed_port()}"
    config = Path("experiment.json")
    config.write_text(plan.experiment.model_dump_json())
    began = time.monotonic()
    done = icis("track", "--may-wait", "--config", str(config), uri=dead)
    assert time.monotonic() - began < 30
    assert done.returncode == 0
    assert done.stderr.count("warning") == 1
    assert "does not answer" in done.stderr
    assert "icis track sync" in done.stderr
    said = receipt()
    assert said["status"] == "pending"
    assert "127.0.0.1" in said["tracking_uri"]
    assert "secret" not in done.stderr + json.dumps(said)
    by_hand = icis("track", "--config", str(config), uri=dead)
    assert by_hand.returncode == 2
    assert "mend MLFLOW_TRACKING_URI" in by_hand.stderr
    config.unlink()  # what is needed lies beside the results
    failed = icis("track", "sync", uri=dead)
    assert failed.returncode == 2
    assert "waiting: the MLflow server" in failed.stderr
    synced = icis("track", "sync", uri=GOOD)
    assert synced.returncode == 0, synced.stderr
    assert "waiting: 2 runs in sqlite:///mlflow.db, 2 of them new" in synced.stdout
    assert receipt()["status"] == "logged"
    assert "no records wait" in icis("track", "sync", uri=GOOD).stdout
    monkeypatch.setenv("MLFLOW_TRACKING_URI", GOOD)
    assert_rebuilt(plan)


def test_a_server_that_is_silent_costs_seconds(plan: Plan) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # and never accepts
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(StoreError, match="does not answer within 5 seconds"):
            tracking.log_experiment(plan, uri=uri)
        assert time.monotonic() - began < 15


def test_a_setting_of_mlflow_that_the_user_made_stays() -> None:
    code = "import os, icis.mlflow_store; "
    code += "print(*(os.environ[f'MLFLOW_HTTP_REQUEST_{x}'] for x in ('TIMEOUT', 'MAX_RETRIES')))"
    changes = environment(MLFLOW_HTTP_REQUEST_TIMEOUT="77")
    done = subprocess.run([sys.executable, "-c", code], env=changes, capture_output=True, text=True)
    assert done.stdout.split() == ["77", "3"]


def test_a_damaged_store_stops_nothing(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", GOOD)
    Path("mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"sqlite:///mlflow\.db failed: .*not a database"):
        track.run(plan)
    assert track.run(plan, may_wait=True) is None
    assert receipt()["status"] == "pending"
    Path("mlflow.db").unlink()
    synced = icis("track", "sync", uri=GOOD)  # this process has the old file open
    assert synced.returncode == 0, synced.stderr
    assert receipt()["status"] == "logged"


def test_a_store_that_breaks_in_the_middle_is_completed(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", GOOD)
    log: Callable[..., Any] = MlflowClient.log_batch
    with monkeypatch.context() as patch:
        left = iter(range(2))  # a record: its numbers, then that it is complete

        def log_batch(*args: Any, **kwargs: Any) -> Any:
            if next(left, None) is None:
                raise MlflowException("the disk is full")
            return log(*args, **kwargs)

        patch.setattr(MlflowClient, "log_batch", log_batch)
        assert track.run(plan, may_wait=True) is None
    assert "the disk is full" in receipt()["reason"]
    done = track.sync()["waiting"]
    assert (done.complete, done.new) == (2, 1)
    with mlflow_store.open_store(GOOD) as client:
        current, old = stored(client, plan)
        assert (len(current), old) == (2, [])
        assert len(invocations(client, plan)) == 1
    assert_rebuilt(plan)


def test_a_fault_of_ours_does_not_wait(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_plan("waiting", methods=("conse",), seeds=3)  # not what is on disk
    monkeypatch.setenv("MLFLOW_TRACKING_URI", GOOD)
    with pytest.raises(IcisError, match="another configuration"):
        track.run(other, may_wait=True)
    assert not layout.tracked("waiting").exists()


def test_sync_tries_all_and_names_what_fails(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", GOOD)
    plans = [make_plan(name, methods=("conse",)) for name in ("another", "broken")]
    for each in plans:
        write_cells(each)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port()}")
    for each in (plan, *plans):
        track.run(each, may_wait=True)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", GOOD)
    for path in layout.results("broken").glob("cells/**/*.parquet"):
        path.unlink()
    with pytest.raises(IcisError, match="(?s)not logged:\nbroken: .*does not exist"):
        track.sync()
    for each in (plan, plans[0]):
        assert receipt(each.experiment.name)["status"] == "logged"
        assert_rebuilt(each)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///second.db")
    layout.tracked_experiment("broken").unlink()
    assert list(track.sync(every=True)) == ["another", "waiting"]


def test_each_failure_of_the_rule_makes_it_stale_once_more(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Snakemake does: it deletes the receipt, and records the state from before the run."""
    flow = Workflow(plan.experiment.identity(), "here")
    dead = f"http://127.0.0.1:{closed_port()}"
    recorded = ""

    def rule(uri: str) -> None:
        nonlocal recorded
        recorded = flow.track_state(None)
        layout.tracked("waiting").unlink(missing_ok=True)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        track.run(plan, may_wait=True)

    def stale() -> bool:
        return recorded != flow.track_state(None)

    rule(GOOD)
    assert not stale()
    for uri in (dead, dead, GOOD):
        rule(uri)
        assert stale() == (uri == dead)
    rule(dead)
    assert stale()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", GOOD)
    track.sync()
    assert not stale()
    assert tracked.pending(layout.tracked("waiting")) is None
    track.run(plan)
    assert not stale()
