"""DVC on clones of the project: repro, revisions compared, results pulled, experiments queued."""

import io
import json
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from icis.datasets.descriptors import load_descriptors
from tests.miniature import classes
from tests.miniature.build import xlsa17
from tests.pipeline import ROOT, environment, planned, snakemake, tiny, write

pytestmark = pytest.mark.slow

ALONE = ("--config", "cells-per-job=1")
"""As ``dvc repro`` does by itself here."""


def attempt(folder, *command):
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )


def run(folder, *command):
    done = attempt(folder, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def refused(folder, *command):
    done = attempt(folder, *command)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def commit(folder, tag):
    run(folder, "git", "add", "--all")
    who = ("-c", "user.name=n", "-c", "user.email=n@n")
    run(folder, "git", *who, "commit", "--quiet", "--message", tag)
    run(folder, "git", "tag", tag)


def second_experiment():
    """Return the tiny experiment with one setting changed and one method more."""
    experiment = tiny()
    experiment["methods"]["mlp"]["learning_rate"] = 1e-4
    experiment["methods"]["costa"] = {"method": "costa", "name": "COSTA"}
    experiment["tables"]["main"]["methods"].insert(0, "costa")
    return experiment


def started(base, experiment):
    """Return a clone of the project in which DVC's stages are those of an experiment."""
    project = base / "project"
    run(base, "git", "clone", "--quiet", str(ROOT), str(project))
    write(project, experiment)
    run(project, "icis", "select", "--config", "experiment.json")
    return project


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Return a project with two recorded versions, tagged one and two, and what was seen."""
    base = tmp_path_factory.mktemp("versions")
    project = started(base, tiny())
    run(project, "dvc", "remote", "add", "--default", "store", str(base / "store"))
    run(project, "dvc", "repro")
    seen = SimpleNamespace(base=base, project=project, status=run(project, "dvc", "status"))
    seen.shown = json.loads(run(project, "dvc", "metrics", "show", "--json"))
    seen.again = run(project, "dvc", "repro")
    seen.frame = pl.read_parquet(project / "results/tiny/metrics.parquet")
    seen.table = (project / "results/tiny/tables/main.md").read_text()
    run(project, "dvc", "push")
    commit(project, "one")

    # DVC finds the stages stale, Snakemake computes two cells
    write(project, second_experiment())
    seen.changed = run(project, "dvc", "status")
    seen.before = (project / "data/features/drawn/small.parquet").stat().st_mtime_ns
    run(project, "dvc", "repro")
    seen.after = (project / "data/features/drawn/small.parquet").stat().st_mtime_ns
    seen.status_after = run(project, "dvc", "status")
    run(project, "dvc", "push")
    commit(project, "two")
    return seen


@pytest.fixture
def clone(recorded, tmp_path):
    """Return a fresh clone at the first version, without any result."""
    folder = tmp_path / "clone"
    run(tmp_path, "git", "clone", "--quiet", str(recorded.project), str(folder))
    run(folder, "git", "checkout", "--quiet", "one")
    return folder


def test_repro_records_and_recomputes_only_what_is_stale(recorded):
    assert "up to date" in recorded.status
    expected = recorded.frame.filter(method="conse", metric="T1")["value"].mean()
    assert str(round(expected, 2)) in json.dumps(recorded.shown)
    assert "didn't change" in recorded.again
    assert "experiment.json" in recorded.changed
    assert recorded.before == recorded.after
    assert "up to date" in recorded.status_after


def test_revisions_are_compared_without_computing(recorded, clone):
    run(clone, "icis", "compare", "one", "two", "--output", "c.csv")
    read = pl.read_csv(io.StringIO((clone / "c.csv").read_text()))
    status = dict(read.select("method", "status").unique().iter_rows())
    assert status == {"COSTA": "new", "ConSE": "same", "ICIS": "same", "MLP": "changed"}
    (changes,) = read.filter(method="MLP")["changes"].unique()
    assert changes == "method.learning_rate: 1e-05 → 0.0001"
    new = pl.read_parquet(recorded.project / "results/tiny/metrics.parquet")
    means = [
        frame.filter(method="mlp", metric="S")["value"].mean() for frame in (recorded.frame, new)
    ]
    (row,) = read.filter(method="MLP", metric="S").iter_rows(named=True)
    assert row["difference"] == pytest.approx(means[1] - means[0])
    assert not (clone / "results/tiny").exists()
    assert run(clone, "git", "status", "--short").split() == ["??", "c.csv"]
    # a revision against what lies here
    printed = run(recorded.project, "icis", "compare", "one", "tiny")
    assert "methods.mlp.learning_rate: 1e-05 → 0.0001" in printed
    assert "1 changed, 1 new, 0 gone, 2 as they were" in printed


def test_results_that_nobody_pushed_are_named(recorded, clone):
    run(clone, "dvc", "remote", "modify", "store", "url", str(clone / "empty"))
    for command in (("compare", "two", "one"), ("pull",)):
        told = refused(clone, "icis", *command)
        assert "dvc push" in told
        assert "dvc remote list" in told
        assert "dvc repro" in told


def test_pull_brings_the_table_back_and_nothing_is_to_be_done(recorded, clone):
    told = run(clone, "icis", "pull")
    assert "results/tiny is as it was recorded" in told
    assert (clone / "results/tiny/tables/main.md").read_text() == recorded.table
    assert "up to date" in run(clone, "dvc", "status")
    assert planned(clone, *ALONE) == {}
    assert run(clone, "git", "status", "--short") == ""
    assert "MLP" in run(clone, "icis", "show", "--config", "experiment.json", "--from-mlflow")

    # a setting changed after the pull: its cells run, nothing else does (what is first in the
    # table moves the numbers of all batches)
    write(clone, second_experiment())
    todo = planned(clone, *ALONE)
    assert todo["cells"] == 4
    assert not {"draw", "index", "finetune", "extract", "train_head"} & set(todo)
    done = snakemake(clone, *ALONE)
    assert done.returncode == 0, done.stderr
    assert planned(clone, *ALONE) == {}
    metrics = [
        pl.read_parquet(f / "results/tiny/metrics.parquet") for f in (clone, recorded.project)
    ]
    assert metrics[0].equals(metrics[1])


def test_pulled_by_hand_a_changed_setting_is_seen_too(clone):
    run(clone, "dvc", "pull")
    assert snakemake(clone, *ALONE, "--touch").returncode == 0
    shutil.rmtree(clone / ".snakemake/metadata", ignore_errors=True)  # no record at all
    assert planned(clone, *ALONE).keys() <= {
        "track"
    }  # what was logged elsewhere is not logged here
    experiment = tiny()
    experiment["methods"]["mlp"]["learning_rate"] = 1e-4  # a new cell
    write(clone, experiment)
    todo = planned(clone, *ALONE)
    assert (todo["cells"], todo["collect"]) == (1, 1)
    assert not {"describe", "train_head"} & set(todo)
    experiment = tiny()
    plain = {"file": "attributes.csv", "normalize": "none"}  # other cells at the same paths
    experiment["datasets"]["drawn"]["descriptors"] = {"att": plain}
    write(clone, experiment)
    todo = planned(clone, *ALONE)
    assert (todo["describe"], todo["cells"]) == (1, 3)
    assert not {"index", "train_head"} & set(todo)
    experiment = tiny() | {"seeds": 3}
    write(clone, experiment)
    todo = planned(clone, *ALONE)
    assert (todo["train_head"], todo["cells"]) == (1, 3)
    # for a single file nothing is forced: the table refuses what is of other settings
    done = snakemake(clone, "results/tiny/tables/main.html", "--forcerun", "tabulate")
    assert done.returncode != 0
    told = Path(clone / "logs/tiny/tabulate/main.log").read_text()
    assert "another configuration" in told


def test_pull_takes_nothing_for_valid_that_was_not_recorded(clone):
    write(clone, second_experiment())
    told = refused(clone, "icis", "pull")
    assert "is not what DVC recorded" in told
    assert "experiment.json" in told
    assert not (clone / ".snakemake/metadata").exists()
    told = refused(clone, "icis", "pull", "--config", "params.yaml")
    assert "DVC's stages are those of experiment.json" in told
    # recorded as it stands (dvc commit), though nothing was computed: the fingerprints tell
    run(clone, "dvc", "commit", "--force")
    told = refused(clone, "icis", "pull")
    assert "not recorded, or for other settings or code" in told
    assert "/batches/drawn/small/" in told


def test_experiments_of_dvc(clone):
    run(clone, "icis", "pull")
    old = pl.read_parquet(clone / "results/tiny/metrics.parquet")
    settings = ("experiment.json:seeds=1", "experiment.json:methods.mlp.hidden=16")
    sets = [word for setting in settings for word in ("-S", setting)]
    told = run(clone, "dvc", "exp", "run", "--name", "one-seed", *sets)
    assert "one-seed" in told
    written = json.loads((clone / "experiment.json").read_text())
    assert (written["seeds"], written["methods"]["mlp"]["hidden"]) == (1, 16)
    new = pl.read_parquet(clone / "results/tiny/metrics.parquet")
    assert set(new["seed"]) == {0}
    assert "up to date" in run(clone, "dvc", "status")
    printed = run(clone, "icis", "compare", "one", "one-seed")
    assert "seeds: 2 → 1" in printed
    assert "1 seed, no interval" in printed
    assert "methods.mlp.hidden: 32 → 16" in printed
    # a changed setting leaves the name of its headline numbers: DVC sets them side by side
    shown = pl.read_csv(io.StringIO(run(clone, "dvc", "exp", "show", "--csv"))).to_dicts()
    numbers = {row["Experiment"] or row["rev"]: row["main.drawn.mlp.S"] for row in shown}
    means = [frame.filter(method="mlp", metric="S")["value"].mean() for frame in (old, new)]
    assert [numbers["one"], numbers["one-seed"]] == pytest.approx(means, abs=0.006)


def test_attributes_of_a_benchmark_as_they_are_scaled_and_as_given(tmp_path):
    for name, data in xlsa17(classes.awa2()).items():
        (tmp_path / name).write_bytes(data)
    experiment = tiny()
    del experiment["backbones"]
    experiment["heads"]["last"] = {"epochs": 50, "learning_rate": 0.01}
    for method in ("mlp", "icis"):
        experiment["methods"][method]["learning_rate"] = 0.01  # enough to learn something
    splits = str(tmp_path / "att_splits.mat")
    features = {"small": str(tmp_path / "res101.mat")}
    animals = {"kind": "xlsa17", "split_version": "2.0", "splits": splits, "features": features}
    experiment["datasets"] = {"drawn": animals}
    versions = {
        "given": {"key": "att"},
        "original": {"key": "original_att"},
        "scaled": {"key": "original_att", "normalize": "l2"},
    }
    animals["descriptors"] = {"att": {"file": splits, **versions["given"]}}
    project = started(tmp_path, experiment)
    vectors = {}
    for tag, settings in versions.items():
        animals["descriptors"] = {"att": {"file": splits, **settings}}
        write(project, experiment)
        run(project, "dvc", "repro")
        path = project / "data/descriptors/drawn/att.parquet"
        vectors[tag] = load_descriptors(path).vectors
        commit(project, tag)
    # att is original_att of unit length: only rounding may tell them apart, and no number does
    assert np.allclose(vectors["scaled"], vectors["given"], rtol=1e-6, atol=0)
    assert not np.allclose(vectors["original"], vectors["given"], rtol=0.1)
    found = {}
    for tag in ("original", "scaled"):
        run(project, "icis", "compare", "given", tag, "--output", f"{tag}.csv")
        found[tag] = pl.read_csv(project / f"{tag}.csv")
        assert found[tag]["status"].unique().to_list() == ["changed"]
        assert found[tag]["seeds"].unique().to_list() == [2]
    changes = "descriptor.key: att → original_att; descriptor.normalize: none → l2"
    assert found["scaled"]["changes"].unique().to_list() == [changes]
    assert found["scaled"]["difference"].unique().to_list() == [0]
    trained = found["original"].filter(method="ICIS")
    assert trained["difference"].abs().max() > 1  # numbers of another size are learnt otherwise


def test_rule_graph_becomes_a_picture(tmp_path, dot):
    write(tmp_path, tiny())
    graph = snakemake(tmp_path, "--rulegraph").stdout
    done = subprocess.run([dot, "-Tsvg"], input=graph, capture_output=True, text=True, check=True)
    assert "<svg" in done.stdout
    assert "train_head" in done.stdout
