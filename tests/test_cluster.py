"""Runs through a real Slurm of one node, and what is said when it refuses or kills a job."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import yaml
from polars.testing import assert_frame_equal

from icis import cluster, layout
from icis.artifacts import read_frame
from tests.conftest import lacking
from tests.pipeline import ROOT, copy, environment, snakemake, tiny, write

SLURM = ROOT / "scripts/slurm-local"
PROFILES = ROOT / "workflow/profiles"
HEADS = layout.seen_heads("drawn", "small", "linear-last_epochs-5")
# a node may have one core; numbers are the same where threads are
ONE_THREAD = ["--set-threads", "finetune=1", "extract=1", "train_head=1", "cells=1"]


def slurm_local(verb):
    # without a terminal sudo cannot ask for a password
    return subprocess.run(
        [SLURM, verb], capture_output=True, text=True, check=False, start_new_session=True
    )


@pytest.fixture(scope="module")
def slurm():
    """Start Slurm, unless it runs."""
    found = slurm_local("status").returncode == 0
    if not found:
        if not Path("/usr/sbin/slurmctld").exists():
            lacking("Slurm is not installed (scripts/system-packages slurm)")
        started = slurm_local("start")
        if started.returncode != 0:
            lacking(f"Slurm does not start (scripts/slurm-local start): {started.stderr}")
    yield
    if not found:
        assert slurm_local("stop").returncode == 0


def command(folder, *arguments, profile="slurm", asked_after=15):
    asked = {
        "slurm": ["--slurm-init-seconds-before-status-checks", str(asked_after)],
        "cluster-generic": ["--seconds-between-status-checks", "2"],
    }
    return [
        sys.executable, "-m", "snakemake", *arguments, "--profile", PROFILES / profile,
        *ONE_THREAD, *asked[profile],
        "--snakefile", ROOT / "Snakefile", "--directory", folder,
        "--configfile", folder / "experiment.json",
    ]  # fmt: skip


def submit(folder, *arguments, **options):
    return subprocess.run(
        command(folder, *arguments, **options),
        capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(slurm, tmp_path_factory):
    """Return a run of the tiny experiment through Slurm, and what was printed."""
    folder = tmp_path_factory.mktemp("cluster") / "run"
    experiment = tiny()
    del experiment["methods"]["mlp"]
    experiment["tables"]["main"]["methods"] = ["conse", "icis"]
    write(folder, experiment)
    done = submit(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stderr


@pytest.fixture
def headless(finished, tmp_path):
    """Return a copy of the run without seen heads: a job of half a minute makes them."""
    folder = copy(finished[0], tmp_path / "run")
    (folder / HEADS).unlink()
    return folder


def assert_same_heads(folder, finished):
    frames = [read_frame(each / HEADS) for each in (folder, finished[0])]
    assert_frame_equal(*frames)


@pytest.mark.slow
def test_a_cluster_gives_the_numbers_of_this_machine(finished, tmp_path):
    folder, output = finished
    submitted = re.findall(r"slurm_logs/rule_(\w+)", output)
    assert {"draw", "index", "describe", "finetune", "extract", "train_head"} < set(submitted)
    assert not {"collect", "plot", "tabulate", "finish", "track"} & set(submitted)
    jobs = subprocess.run(
        ["scontrol", "--oneliner", "show", "job"], capture_output=True, text=True, check=True
    ).stdout
    asked = [job for job in jobs.splitlines() if "Comment=rule_extract" in job]
    assert asked
    assert all("gres:gpu:1" in job and "TimeLimit=04:00:00" in job for job in asked)

    here = tmp_path / "here"
    write(here, json.loads((folder / "experiment.json").read_text()))
    done = snakemake(here, "all_cells", *ONE_THREAD)
    assert done.returncode == 0, done.stdout + done.stderr
    found = sorted((here / "results/tiny/cells").rglob("*.parquet"))
    metrics = [file.relative_to(here) for file in found if "seed" in pl.read_parquet_schema(file)]
    assert len(metrics) >= 2
    for file in metrics:
        assert_frame_equal(pl.read_parquet(here / file), pl.read_parquet(folder / file))


@pytest.mark.slow
def test_a_job_killed_for_its_memory_is_tried_again_with_more(headless, finished):
    little = "train_head:mem_mb=300 if attempt == 1 else 4000"
    done = submit(headless, "heads", "--set-resources", little)
    assert done.returncode == 0, done.stdout + done.stderr
    logs = [
        log.read_text() for log in headless.glob(".snakemake/slurm_logs/rule_train_head/**/*.log")
    ]
    assert sum("exceeded memory limit" in log for log in logs) == 1
    assert len(re.findall("Error in rule train_head", done.stderr)) == 1
    assert_same_heads(headless, finished)


@pytest.mark.slow
def test_a_cancelled_job_is_named_and_the_next_run_finishes(headless, finished):
    run = subprocess.Popen(
        command(headless, "heads", "--retries", "0"),
        stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    seen = []
    for line in run.stderr:
        seen.append(line)
        job = re.search(r"submitted with SLURM jobid (\d+)", line)
        if job:
            wait_until_running(job[1])
            subprocess.run(["scancel", job[1]], check=True)
    assert run.wait() != 0
    output = "".join(seen)
    assert "What to do: train_head: cancelled; run the same command again" in output, output
    assert not (headless / HEADS).exists()

    done = submit(headless, "heads")
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_heads(headless, finished)


def wait_until_running(job):
    for _ in range(120):
        state = subprocess.run(
            ["squeue", "--noheader", "--format", "%T", "--jobs", job],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        if state == "RUNNING":
            return
        time.sleep(0.5)
    pytest.fail(f"job {job} does not start")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asks", "step"),
    [
        (["--default-resources", "slurm_partition=nowhere"], "no such partition"),
        (["--set-resources", "train_head:mem_mb=900000000"], "no node has as much"),
        (["--set-resources", "train_head:gres=tpu:1"], "the partition has no GPU by that name"),
    ],
)
def test_what_the_cluster_lacks_is_said_with_the_next_step(headless, asks, step):
    done = submit(headless, "heads", "--retries", "0", *asks, asked_after=2)
    assert done.returncode != 0
    assert f"What to do: train_head: {step}" in done.stderr, done.stderr


@pytest.mark.slow
def test_another_scheduler_by_its_commands(headless, finished):
    done = submit(headless, "heads", profile="cluster-generic")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((headless / "logs/cluster").glob("*.train_head.log"))) == 1
    assert_same_heads(headless, finished)


def sizes(profile):
    text = (PROFILES / profile / "config.yaml").read_text()
    return yaml.safe_load(text)["set-resources"]


def test_profiles_give_every_job_its_size():
    rules = [
        name
        for file in (ROOT / "workflow/rules").glob("*.smk")
        for name in re.findall(r"^rule (\w+):", file.read_text(), re.MULTILINE)
    ]
    local = re.search(
        r"^localrules:\n((?: +\w+,\n)+)", (ROOT / "Snakefile").read_text(), re.MULTILINE
    )
    remote = set(rules) - set(re.findall(r"\w+", local[1]))
    for profile in ("slurm", "cluster-generic"):
        assert remote <= sizes(profile).keys(), profile
    for rule, size in sizes("slurm").items():
        other = sizes("cluster-generic")[rule]
        assert [size[k] for k in ("mem_mb", "runtime")] == [other[k] for k in ("mem_mb", "runtime")]
        assert ("gres" in size) == ("ask" in other)


def test_the_next_step_is_read_from_both_logs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "snakemake.log"
    log.write_text(
        "[Mon]\nError in rule inject:\n    message: SLURM-job '7' failed\n    external_jobid: 7\n"
        "[Mon]\nError in rule index:\n    message: sbatch: error: invalid partition specified: x\n"
        "[Mon]\nError in rule draw:\n    message: SLURM-job '8' failed\n    external_jobid: 8\n"
    )
    of_job = cluster.LOGS / "rule_inject/drawn/7.log"
    of_job.parent.mkdir(parents=True)
    of_job.write_text("StepId=7.0 exceeded memory limit (2 > 1)\n*** JOB 7 CANCELLED AT noon ***\n")
    steps = cluster.next_steps(log)
    assert steps[0] == "inject: killed for its memory; raise mem_mb in the profile"
    assert steps[1].startswith("index: no such partition; set slurm_partition")
    assert len(steps) == 2
