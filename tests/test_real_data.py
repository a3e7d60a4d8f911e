"""Real images, a real checkpoint and real features through the same stages."""

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from icis import layout
from icis.config import parse_experiment, read_experiment
from icis.datasets.matlab import read_variables
from icis.features import load_features
from icis.plan import Plan
from icis.results import build_table
from icis.rows import difference
from tests.pipeline import ROOT, environment, snakemake, write

pytestmark = [pytest.mark.slow, pytest.mark.real_data]


def shortened(name: str, **changes) -> dict:
    experiment = read_experiment(ROOT / "experiments" / f"{name}.yaml").identity()
    return {**experiment, **changes}


def test_given_features_reach_the_published_numbers(tmp_path, real_data):
    experiment = shortened("tiny-features", seeds=3)
    quick = {**experiment["tables"]["table1"], "metrics": ["T1", "U", "S", "H"]}
    quick["figures"] = ["agreement"]
    experiment["tables"] = {
        "quick": {**quick, "methods": ["conse", "costa", "wavg", "smo"], "reference": "smo"},
        "trained": {**quick, "methods": ["icis"], "seeds": 1},
    }
    write(tmp_path, experiment)
    done = snakemake(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    plan = Plan(parse_experiment(experiment, source="here"))
    frame = pl.read_parquet(tmp_path / layout.metrics("tiny-features"))
    table = build_table(frame, plan, "quick")
    compared = 0
    for row in table.methods:
        for place, theirs in row.published.items():
            found = difference(row.cells[place], theirs)
            error = abs(found.value / found.errors) if found.errors else 0.0
            assert abs(found.value) <= max(1.0, 3 * error), (row.display, place, found)
            compared += 1
    assert compared == 16
    [icis] = build_table(frame, plan, "trained").methods
    for place, theirs in icis.published.items():
        # one seed here: 4 points are about 4 standard deviations of the difference
        assert icis.cells[place].mean == pytest.approx(theirs.value, abs=4.0), place
    selection = frame.filter(method="icis")["selection"][0]
    assert "test_seen (the paper's leak)" in selection


def test_the_imagenet_head_learns_the_classes_that_it_lacks(tmp_path, real_data):
    experiment = shortened("tiny-features", seeds=1)
    table = {**experiment["tables"]["table3"], "methods": ["conse", "costa", "wavg", "smo-exact"]}
    experiment["tables"] = {"transfer": table}
    write(tmp_path, experiment)
    done = snakemake(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    frame = pl.read_parquet(tmp_path / layout.metrics("tiny-features"))
    assert frame["n_seen"].unique().to_list() == [950]
    assert frame["descriptor"].unique().sort().to_list() == ["conceptnet", "wiki2vec"]
    t1 = frame.filter(metric="T1", method="smo")["value"]
    # ridge regression in closed form reaches 31 to 33 with ConceptNet; chance is 2
    assert len(t1) == 2
    assert t1.min() > 10
    [seen] = frame.filter(metric="seen_accuracy")["value"].unique()
    assert seen == pytest.approx(accuracy_by_hand(tmp_path, real_data), abs=0.02)
    text = (tmp_path / layout.table("tiny-features", "transfer", "md")).read_text()
    assert "Left out, all rows on tiny-features / clip" in text


def accuracy_by_hand(folder, real_data):
    """Return the accuracy of the ImageNet head's 950 rows on test_seen, from the files alone."""
    given = np.load(real_data / "heads/imagenet1k_mobilenetv2.npz")
    features = load_features(folder / layout.features("tiny-features", "mnv2"))
    kept = ~np.isin(given["wnids"], features.classes.unseen)
    images = features.split("test_seen")
    scores = images.vectors.numpy() @ given["W"][kept].T + given["b"][kept]
    right = given["wnids"][kept][scores.argmax(axis=1)] == np.array(images.classes)
    return (
        pl.DataFrame({"class": images.classes, "right": right})
        .group_by("class")
        .mean()["right"]
        .mean()
        * 100
    )


def test_images_of_a_tar_give_the_given_features(tmp_path, real_data):
    splits = pl.read_csv(subprocess.run(
        ["tar", "xOf", real_data / "images/tiny-imagenet-200.tar", "splits.csv"],
        capture_output=True, check=True,
    ).stdout)  # fmt: skip
    few = splits.group_by("class", "split", maintain_order=True).head(2)
    few.write_parquet(tmp_path / "few.parquet")
    experiment = shortened("tiny-images", seeds=1)
    experiment["datasets"]["tiny-images"]["splits"] = str(tmp_path / "few.parquet")
    file = write(tmp_path, experiment)
    for verb in (["index", "tiny-images"], ["extract", "tiny-images", "mobilenetv2"]):
        command = [sys.executable, "-m", "icis", *verb, "--config", str(file), "--threads", "2"]
        command = command if verb[0] == "extract" else command[:-2]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    ours = load_features(tmp_path / layout.features("tiny-images", "mobilenetv2"))
    assert len(ours.vectors) == len(few) == 150 * 4 + 50 * 2
    assert ours.metadata["decoder"].startswith("Pillow")

    given = read_variables(real_data / "xlsa17/TINY/mnv2.mat", ["features", "image_files"])
    rows = {name.rsplit("/", 1)[-1]: row for row, name in enumerate(given["image_files"])}
    theirs = given["features"].T[[rows[name.rsplit("/", 1)[-1]] for name in ours.rows["image"]]]
    cosine = (ours.vectors * theirs).sum(1) / (
        np.linalg.norm(ours.vectors, axis=1) * np.linalg.norm(theirs, axis=1)
    )
    assert cosine.mean() > 0.99
    assert cosine.min() > 0.95


def test_an_unset_folder_is_one_readable_message(tmp_path):
    file = ROOT / "experiments/tiny-features.yaml"
    env = environment()
    env.pop("ICIS_DATA", None)
    command = [sys.executable, "-m", "icis", "check", "--config", str(file)]
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "ICIS_DATA" in done.stderr
    assert "Traceback" not in done.stderr
    assert json.dumps(done.stdout) == '""'
