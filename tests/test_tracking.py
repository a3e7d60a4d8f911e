"""Logging to MLflow: exactly once, whatever happens, and the metrics come back bit for bit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from icis import layout, mlflow_store, tracking
from icis.artifacts import read_frame, write_text
from icis.errors import IcisError
from icis.mlflow_store import MlflowClient, list_runs, public_uri
from icis.plan import Plan
from icis.stages import track
from icis.tracking import invocation, runs
from tests.logged import (
    NUMBERS,
    assert_rebuilt,
    invocations,
    is_cell,
    make_plan,
    stored,
    write_cell,
    write_cells,
    write_failure,
    write_head,
)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a store for the module: MLflow takes seconds to make one."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.fixture
def client(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """Return a client of the store, in a working directory of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with mlflow_store.open_store(uri) as client:
        return client


@pytest.fixture
def plan(client: MlflowClient) -> Plan:
    """Return an experiment of its own name: two cells, two seeds, on disk and logged."""
    plan = make_plan(f"experiment-{next(NUMBERS)}")
    write_cells(plan)
    track.run(plan)
    return plan


def test_logs_everything(client: MlflowClient, plan: Plan) -> None:
    current, old = stored(client, plan)
    assert (len(current), old) == (4, [])
    assert_rebuilt(plan)
    receipt = json.loads(layout.tracked(plan.experiment.name).read_text())
    assert (receipt["complete"], receipt["new"], receipt["superseded"]) == (4, 4, 0)
    for run in current:
        tags, params = run.data.tags, run.data.params
        assert tags["mlflow.parentRunId"] == receipt["run_id"]
        assert tags["split_version"] == "own"
        assert tags["device"] == "cpu"
        assert tags["icis.key"] == f"{tags['icis.cell']}/{tags['icis.seed']}"
        assert (params["dataset"], params["dataset.kind"]) == ("birds", "xlsa17")
        assert params["method.method"] == tags["method"]
        pieces = [tags["sources"], *(tags.get(f"sources.{number}", "") for number in range(1, 9))]
        assert len(json.loads("".join(pieces))) == 60
        assert json.loads(tags["configuration"])["n_seen"] == "all"


def test_loss_curves_come_back(client: MlflowClient, plan: Plan) -> None:
    cell = next(cell for cell in plan.cells.values() if cell.method.method == "icis")
    folder = layout.cell(plan.experiment.name, *cell.key)
    runs = [run for run in stored(client, plan)[0] if run.data.tags["icis.cell"] == cell.id]
    assert len(runs) == 2
    for run in runs:
        rows = []
        for name in run.data.metrics:
            if name.startswith("history/"):
                term = mlflow_store.decode(name.removeprefix("history/"))
                points = client.get_metric_history(run.info.run_id, name)
                rows += [(each.step, term, each.value) for each in points]
        written = read_frame(folder / f"seed-{run.data.tags['icis.seed']}.history.parquet")
        assert sorted(rows) == sorted(written.select("epoch", "term", "value").rows())


def test_failures_come_back_with_their_reasons(client: MlflowClient, plan: Plan) -> None:
    first = next(iter(plan.cells.values()))
    reason = "the loss is “NaN” (β)\n" * 400  # more than one tag holds
    write_failure(plan, first, reason)
    assert tracking.log_experiment(plan).new == 1
    assert_rebuilt(plan)
    frame = track.rebuild(plan.experiment.name)
    failed = frame.drop_nulls("problem")
    assert failed.select("metric", "value", "problem").rows() == [("failed", 1.0, reason)]
    assert tracking.log_experiment(plan).new == 0
    write_failure(plan, first, "another reason")
    assert tracking.log_experiment(plan).new == 1
    assert_rebuilt(plan)
    write_cell(plan, first)
    receipt = tracking.log_experiment(plan)
    assert (receipt.new, receipt.superseded) == (0, 1)
    assert_rebuilt(plan)


def test_a_number_and_all_may_be_the_same_count_of_seen_classes(client: MlflowClient) -> None:
    plan = make_plan(f"experiment-{next(NUMBERS)}", methods=("conse",), n_seen=["all", 150])
    write_cells(plan)  # both say that they learnt from 150 classes
    tracking.log_experiment(plan)
    assert len(stored(client, plan)[0]) == 4
    assert_rebuilt(plan)


def test_logging_again_changes_nothing(
    client: MlflowClient, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(run.info.run_id for run in stored(client, plan)[0])
    monkeypatch.setattr(mlflow_store, "RUNS_A_PAGE", 2)
    receipt = tracking.log_experiment(plan)
    assert (receipt.complete, receipt.new, receipt.superseded) == (4, 0, 0)
    current, old = stored(client, plan)
    assert (sorted(run.info.run_id for run in current), old) == (before, [])
    assert_rebuilt(plan)


def test_changed_metrics_supersede_and_may_come_back(client: MlflowClient, plan: Plan) -> None:
    first = next(iter(plan.cells.values()))
    before = {run.info.run_id for run in stored(client, plan)[0]}
    write_cell(plan, first, offset=1e-13)
    receipt = tracking.log_experiment(plan)
    assert (receipt.complete, receipt.new, receipt.superseded) == (4, 2, 2)
    current, old = stored(client, plan)
    assert (len(current), len(old)) == (4, 2)
    assert_rebuilt(plan)
    write_cell(plan, first)
    receipt = tracking.log_experiment(plan)
    assert (receipt.complete, receipt.new, receipt.superseded) == (4, 0, 2)
    assert {run.info.run_id for run in stored(client, plan)[0]} == before
    assert_rebuilt(plan)


def test_fewer_seeds_and_cells_then_more(client: MlflowClient, plan: Plan) -> None:
    name = plan.experiment.name
    smaller = make_plan(name, seeds=1, methods=("icis",))
    write_cells(smaller)
    receipt = tracking.log_experiment(smaller)
    assert (receipt.complete, receipt.new, receipt.superseded) == (1, 0, 3)
    assert_rebuilt(smaller)
    larger = make_plan(name, seeds=3)
    write_cells(larger)
    receipt = tracking.log_experiment(larger)
    assert (receipt.complete, receipt.new, receipt.superseded) == (6, 2, 0)
    assert_rebuilt(larger)


def test_provenance_is_renewed_in_place(client: MlflowClient, plan: Plan) -> None:
    for cell in plan.cells.values():
        write_cell(plan, cell, git_commit="abc", sources={"one": "2" * 64})
    assert tracking.log_experiment(plan).new == 0
    for run in stored(client, plan)[0]:
        assert run.data.tags["git_commit"] == "abc"
        assert [tag for tag in run.data.tags if tag.startswith("sources")] == ["sources"]


CALLS = (
    "create_run", "log_batch", "log_inputs", "log_artifact", "log_dict", "set_terminated",
    "set_tag", "delete_run", "delete_tag",
)  # fmt: skip


class Killed(BaseException):
    """Stands for a kill: no handler of errors sees it."""


def kill_after(monkeypatch: pytest.MonkeyPatch, calls: int) -> None:
    """Let every writing call beyond ``calls`` raise."""
    left = iter(range(calls))

    def wrap(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if next(left, None) is None:
                raise Killed
            return method(*args, **kwargs)

        return call

    for name in CALLS:
        monkeypatch.setattr(MlflowClient, name, wrap(getattr(MlflowClient, name)))


def test_killed_anywhere_and_started_again(client: MlflowClient) -> None:
    plan = make_plan(f"experiment-{next(NUMBERS)}", methods=("conse",))
    [cell] = plan.cells.values()
    table = layout.table(plan.experiment.name, "main", "csv")
    for calls in count():
        hashes = {"0": write_head(plan, cell, 0, scale=calls), "1": ""}
        write_cell(plan, cell, offset=calls, heads=hashes)
        write_text(table, str(calls))
        with pytest.MonkeyPatch.context() as patch:
            kill_after(patch, calls)
            try:
                tracking.log_experiment(plan)
                killed = False
            except Killed:
                killed = True
        receipt = tracking.log_experiment(plan)
        assert tracking.log_experiment(plan).run_id == receipt.run_id
        current, old = stored(client, plan)
        assert (len(current), len(old)) == (2, 2 * calls)
        assert_rebuilt(plan)
        every = invocations(client, plan)
        assert len(every) == calls + 1
        assert [run.info.run_id for run in every if "icis.superseded" not in run.data.tags] == [
            receipt.run_id
        ]
        path = client.download_artifacts(receipt.run_id, "tables/main.csv")
        assert Path(path).read_text() == str(calls)
        [first] = [run for run in current if run.data.tags["icis.seed"] == "0"]
        assert client.list_artifacts(first.info.run_id, "head")
        if not killed:
            break
    assert calls > 15  # two runs of four calls each and more, and that of the invocation


def test_killed_and_started_again_with_other_results(client: MlflowClient) -> None:
    plan = make_plan(f"experiment-{next(NUMBERS)}", methods=("conse",))
    for calls in (2, 6, 8, 12):
        write_cells(plan, offset=calls)
        with pytest.MonkeyPatch.context() as patch:
            kill_after(patch, calls)
            with pytest.raises(Killed):
                tracking.log_experiment(plan)
        write_cells(plan, offset=0.5)
        receipt = tracking.log_experiment(plan)
        current, _ = stored(client, plan)
        assert len(current) == 2
        assert_rebuilt(plan)
        runs = invocations(client, plan, whole=False)
        open_ = [run for run in runs if run.info.status == "RUNNING"]
        counting = [run for run in runs if "icis.superseded" not in run.data.tags]
        assert not open_
        assert [run.info.run_id for run in counting] == [receipt.run_id]


def test_what_another_writer_has_not_finished_is_let_be(
    client: MlflowClient, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = client.get_experiment_by_name(plan.experiment.name).experiment_id
    tags = {"icis.key": "cell/0", "icis.digest": "x", "icis.writer": "another"}
    other = client.create_run(experiment, tags=tags).info.run_id
    tracking.log_experiment(plan)
    assert client.get_run(other).info.lifecycle_stage == "active"
    monkeypatch.setattr(runs, "ABANDONED", -1)  # as if an hour had gone by
    tracking.log_experiment(plan)
    assert client.get_run(other).info.lifecycle_stage == "deleted"


def test_what_two_checkouts_logged_at_once_is_mended(client: MlflowClient, plan: Plan) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(invocation, "list_runs", lambda *_: [])  # as if the other was not there yet
        assert tracking.log_experiment(plan).new == 4
    assert_rebuilt(plan)
    receipt = tracking.log_experiment(plan)
    assert (receipt.complete, receipt.new, receipt.superseded) == (4, 0, 4)
    runs = list_runs(client, receipt.experiment_id)
    current = [run for run in runs if is_cell(run) and "icis.superseded" not in run.data.tags]
    assert len(current) == 4
    counting = [run for run in invocations(client, plan) if "icis.superseded" not in run.data.tags]
    assert [run.info.run_id for run in counting] == [receipt.run_id]
    assert_rebuilt(plan)


def test_an_invocation_that_changed_nothing_adds_no_run(client: MlflowClient, plan: Plan) -> None:
    name = plan.experiment.name
    table = layout.table(name, "main", "csv")
    figure = layout.figure(name, "main (β)", "bars", "svg")
    for path, text in ((table, "one"), (figure, "<svg/>")):
        write_text(path, text)
    for _ in range(3):
        track.run(plan)
    assert len(invocations(client, plan)) == 2  # the fixture's, and one with table and figure
    write_text(table, "two")
    figure.unlink()
    track.run(plan)
    *old, current = invocations(client, plan)
    assert ["icis.superseded" in run.data.tags for run in old] == [True, True]
    receipt = json.loads(layout.tracked(name).read_text())
    assert receipt["run_id"] == current.info.run_id
    assert receipt["digest"] == current.data.tags["icis.digest"]
    for run, text in ((old[1], "one"), (current, "two")):
        path = client.download_artifacts(run.info.run_id, "tables/main.csv")
        assert Path(path).read_text() == text
    assert [each.path for each in client.list_artifacts(old[1].info.run_id, "figures")] == [
        "figures/main (β).bars.svg"
    ]
    assert client.list_artifacts(current.info.run_id, "figures") == []


def test_an_invocation_holds_experiment_and_versions(client: MlflowClient, plan: Plan) -> None:
    [run] = invocations(client, plan)
    assert run.info.status == "FINISHED"
    assert run.data.params["methods.icis.method"] == "icis"
    assert run.data.params["datasets.birds.kind"] == "xlsa17"
    assert json.loads(run.data.tags["versions"])["torch"]
    path = client.download_artifacts(run.info.run_id, "experiment.json")
    assert json.loads(Path(path).read_text()) == plan.experiment.identity()


def test_runs_hang_below_the_invocation_that_logged_them(client: MlflowClient, plan: Plan) -> None:
    first = next(iter(plan.cells.values()))
    write_cell(plan, first, offset=1.0)
    track.run(plan)
    one, two = (run.info.run_id for run in invocations(client, plan))
    current, old = stored(client, plan)
    parents = {run.data.tags["icis.key"]: run.data.tags["mlflow.parentRunId"] for run in current}
    for key, parent in parents.items():
        assert parent == (two if key.startswith(first.id) else one)
    assert {run.data.tags["mlflow.parentRunId"] for run in old} == {one}


def test_data_sets_are_inputs_of_a_run(client: MlflowClient) -> None:
    plan = make_plan(f"experiment-{next(NUMBERS)}", seeds=1, methods=("conse",))
    [cell] = plan.cells.values()
    heads, features = layout.seen_heads(*cell.key[:3]), layout.features("birds", "resnet")
    described = layout.descriptors("birds", "att")
    sources = {str(heads): "a" * 64, str(described): "b" * 64, str(features): "c" * 64}
    used = {"features": {"path": str(features), "sha256": "c" * 64}}
    write_cell(plan, cell, sources=sources, inputs=used)
    expected = {
        ("seen heads: birds/resnet/linear-last", "a" * 36, "train"),
        ("descriptors: birds/att", "b" * 36, "train"),
        ("features: birds/resnet", "c" * 36, "test"),
    }

    def found() -> tuple[Any, ...]:
        tracking.log_experiment(plan)
        [run] = stored(client, plan)[0]
        return tuple(
            (each.dataset.name, each.dataset.digest, each.tags[0].value)
            for each in run.inputs.dataset_inputs
        )

    assert set(found()) == expected
    assert len(found()) == 3
    used["features"]["sha256"] = "d" * 64  # other bytes, the same numbers
    write_cell(plan, cell, sources=sources, inputs=used)
    assert set(found()) == expected | {("features: birds/resnet", "d" * 36, "test")}


def test_heads_are_stored_as_asked(client: MlflowClient) -> None:
    plan = make_plan(f"experiment-{next(NUMBERS)}", methods=("conse",))
    [cell] = plan.cells.values()
    hashes = {str(seed): write_head(plan, cell, seed) for seed in (0, 1)}
    write_cell(plan, cell, heads=hashes)

    def heads(wanted: tracking.Heads) -> dict[str, list[str]]:
        tracking.log_experiment(plan, heads=wanted)
        runs = stored(client, plan)[0]
        found = {
            run.data.tags["icis.seed"]: client.list_artifacts(run.info.run_id, "head")
            for run in runs
        }
        return {seed: [each.path for each in found[seed]] for seed in sorted(found)}

    assert heads("none") == {"0": [], "1": []}
    assert heads("first-seed") == {"0": ["head/seed-0.safetensors"], "1": []}
    both = {"0": ["head/seed-0.safetensors"], "1": ["head/seed-1.safetensors"]}
    assert heads("all") == heads("none") == both
    assert len(invocations(client, plan)) == 1
    write_head(plan, cell, 0, scale=2.0)  # not the one that was evaluated
    assert heads("all") == both
    run = next(run for run in stored(client, plan)[0] if run.data.tags["icis.seed"] == "0")
    assert run.data.tags["icis.head"] == hashes["0"]


def test_refusals_name_the_way_out(
    client: MlflowClient, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = make_plan(plan.experiment.name, seeds=3)
    with pytest.raises(IcisError, match="another configuration"):
        tracking.log_experiment(other)
    with pytest.raises(IcisError, match=f"no experiment 'absent'; .*{plan.experiment.name}"):
        track.rebuild("absent")
    with pytest.raises(IcisError, match="'icis track' makes one"):
        tracking.metrics_from_store("absent", uri="sqlite:///elsewhere.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:./mlruns")
    with pytest.raises(IcisError, match=r"the MLflow store file:\./mlruns failed"):
        tracking.log_experiment(plan)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("https://me:secret@host:5000/path?token=1", "https://host:5000/path"),
        ("postgresql://me:se/cr@et@host/db?password=1", "postgresql://host/db"),
    ],
)
def test_credentials_are_not_shown(uri: str, shown: str) -> None:
    assert public_uri(uri) == shown


def test_two_processes_share_a_fresh_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    plans = [make_plan(name, methods=("conse",)) for name in ("left", "right")]
    code = "import sys, icis.stages.track as s, icis.plan as p, icis.config as c, pathlib as l; "
    code += "s.run(p.Plan(c.read_experiment(l.Path(sys.argv[1]))))"
    processes = []
    write_text(Path("mlflow.db.1.tmp"), "left by a kill")
    for plan in plans:
        write_cells(plan)
        file = Path(f"{plan.experiment.name}.json")
        write_text(file, plan.experiment.model_dump_json())
        command = [sys.executable, "-c", code, str(file)]
        processes.append(subprocess.Popen(command, env=dict(os.environ)))
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    for plan in plans:
        assert_rebuilt(plan)
    assert not list(tmp_path.glob("mlflow.db.*.tmp*"))
    left = {path.name for path in tmp_path.glob("ml*")}
    assert left <= {"mlartifacts", "mlflow.db", "mlflow.db.lock", "mlflow.db.writer.lock"}
