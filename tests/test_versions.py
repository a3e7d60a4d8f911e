"""DVC on a clone of the project: repro computes and records, status is clean, metrics show."""

import json
import shutil
import subprocess

import polars as pl
import pytest

from tests.pipeline import ROOT, environment, snakemake, tiny, write

pytestmark = pytest.mark.slow


def run(folder, *command):
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_repro_records_and_recomputes_only_what_is_stale(tmp_path):
    project = tmp_path / "project"
    run(tmp_path, "git", "clone", "--quiet", str(ROOT), str(project))
    write(project, tiny())
    run(project, "icis", "select", "--config", "experiment.json")
    run(project, "dvc", "repro")
    assert "up to date" in run(project, "dvc", "status")
    shown = json.loads(run(project, "dvc", "metrics", "show", "--json"))
    text = json.dumps(shown)
    frame = pl.read_parquet(project / "results/tiny/metrics.parquet")
    expected = frame.filter(method="conse", metric="T1")["value"].mean()
    assert "T1" in text
    assert str(round(expected, 2)) in text
    assert "didn't change" in run(project, "dvc", "repro")

    # a changed setting: DVC finds the stage stale, Snakemake computes the cell alone
    experiment = tiny()
    experiment["methods"]["mlp"]["learning_rate"] = 1e-4
    write(project, experiment)
    assert "experiment.json" in run(project, "dvc", "status")
    kept = project / "data/features/drawn/small.parquet"
    before = kept.stat().st_mtime_ns
    run(project, "dvc", "repro")
    assert kept.stat().st_mtime_ns == before
    assert "up to date" in run(project, "dvc", "status")

    run(project, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    run(project, "dvc", "push")
    made = [*(project / "data/features").rglob("*.parquet"), *(project / "data/heads").rglob("*")]
    contents = {path: path.read_bytes() for path in made if path.is_file()}
    assert len(contents) >= 2
    for folder in ("data/features", "data/heads", ".dvc/cache"):
        shutil.rmtree(project / folder)
    run(project, "dvc", "pull")
    assert {path: path.read_bytes() for path in contents} == contents
    assert "up to date" in run(project, "dvc", "status")


def test_rule_graph_becomes_a_picture(tmp_path, dot):
    write(tmp_path, tiny())
    graph = snakemake(tmp_path, "--rulegraph").stdout
    done = subprocess.run([dot, "-Tsvg"], input=graph, capture_output=True, text=True, check=True)
    assert "<svg" in done.stdout
    assert "train_head" in done.stdout
