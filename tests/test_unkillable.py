"""Runs that are killed, doubled or lose their server end with the numbers of an undisturbed one."""

import json
import random
import shutil
import sqlite3
import time
from collections import Counter

import psutil
import pytest

from icis import layout
from tests.faults import STAGES, Project, assert_undisturbed, jobs, kill
from tests.logged import Server
from tests.pipeline import copy

pytestmark = pytest.mark.slow

KILLS = 12
"""How many kills must have hit in each of the three ways, and every stage among them."""
OUTPUTS = dict(zip(STAGES, (
    "data/fetched", "data/raw", "data/index", "data/descriptors", "data/backbones",
    "data/features", "data/heads", "results/tiny/batches", "results/tiny/metrics.parquet",
    "results/tiny/figures", "results/tiny/tables", "results/tiny/tables",
    "results/tiny/mlflow.json",
), strict=True))  # fmt: skip


def durations(project: Project) -> dict[str, float]:
    """Return how long the jobs of each verb took, in seconds; the shortest of several."""
    found: dict[str, float] = {}
    for file in project.folder.glob("logs/**/*.benchmark.tsv"):
        step = file.relative_to(project.folder / "logs/tiny").parts[0]
        verb = {"fetch": "data", "train_head": "train-head", "cells": "batch"}.get(step, step)
        seconds = float(file.read_text().splitlines()[1].split("\t")[0])
        found[verb] = min(seconds, found.get(verb, seconds))
    return found


def kill_within(project: Project, stage: str, how: str, moment: float) -> bool:
    """Start the run, kill it so many seconds after a job of the stage began; say whether it lived.

    ``how``: the whole tree; Snakemake alone, whose jobs go on; or the one job, and Snakemake ends
    by itself.
    """
    process = project.start()
    snakemake = psutil.Process(process.pid)
    while stage not in (found := jobs(snakemake)):
        if process.poll() is not None:
            return False
        time.sleep(0.02)
    time.sleep(moment)
    tree = [snakemake, *snakemake.children(recursive=True)]
    if how == "job":
        hit = kill(found[stage]) == 1
    else:
        hit = found[stage].is_running() and found[stage].status() != psutil.STATUS_ZOMBIE
    if how == "snakemake" and hit:
        kill(snakemake)
    elif how == "tree" or not hit:
        kill(*tree)
    assert process.wait(timeout=300) != 0
    return hit


def undo(project: Project, stage: str) -> None:
    """Remove the outputs of a stage and of all later ones: else it would not be missed."""
    for later in STAGES[STAGES.index(stage) :]:
        output = project.folder / OUTPUTS[later]
        shutil.rmtree(output) if output.is_dir() else output.unlink(missing_ok=True)


@pytest.mark.parametrize("how", ["tree", "snakemake", "job"])
def test_kills_in_every_stage_change_no_number(calm, tmp_path, how, record_property):
    moments = random.Random(how)
    project, lasts = Project(tmp_path / "run", calm.hosts), durations(calm)
    hits = Counter()
    for stage in STAGES:
        for attempt in range(4):
            moment = 0 if attempt == 3 else moments.uniform(0, 0.8) * lasts[stage]
            if kill_within(project, stage, how, moment):
                hits[stage] += 1
                break
            undo(project, stage)  # it was done too soon: once more
    record_property("hits", json.dumps(hits))
    assert set(hits) == set(STAGES)
    assert hits.total() >= KILLS
    project.completes()
    assert_undisturbed(project, calm)
    assert "Nothing to be done" in project.completes()


@pytest.mark.parametrize("seconds", [0, 4])
def test_two_runs_at_once(calm, tmp_path, seconds):
    project = Project(tmp_path / "run", calm.hosts)
    first = project.start()
    time.sleep(seconds)
    second = project.start()
    ends = [first.wait(timeout=600), second.wait(timeout=600)]
    assert 0 in ends
    said = (tmp_path / "run.log").read_text()
    assert ends == [0, 0] or "another run is at work in this folder (process" in said
    project.completes()
    assert_undisturbed(project, calm)


def test_a_server_killed_while_the_run_logs(calm, tmp_path):
    project = Project(copy(calm.folder, tmp_path / "run"), calm.hosts)
    (project.folder / layout.tracked("tiny")).unlink()
    server = Server(tmp_path / "server")
    there = {"MLFLOW_TRACKING_URI": server.uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    try:
        server.start()
        process = project.start(**there)
        before = runs(server)
        while runs(server) == before:
            assert process.poll() is None
            time.sleep(0.05)
        server.kill()
        assert process.wait(timeout=300) == 0
        receipt = project.folder / layout.tracked("tiny")
        assert json.loads(receipt.read_text())["status"] == "pending"
        server.start()
        project.completes(**there)
        assert json.loads(receipt.read_text())["status"] == "logged"
        assert_undisturbed(project, calm, server.uri)
    finally:
        server.kill()


def runs(server: Server) -> int:
    """Return how many runs a server's file holds."""
    with sqlite3.connect(server.folder / "server.db") as found:
        return int(found.execute("select count(*) from runs").fetchone()[0])
