"""A small experiment through every stage, fetching included; what disturbs it; what must hold."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import psutil
import pytest
from polars.testing import assert_frame_equal

from icis import layout
from icis.config import read_experiment
from icis.datasets.drawn import draw
from icis.mlflow_store import MlflowClient
from icis.plan import Plan
from icis.stages import track
from tests.fetching.server import FaultyServer
from tests.logged import invocations, stored
from tests.pipeline import ROOT, environment, snakemake, tiny, write

SIZE = ("--config", "cells-per-job=1")
"""Several batches: each cell is a job of its own."""
STAGES = (
    "data", "draw", "index", "describe", "finetune", "extract", "train-head", "batch", "collect",
    "plot", "tabulate", "finish", "track",
)  # fmt: skip
"""The verbs of all jobs, in their order; ``data`` is ``data fetch``."""


def whole() -> dict:
    """Return the experiment: images are drawn, their classes' attributes fetched."""
    experiment = tiny()
    source = {"kind": "file", "file": "fetched:traits/attributes.csv", "normalize": "l2"}
    experiment["datasets"]["drawn"]["descriptors"] = {"att": source}
    network = experiment["backbones"]["small"]
    network |= {"model": "test_efficientnet", "train": {"epochs": 3, "batch_size": 16}}
    return experiment


@contextmanager
def host(folder: Path) -> Iterator[dict[str, str]]:
    """Serve the attributes, in an archive; give the environment in which they are found."""
    data = tiny()["datasets"]["drawn"]
    del data["kind"]
    draw(folder / "drawn", seed=0, **data)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.write(folder / "drawn/attributes.csv", "attributes.csv")
        archive.writestr("ballast", os.urandom(2_000_000))
    content = packed.getvalue()
    with FaultyServer({"/traits.zip": content}) as server:
        file = {"name": "traits.zip", "urls": [server.url("/traits.zip")], "size": len(content)}
        file["sha256"] = hashlib.sha256(content).hexdigest()
        about = {"title": "Traits", "homepage": "https://example.org/", "licence": "Free to all."}
        path = folder / "catalogue.json"
        path.write_text(json.dumps({"sources": {"traits": {**about, "files": [file]}}}))
        yield {"ICIS_CATALOGUE": str(path), "ICIS_MIRROR": "", "ICIS_FETCH_WAIT": "0.01"}


class Project:
    """A folder with the experiment, and the environment of its runs."""

    def __init__(self, folder: Path, hosts: dict[str, str]) -> None:
        self.folder, self.hosts = folder, hosts
        write(folder, whole())

    def run(self, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """Run the whole experiment."""
        return snakemake(self.folder, *arguments, *SIZE, **self.hosts, **changes)

    def completes(self, *arguments: str, **changes: str) -> str:
        """Run the whole experiment, which must end well; return what it said."""
        done = self.run(*arguments, **changes)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        return said

    def fails(self) -> str:
        """Run the whole experiment, which must not end well; return what it said, logs too."""
        done = self.run()
        assert done.returncode != 0
        logs = [file.read_text() for file in self.folder.glob("logs/**/*.log")]
        return "\n".join([done.stdout, done.stderr, *logs])

    def start(self, **changes: str) -> subprocess.Popen[bytes]:
        """Start the same command; its output goes to files in the folder's parent."""
        command = [
            sys.executable, "-m", "snakemake", *SIZE, "--cores", "2",
            "--snakefile", str(ROOT / "Snakefile"), "--directory", str(self.folder),
            "--configfile", str(self.folder / "experiment.json"),
        ]  # fmt: skip
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            return subprocess.Popen(
                command, env=environment(**self.hosts, **changes), stdout=log, stderr=log
            )

    def metrics(self) -> pl.DataFrame:
        """Return the metrics."""
        return pl.read_parquet(self.folder / layout.metrics("tiny"))


def assert_undisturbed(project: Project, calm: Project, store: str = "") -> None:
    """Compare a run with an undisturbed one: its numbers, its tables and what MLflow holds."""
    assert_frame_equal(project.metrics(), calm.metrics(), check_exact=True)
    for name in ("csv", "md"):
        file = layout.table("tiny", "main", name)
        assert (project.folder / file).read_bytes() == (calm.folder / file).read_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.folder)
        uri = store or f"sqlite:///{project.folder}/mlflow.db"
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        assert_frame_equal(track.rebuild("tiny"), project.metrics(), check_exact=True)
        plan = Plan(read_experiment(Path("experiment.json")), source="the test")
        client = MlflowClient(uri)
        current, _ = stored(client, plan)
        keys = [run.data.tags["icis.key"] for run in current]
        wanted = {f"{cell.id}/{seed}" for cell in plan.cells.values() for seed in (0, 1)}
        assert len(keys) == 6
        assert set(keys) == wanted
        finished = invocations(client, plan, whole=False)
        current_ones = [run for run in finished if "icis.superseded" not in run.data.tags]
        assert [run.data.tags.get("icis.complete") for run in current_ones] == ["true"]
    left = [path for path in project.folder.rglob("*.tmp") if ".snakemake" not in path.parts]
    assert left == []


def jobs(process: psutil.Process) -> dict[str, psutil.Process]:
    """Return the processes of jobs below a run, by their verbs."""
    found = {}
    for each in process.children(recursive=True):
        try:
            words = each.cmdline()
        except psutil.Error:
            continue
        if len(words) > 2 and Path(words[1]).name == "icis" and "python" in words[0]:
            found.setdefault(words[2], each)
    return found


def kill(*processes: psutil.Process) -> int:
    """Kill what still runs of some processes; return how many did."""
    killed = 0
    for each in processes:
        try:
            if each.status() != psutil.STATUS_ZOMBIE:
                each.kill()
                killed += 1
        except psutil.NoSuchProcess:
            continue
    return killed
