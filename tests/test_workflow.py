"""The whole DAG on a tiny experiment: what it makes, what it makes anew, and what it refuses."""

import json
import re
import subprocess
import sys

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from icis import layout
from icis.artifacts import read_metadata
from icis.evaluation import accuracy
from icis.features import load_features
from icis.scorers import load_head, load_scorers
from tests.pipeline import (
    CELLS,
    ROOT,
    changed,
    copy,
    environment,
    planned,
    snakemake,
    times,
    tiny,
    write,
)

RESULTS = {"collect": 1, "plot": 1, "tabulate": 1, "finish": 1, "track": 1}
HEADS, EVALUATED = "results/**/*.safetensors", f"{CELLS}/*.parquet"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Run the tiny experiment once."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    write(folder, tiny())
    done = snakemake(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def run(finished, tmp_path):
    """Give a copy of the finished run that a test may change."""
    return copy(finished, tmp_path / "run")


def metrics(folder):
    return pl.read_parquet(folder / layout.metrics("tiny"))


def test_metrics_have_the_documented_columns(finished):
    frame = metrics(finished)
    key = ["dataset", "backbone", "head", "descriptor", "n_seen", "method", "variant", "seed"]
    assert set(key) | {"metric", "value", "cell", "selection", "display"} <= set(frame.columns)
    assert not frame.select([*key, "metric"]).is_duplicated().any()
    assert frame["head"].unique().to_list() == ["linear-last_epochs-5"]
    assert sorted(frame["method"].unique()) == ["conse", "icis", "mlp"]
    assert frame["n_seen"].unique().to_list() == [8]
    for metric in ("T1", "U", "S", "H"):
        values = frame.filter(metric=metric)["value"]
        assert len(values) == 6
        assert values.is_between(0, 100).all()
    assert frame.filter(metric="epochs", method="icis")["value"].to_list() == [30, 30]
    assert frame.filter(metric="chance_T1")["value"].unique().to_list() == [25]


def test_metadata_names_every_file_with_its_hash(finished):
    about = read_metadata(finished / layout.metrics("tiny"))
    named = " ".join(about["sources"])
    for part in ("attributes.csv", "images", "model.safetensors", "index/", "features/", "heads/"):
        assert part in named
    assert all(len(value) == 64 for value in about["sources"].values())
    cell = next(iter(about["cells"].values()))
    assert {"torch", "timm", "icis", "python"} <= set(cell["versions"])
    assert cell["device"]
    assert cell["split_version"] == "drawn"


def test_saved_heads_reproduce_the_metrics(finished):
    features = load_features(finished / "data/features/drawn/small.parquet")
    frame = metrics(finished)
    for stem, method in (("icis-hidden-32_max-epochs-30", "icis"), ("conse-default", "conse")):
        for seed in (0, 1):
            path = finished / CELLS / stem / f"seed-{seed}.safetensors"
            _, about = load_scorers(path)
            unseen = load_head(path, role="unseen")
            assert unseen.classes == features.classes.unseen == tuple(about["unseen_classes"])
            expected = frame.filter(method=method, seed=seed, metric="T1")["value"].item()
            assert accuracy(unseen, features.split("test_unseen")) == pytest.approx(expected)
            joint = load_head(path)
            expected = frame.filter(method=method, seed=seed, metric="S")["value"].item()
            assert accuracy(joint, features.split("test_seen")) == pytest.approx(expected)


def test_the_readmes_python_runs_as_it_stands(finished, monkeypatch, capsys):
    [code] = re.findall("```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for path in re.findall('"([^"]*/[^"]*)"', code):
        name = "drawn/small.parquet" if "features" in path else "icis-hidden-32_max-epochs-30"
        [here] = [each for each in finished.rglob("*") if str(each).endswith(name)]
        code = code.replace(path, str(here / "seed-0.safetensors" if here.is_dir() else here))
    exec(code, {})
    features = load_features(finished / "data/features/drawn/small.parquet")
    assert capsys.readouterr().out.strip() in features.classes.names


def test_history_has_every_term_and_epoch(finished):
    path = finished / CELLS / "icis-hidden-32_max-epochs-30/seed-1.history.parquet"
    history = pl.read_parquet(path)
    assert sorted(history["term"].unique()) == ["a2a", "a2w", "loss", "w2a", "w2w"]
    for _, term in history.group_by("term"):
        assert term["epoch"].to_list() == list(range(1, 31))
    wide = history.pivot("term", index="epoch", values="value")
    total = wide["a2a"] + wide["a2w"] + wide["w2a"] + wide["w2w"]
    assert (total - wide["loss"]).abs().max() < 1e-5


def test_tables_and_figures_exist_in_all_formats(finished):
    for suffix in ("csv", "md", "tex", "html"):
        assert (finished / layout.table("tiny", "main", suffix)).stat().st_size > 100
    for suffix in ("svg", "pdf", "png"):
        assert (finished / layout.figure("tiny", "main", "bars", suffix)).stat().st_size > 1000
    headline = json.loads((finished / layout.headline("tiny")).read_text())
    assert "T1" in json.dumps(headline)


def test_second_run_does_nothing(finished):
    done = snakemake(finished)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


def test_table_from_mlflow_alone_is_identical(finished, tmp_path):
    tables = []
    for extra in ((), ("--from-mlflow",)):
        output = tmp_path / f"table{len(extra)}.csv"
        command = [sys.executable, "-m", "icis", "show", "-c", "experiment.json", *extra,
                   "--table", "main", "--output", str(output)]  # fmt: skip
        done = subprocess.run(
            command, cwd=finished, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        tables.append(output.read_bytes())
    assert tables[0] == tables[1]


def test_repeated_tracking_logs_nothing_twice(run):
    import mlflow

    done = snakemake(run, "--forcerun", "track")
    assert done.returncode == 0, done.stdout + done.stderr
    client = mlflow.MlflowClient(f"sqlite:///{run}/mlflow.db")
    experiment = client.get_experiment_by_name("tiny")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    keys = [each.data.tags["icis.key"] for each in runs if "icis.cell" in each.data.tags]
    assert len(keys) == len(set(keys)) == 6


@pytest.mark.slow
def test_a_dead_server_stops_nothing_and_is_tried_again(run):
    dead = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    done = snakemake(run, "--forcerun", "tabulate", **dead)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert output.count("does not answer within 5 seconds") == 1
    assert "icis track sync" in output
    receipt = run / layout.tracked("tiny")
    assert json.loads(receipt.read_text())["status"] == "pending"
    assert planned(run) == {"track": 1}
    assert snakemake(run, **dead).returncode == 0
    assert planned(run) == {"track": 1}
    assert snakemake(run).returncode == 0
    assert json.loads(receipt.read_text())["status"] == "logged"
    assert planned(run) == {}
    assert snakemake(run, "--forcerun", "track", **dead).returncode == 0
    assert planned(run) == {"track": 1}
    command = [sys.executable, "-m", "icis", "track", "sync"]
    subprocess.run(command, cwd=run, env=environment(), check=True)
    assert json.loads(receipt.read_text())["status"] == "logged"
    assert planned(run) == {}


def test_a_learning_rate_reruns_its_cell_only(run):
    experiment = tiny()
    experiment["methods"]["icis"]["learning_rate"] = 2e-5
    before, heads, evaluated = metrics(run), times(run, HEADS), times(run, EVALUATED)
    write(run, experiment)
    assert planned(run) == {"cells": 1, **RESULTS}
    assert snakemake(run).returncode == 0
    after = metrics(run)
    new = "icis-hidden-32_learning-rate-2e-05_max-epochs-30"
    assert changed(heads, run, HEADS) == {f"{new}/seed-{seed}.safetensors" for seed in (0, 1)}
    assert changed(evaluated, run, EVALUATED) == {f"{new}.parquet"}
    same = pl.col("method") != "icis"
    assert_frame_equal(before.filter(same), after.filter(same))
    assert "learning-rate" in after.filter(method="icis")["variant"][0]


def test_a_display_name_trains_nothing(run):
    experiment = tiny()
    experiment["methods"]["icis"]["name"] = "Another name"
    write(run, experiment)
    heads, evaluated = times(run, HEADS), times(run, EVALUATED)
    assert snakemake(run).returncode == 0
    assert changed(heads, run, HEADS) == set()
    assert changed(evaluated, run, EVALUATED) == {"icis-hidden-32_max-epochs-30.parquet"}


def test_editing_the_evaluation_reruns_evaluation_only(run, tmp_path):
    source = copy(ROOT / "src", tmp_path / "src")
    module = source / "icis/evaluation.py"
    module.write_text(module.read_text().replace("CHUNK = 8192", "CHUNK = 4096"))
    assert planned(run, PYTHONPATH=str(source)) == {"cells": 1, **RESULTS}
    heads, evaluated = times(run, HEADS), times(run, EVALUATED)
    assert snakemake(run, PYTHONPATH=str(source)).returncode == 0
    assert changed(heads, run, HEADS) == set()
    assert len(changed(evaluated, run, EVALUATED)) == 3


def test_editing_a_comment_reruns_nothing(run, tmp_path):
    source = copy(ROOT / "src", tmp_path / "src")
    for module in source.rglob("*.py"):
        module.write_text(module.read_text() + "\n# a remark\n")
    assert planned(run, PYTHONPATH=str(source)) == {}


def test_another_seed_computes_that_seed_only(run):
    experiment = tiny()
    experiment["seeds"] = 3
    write(run, experiment)
    heads = sorted(run.glob("results/tiny/cells/**/seed-*.safetensors"))
    parts = sorted(run.glob("data/heads/**/seed-*.parquet"))
    before = {path: path.stat().st_mtime_ns for path in heads + parts}
    assert len(before) == 8
    old = metrics(run)
    assert snakemake(run).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    new = metrics(run)
    assert new["seed"].unique().sort().to_list() == [0, 1, 2]
    assert_frame_equal(new.filter(pl.col("seed") < 2), old)


def test_a_damaged_head_is_noticed_and_made_anew(run):
    head = run / CELLS / "icis-hidden-32_max-epochs-30/seed-0.safetensors"
    before = metrics(run)
    data = bytearray(head.read_bytes())
    data[-1] ^= 1
    head.write_bytes(bytes(data))
    (run / CELLS / "icis-hidden-32_max-epochs-30.parquet").unlink()
    heads = times(run, HEADS)
    assert snakemake(run).returncode == 0
    assert_frame_equal(metrics(run), before)
    assert changed(heads, run, HEADS) == {"icis-hidden-32_max-epochs-30/seed-0.safetensors"}


@pytest.mark.slow
@pytest.mark.parametrize("file", [
    "mlp-hidden-32_max-epochs-25.parquet",
    "mlp-hidden-32_max-epochs-25/curves.parquet",
    "mlp-hidden-32_max-epochs-25/injection.json",
])  # fmt: skip
@pytest.mark.parametrize("lost", [True, False])
def test_what_is_lost_or_damaged_is_made_anew_and_nothing_else(run, file, lost):
    before, heads, evaluated = metrics(run), times(run, HEADS), times(run, EVALUATED)
    path = run / CELLS / file
    data = bytearray(path.read_bytes())
    if lost:
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(bytes(data))
    dry = planned(run)  # says so, and changes nothing
    assert dry["cells"] == 1
    assert path.exists() != lost
    assert planned(run) == dry
    done = snakemake(run)
    assert done.returncode == 0, done.stdout + done.stderr
    told = f"1 files of cells are missing or damaged, such as {CELLS / file}: 1 of 1 batches"
    assert told in done.stdout + done.stderr
    assert_frame_equal(metrics(run), before)
    assert changed(heads, run, HEADS) == set()
    # the manifest comes out the same, so what was evaluated by it stays
    made = set() if file.endswith(".json") else {"mlp-hidden-32_max-epochs-25.parquet"}
    assert changed(evaluated, run, EVALUATED) == made
    assert planned(run) == {}


def test_a_lost_record_is_made_anew_and_nothing_else(run):
    heads, evaluated = times(run, HEADS), times(run, EVALUATED)
    [record] = run.glob("results/tiny/batches/**/*.json")
    record.unlink()
    assert planned(run)["cells"] == 1
    assert snakemake(run).returncode == 0
    assert record.exists()
    assert changed(heads, run, HEADS) == changed(evaluated, run, EVALUATED) == set()
    assert planned(run) == {}


def test_a_lost_head_is_made_anew(run):
    heads = times(run, HEADS)
    (run / CELLS / "mlp-hidden-32_max-epochs-25/seed-1.safetensors").unlink()
    assert planned(run)["cells"] == 1
    assert snakemake(run).returncode == 0
    assert changed(heads, run, HEADS) == {"mlp-hidden-32_max-epochs-25/seed-1.safetensors"}
    assert planned(run) == {}


def test_what_looks_at_a_run_removes_nothing(run):
    [record] = run.glob("results/tiny/batches/**/*.json")
    (run / CELLS / "conse-default.parquet").unlink()
    for arguments in (("--rulegraph",), ("--summary",), ("--report", "report.html"), ("--touch",)):
        snakemake(run, *arguments)
        assert record.exists()


@pytest.mark.slow
def test_other_batches_compute_nothing_anew(run):
    before, heads, evaluated = metrics(run), times(run, HEADS), times(run, EVALUATED)
    assert planned(run, "--config", "cells-per-job=1")["cells"] == 3
    done = snakemake(run, "--config", "cells-per-job=1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert changed(heads, run, HEADS) == changed(evaluated, run, EVALUATED) == set()
    assert_frame_equal(metrics(run), before)
    assert planned(run, "--config", "cells-per-job=1") == {}
    refused = snakemake(run, "--config", "cells-per-job=0")
    assert refused.returncode != 0
    assert "cells-per-job should be a whole number from 1 on" in refused.stdout + refused.stderr


def test_rule_graph_names_every_stage(finished):
    done = snakemake(finished, "--rulegraph")
    assert done.returncode == 0
    for rule in ("draw", "index", "describe", "finetune", "extract", "train_head", "cells",
                 "collect", "plot", "tabulate", "finish", "track"):  # fmt: skip
        assert f'"{rule}"' in done.stdout


def test_report_holds_tables_and_figures(finished, tmp_path):
    report = tmp_path / "report.html"
    done = snakemake(finished, "--report", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    text = report.read_text()
    assert "main.html" in text
    assert "main.bars.svg" in text


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda e: e.update(sedes=3), "unknown key 'sedes'; did you mean 'seeds'?"),
        (lambda e: e["methods"]["icis"].update(lerning_rate=1e-3), "did you mean 'learning_rate'?"),
        (lambda e: e["tables"]["main"].update(descriptors=["at"]), "did you mean 'att'?"),
        (lambda e: e["methods"]["icis"].update(hidden="big"), "methods.icis.hidden"),
    ],
)
def test_a_bad_experiment_is_refused_before_any_work(tmp_path, change, expected):
    experiment = tiny()
    change(experiment)
    write(tmp_path, experiment)
    done = snakemake(tmp_path)
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert expected in output
    assert "Traceback" not in output
    assert not (tmp_path / "data").exists()


def test_missing_files_are_all_named_before_any_work(tmp_path):
    experiment = tiny()
    experiment["datasets"]["drawn"] = {
        "kind": "images", "root": "absent", "descriptors": {"att": {"file": "none.csv"}},
    }  # fmt: skip
    write(tmp_path, experiment)
    done = snakemake(tmp_path)
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert "absent does not exist" in output
    assert "none.csv does not exist" in output
    assert "Traceback" not in output


def test_two_runs_at_once_in_a_folder_are_refused(run):
    lock = "import fcntl, sys, time; f = open(sys.argv[1], 'a+'); f.write('4711'); f.flush(); "
    lock += "fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)"
    path = run / ".snakemake/icis/run.lock"
    path.write_text("")
    with subprocess.Popen(
        [sys.executable, "-c", lock, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        done = snakemake(run, "--forcerun", "tabulate")
        holder.kill()
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert "another run is at work in this folder (process 4711)" in output
