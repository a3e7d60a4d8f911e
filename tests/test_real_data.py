"""Real images, a real checkpoint and real features through the same stages."""

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from icis import layout
from icis.config import read_experiment
from icis.datasets.matlab import read_variables
from icis.features import load_features
from tests.pipeline import ROOT, environment, snakemake, write

pytestmark = [pytest.mark.slow, pytest.mark.real_data]
# what the published algorithm reaches with the seen head selected on test_seen (T1, U, S, H)
PUBLISHED = {"icis": (18.6, 11.6, 41.8, 18.1), "conse": (23.7, 0.0, 57.3, 0.0)}


def shortened(name: str, **changes) -> dict:
    experiment = read_experiment(ROOT / "experiments" / f"{name}.yaml").identity()
    return {**experiment, **changes}


def test_given_features_reach_the_published_numbers(tmp_path, real_data):
    experiment = shortened("tiny-features", seeds=1)
    experiment["tables"] = {"short": {**experiment["tables"]["paper-selection"],
                                      "methods": ["conse", "icis"]}}  # fmt: skip
    write(tmp_path, experiment)
    done = snakemake(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    frame = pl.read_parquet(tmp_path / layout.metrics("tiny-features"))
    for method, published in PUBLISHED.items():
        for metric, expected in zip(("T1", "U", "S", "H"), published, strict=True):
            values = frame.filter(method=method, metric=metric)["value"]
            # one seed here: 4 points are about 4 standard deviations of the difference
            assert values.mean() == pytest.approx(expected, abs=4.0), (method, metric)
    selection = frame.filter(method="icis")["selection"][0]
    assert "test_seen (the paper's leak)" in selection


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
