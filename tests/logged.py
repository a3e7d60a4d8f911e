"""Results made by hand to be logged, and what a store should hold of them."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest
import torch
from polars.testing import assert_frame_equal

from icis import layout
from icis.artifacts import file_sha256, read_frame, read_metadata, write_table
from icis.config import parse_experiment
from icis.heads import Head
from icis.mlflow_store import MlflowClient, list_runs
from icis.plan import Cell, Plan
from icis.scorers import save_scorers
from icis.stages import collect, track
from tests.pipeline import environment

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


def invocations(client: MlflowClient, plan: Plan, *, whole: bool = True) -> list[Any]:
    """Return the runs of invocations, the oldest first; with ``whole`` all should be finished."""
    experiment = client.get_experiment_by_name(plan.experiment.name)
    runs = list_runs(client, experiment.experiment_id, "tags.`icis.kind` = 'invocation'")
    if whole:
        assert all(run.data.tags["icis.complete"] == "true" for run in runs)
        assert all(run.info.status == "FINISHED" for run in runs)
    return sorted(runs, key=lambda run: run.info.start_time)


def write_head(plan: Plan, cell: Cell, seed: int, *, scale: float = 1.0) -> str:
    """Write an injected head; return its SHA-256."""
    path = layout.cell(plan.experiment.name, *cell.key) / f"seed-{seed}.safetensors"
    head = Head(torch.full((3, 4), scale), torch.zeros(3), ("a", "b", "c"))
    save_scorers(path, {"joint": head}, {"unseen_classes": ["c"], "seed": seed})
    return file_sha256(path)


def is_cell(run: Any) -> bool:
    return "icis.key" in run.data.tags


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


class Server:
    """``mlflow server`` with a SQLite file, in a folder, on a port of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """Return the server's address."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.folder.mkdir(exist_ok=True)
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1",
            "--port", str(self.port), "--backend-store-uri", f"sqlite:///{self.folder}/server.db",
            "--serve-artifacts", "--artifacts-destination", str(self.folder / "artifacts"),
            "--workers", "1",
        ]  # fmt: skip
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
            )
        until = time.monotonic() + 90
        while True:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
                return
            except OSError:
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
                assert time.monotonic() < until, "the server does not start"
                time.sleep(0.2)

    def kill(self) -> None:
        """Kill it and its workers, as a power cut would."""
        if self.process is None:
            return
        tree = psutil.Process(self.process.pid)
        for each in [tree, *tree.children(recursive=True)]:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait()
        self.process = None
