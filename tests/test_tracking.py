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

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from icis import layout, mlflow_store, tracking
from icis.artifacts import read_frame, read_metadata, write_table, write_text
from icis.config import parse_experiment
from icis.errors import IcisError
from icis.mlflow_store import MlflowClient, list_runs, public_uri
from icis.plan import Cell, Plan
from icis.stages import collect, track
from icis.tracking import invocation

ODD_NAME = "top/5 (β=½): a+b"
NUMBERS = count(1)


def make_plan(
    name: str, *, seeds: int = 2, methods: tuple[str, ...] = ("icis", "conse"), **axes: Any
) -> Plan:
    """Return a plan of one cell a method."""
    data = {"kind": "xlsa17", "splits": "splits.mat", "features": {"resnet": "features.mat"}}
    table = {
        "datasets": ["birds"],
        "backbones": ["resnet"],
        "heads": ["linear"],
        "descriptors": ["att"],
        "methods": list(methods),
        **axes,
    }
    settings = {
        "name": name,
        "seeds": seeds,
        "datasets": {"birds": data},
        "heads": {"linear": {}},
        "methods": {method: {"method": method} for method in methods},
        "tables": {"main": table},
    }
    return Plan(parse_experiment(settings, source="the test"))


def write_cell(plan: Plan, cell: Cell, *, offset: float = 0.0, **facts: Any) -> None:
    """Write what ``inject`` and ``evaluate`` leave of a cell: metrics and histories."""
    seeds = plan.seeds[cell.key]
    folder = layout.cell(plan.experiment.name, *cell.key)
    rows = []
    for seed in seeds:
        values = {"T1": 100 / 3, "U": 0.1 + 0.2, "S": 5e-324, "H": 1.7e308, "entropy": float("inf")}
        rows += [(seed, key, value + seed + offset) for key, value in values.items()]
        rows += [(seed, ODD_NAME, 0.1 * seed + offset), (seed, "epochs", float("nan"))]
        epochs = 400 if cell.method.method == "icis" else 0  # three terms: more than one batch
        points = [
            (seed, epoch, term, 1 / (epoch + seed))
            for term in ("loss", "a2w", "w2w (cosine)")
            for epoch in range(1, epochs + 1)
        ]
        types = {"seed": pl.Int64, "epoch": pl.Int64, "term": pl.String, "value": pl.Float64}
        history = pl.DataFrame(points, schema=types, orient="row")
        write_table(folder / f"seed-{seed}.history.parquet", history, {"key": "test"})
    about = {
        "artifact": "cell",
        "fingerprint": "f" * 64,
        "inputs": {},
        "sources": {f"data/{number}.parquet": "0" * 64 for number in range(60)},
        "versions": {"python": "3.11"},
        "split_version": "own",
        "device": "cpu",
        "git_commit": "",
        "cell": cell.id,
        "configuration": cell.identity,
        "display": cell.stem,
        "selection": "backbone: none; seen head: last; method: last",
        "n_seen": 150,
        "heads": {str(seed): "1" * 64 for seed in seeds},
    }
    frame = pl.DataFrame(rows, schema=["seed", "metric", "value"], orient="row")
    write_table(layout.cell_metrics(plan.experiment.name, *cell.key), frame, about | facts)


def write_cells(plan: Plan, *, offset: float = 0.0) -> None:
    for cell in plan.cells.values():
        write_cell(plan, cell, offset=offset)


def assert_rebuilt(plan: Plan) -> None:
    """Compare the store with the files, value for value."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect, "headline", lambda *_: {})
        collect.run(plan)
    expected = read_frame(layout.metrics(plan.experiment.name))
    assert_frame_equal(track.rebuild(plan.experiment.name), expected, check_exact=True)


def stored(client: MlflowClient, plan: Plan) -> tuple[list[Any], list[Any]]:
    """Return the (cell, seed) runs that count, and those that were superseded."""
    experiment = client.get_experiment_by_name(plan.experiment.name)
    runs = [run for run in list_runs(client, experiment.experiment_id) if is_cell(run)]
    assert all(run.data.tags["icis.complete"] == "true" for run in runs)
    assert all(run.info.status == "FINISHED" for run in runs)
    said = [(run.data.tags["icis.key"], run.data.tags["icis.digest"]) for run in runs]
    assert len(set(said)) == len(said), "something was logged twice"
    old = [run for run in runs if "icis.superseded" in run.data.tags]
    return [run for run in runs if run not in old], old


def is_cell(run: Any) -> bool:
    return "icis.key" in run.data.tags


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


def write_failure(plan: Plan, cell: Cell, problem: str) -> None:
    """Leave of a cell what there is when its last seed failed: no history, no head."""
    write_cell(plan, cell)
    path, last = layout.cell_metrics(plan.experiment.name, *cell.key), plan.seeds[cell.key][-1]
    about, rows = read_metadata(path), read_frame(path)
    none = pl.lit(None, dtype=pl.String)
    lost = {"seed": [last], "metric": ["failed"], "value": [1.0], "problem": [problem]}
    kept = rows.filter(pl.col("seed") != last).with_columns(problem=none)
    about["heads"].pop(str(last))
    write_table(path, pl.concat([kept, pl.DataFrame(lost)]), about)
    folder = layout.cell(plan.experiment.name, *cell.key)
    (folder / f"seed-{last}.history.parquet").unlink()


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
    for calls in count():
        write_cells(plan, offset=calls)
        with pytest.MonkeyPatch.context() as patch:
            kill_after(patch, calls)
            try:
                tracking.log_experiment(plan)
                killed = False
            except Killed:
                killed = True
        tracking.log_experiment(plan)
        current, old = stored(client, plan)
        assert (len(current), len(old)) == (2, 2 * calls)
        assert_rebuilt(plan)
        if not killed:
            break
    assert calls > 8  # two runs of four calls each, at the least


def test_what_two_checkouts_logged_at_once_is_mended(client: MlflowClient, plan: Plan) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(invocation, "list_runs", lambda *_: [])  # as if the other was not there yet
        assert tracking.log_experiment(plan).new == 4
    assert_rebuilt(plan)
    receipt = tracking.log_experiment(plan)
    assert (receipt.complete, receipt.new, receipt.superseded) == (4, 0, 4)
    runs = list_runs(client, receipt.experiment_id)
    current = [run for run in runs if is_cell(run) and "icis.superseded" not in run.data.tags]
    assert {run.data.tags["mlflow.parentRunId"] for run in current} == {receipt.run_id}
    assert len(current) == 4
    assert_rebuilt(plan)


def test_outputs_are_stored_once(
    client: MlflowClient, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = plan.experiment.name
    table, figure = (
        layout.table(name, "main", "csv"),
        layout.figure(name, "main (β)", "bars", "svg"),
    )
    uploads = []
    upload = MlflowClient.log_artifact

    def log_artifact(self: Any, run_id: str, path: str, folder: str) -> None:
        uploads.append(Path(path).name)
        upload(self, run_id, path, folder)

    monkeypatch.setattr(MlflowClient, "log_artifact", log_artifact)
    write_text(table, "one")
    write_text(figure, "<svg/>")
    track.run(plan)
    track.run(plan)
    assert uploads == ["main.csv", "main (β).bars.svg"]
    write_text(table, "two")
    track.run(plan)
    assert uploads[2:] == ["main.csv"]
    run_id = json.loads(layout.tracked(name).read_text())["run_id"]
    assert Path(client.download_artifacts(run_id, "tables/main.csv")).read_text() == "two"
    figure.unlink()
    track.run(plan)
    assert client.list_artifacts(run_id, "figures") == []
    assert [each.path for each in client.list_artifacts(run_id, "tables")] == ["tables/main.csv"]


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
    assert {path.name for path in tmp_path.glob("ml*")} <= {"mlflow.db", "mlflow.db.lock"}
