"""A run that is killed again and again ends with the numbers of an undisturbed one."""

import random
import subprocess
import sys
import time

import mlflow
import polars as pl
import psutil
import pytest
from polars.testing import assert_frame_equal

from icis import layout
from tests.pipeline import ROOT, environment, snakemake, tiny, write

KILLS = 8


def start(folder):
    command = [
        sys.executable, "-m", "snakemake", "--cores", "2", "--snakefile", str(ROOT / "Snakefile"),
        "--directory", str(folder), "--configfile", str(folder / "experiment.json"),
    ]  # fmt: skip
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env=environment(), start_new_session=True, **quiet)


def kill(process, *, whole_tree):
    tree = [psutil.Process(process.pid)]
    if whole_tree:
        tree += tree[0].children(recursive=True)
    for each in tree:
        try:
            each.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


@pytest.mark.slow
def test_kills_at_random_moments_change_no_number(tmp_path):
    calm, shaken = tmp_path / "calm", tmp_path / "shaken"
    for folder in (calm, shaken):
        write(folder, tiny())
    began = time.monotonic()
    assert snakemake(calm).returncode == 0
    duration = time.monotonic() - began

    moments = random.Random(0)
    killed = 0
    for attempt in range(KILLS):
        process = start(shaken)
        time.sleep(moments.uniform(0.1, 0.3) * duration)
        if process.poll() is None:
            kill(process, whole_tree=attempt % 2 == 0)
            killed += 1
    assert killed >= 3

    done = snakemake(shaken)
    assert done.returncode == 0, done.stdout + done.stderr
    frames = [pl.read_parquet(folder / layout.metrics("tiny")) for folder in (calm, shaken)]
    assert_frame_equal(frames[0], frames[1])
    client = mlflow.MlflowClient(f"sqlite:///{shaken}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    tags = [run.data.tags for run in client.search_runs([experiment.experiment_id])]
    current = [tag["icis.key"] for tag in tags
               if tag.get("icis.complete") == "true" and "icis.cell" in tag
               and tag.get("icis.superseded") != "true"]  # fmt: skip
    assert len(current) == len(set(current)) == 6
