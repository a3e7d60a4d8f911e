"""Each public data set in small, from its host to features: fetch, verify, index, extract."""

import io
import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from PIL import Image

from icis import layout
from icis.artifacts import read_metadata
from icis.backbones import decode
from icis.config import parse_experiment
from icis.datasets.index import load_index
from icis.features import load_features
from icis.plan import Plan
from icis.stages.common import image_source
from tests.miniature import classes
from tests.miniature.hosts import played
from tests.miniature.objects import apy_files
from tests.pipeline import environment, write

SMALL = {
    "model": "resnet10t", "weights": "random", "train": {"epochs": 1},
    "transform": {"image_size": 32, "crop_pct": 1.0}, "precision": "float32",
}  # fmt: skip
IMAGES = ("CUB", "AWA2", "SUN", "FLO", "APY")
GIVEN = {"FLO": "fetched:flo-splits/res101.mat"}


def experiment():
    """Return all six data sets, with features as given and, where images are public, extracted."""
    datasets = {
        name: {
            "kind": "xlsa17", "benchmark": name,
            "features": {"given": GIVEN.get(name, f"fetched:xlsa17/**/{name}/res101.mat")},
        }
        for name in (*IMAGES, "AWA1")
    }  # fmt: skip
    table = {"heads": ["last"], "descriptors": ["att"], "methods": ["conse"]}
    return {
        "name": "public", "seeds": 1, "datasets": datasets, "backbones": {"small": SMALL},
        "heads": {"last": {"epochs": 1}}, "methods": {"conse": {"method": "conse"}},
        "tables": {
            "given": {**table, "datasets": [*datasets], "backbones": ["given"]},
            "images": {**table, "datasets": [*IMAGES], "backbones": ["small"]},
        },
    }  # fmt: skip


@pytest.fixture(scope="module")
def fetched(tmp_path_factory):
    """Fetch every data set from its hosts; return the folder and a way to run icis in it."""
    root = tmp_path_factory.mktemp("public")
    folder = root / "project"
    file = write(folder, experiment())
    with played(root, hub=False) as hosts:
        env = environment(**hosts)

        def icis(*command, status=0):
            done = subprocess.run(
                [sys.executable, "-m", "icis", *command],
                cwd=folder, capture_output=True, text=True, env=env, check=False,
            )  # fmt: skip
            assert done.returncode == status, done.stdout + done.stderr
            return done.stdout + done.stderr

        said = icis("data", "fetch", *IMAGES, "AWA1")
        assert "redistributed" in said  # the licence notes
        for name in (*IMAGES, "AWA1"):
            icis("index", name, "--config", str(file))
        yield folder, icis, env


def drawn(name):
    data = getattr(classes, name.lower())()
    if name == "APY":
        apy_files(data)  # gives pictures the images that they are a part of
    return data


@pytest.mark.parametrize("name", [*IMAGES, "AWA1"])
def test_every_picture_has_its_class_and_split(fetched, monkeypatch, name):
    folder, _, env = fetched
    monkeypatch.chdir(folder)
    monkeypatch.setenv("ICIS_CATALOGUE", env["ICIS_CATALOGUE"])
    data = drawn(name)
    index, about = load_index(layout.index(name))
    assert index.classes.names == tuple(data.names)
    assert about["split_version"] == ("xlsa17-1.0" if name == "FLO" else "xlsa17-2.0")
    expected = sorted((data.names[each.label], each.split) for each in data.pictures)
    assert sorted(index.frame.select("class", "split").rows()) == expected
    if name == "AWA1":
        return
    plan = Plan(parse_experiment(experiment(), source="here"))
    source = image_source(plan, name, index.frame)
    pictures = {}
    for each in data.pictures:
        pixels = np.asarray(Image.open(io.BytesIO(each.jpeg)).convert("RGB"), dtype=float)
        pictures.setdefault((data.names[each.label], each.split), []).append(pixels)
    for image, *key in index.frame.select("image", "class", "split").rows():
        pixels = np.asarray(decode(source, image), dtype=float)
        # aPY's objects are cut from images that were compressed once more
        least = min(abs(pixels - each).mean() for each in pictures[tuple(key)])
        assert least < (12 if name == "APY" else 1e-9), image


@pytest.mark.parametrize("name", [*IMAGES, "AWA1"])
def test_what_was_fetched_verifies(fetched, name):
    _, icis, _ = fetched
    icis("data", "verify", name)


def test_features_follow_the_index(fetched):
    folder, icis, _env = fetched
    file = folder / "experiment.json"
    changed = experiment()
    changed["backbones"]["small"]["train"] = None
    changed["backbones"]["small"]["weights"] = f"local-dir:{folder}/data/backbones/CUB/small"
    icis("finetune", "CUB", "small", "--config", str(file))
    write(folder, changed)
    for name in IMAGES:
        icis("extract", name, "small", "--config", str(file))
        features = load_features(folder / layout.features(name, "small"))
        index, _ = load_index(folder / layout.index(name))
        assert features.rows.equals(index.frame.select("image", "class", "split"))
        assert len({*map(bytes, features.vectors)}) > 0.9 * len(index.frame)
    write(folder, experiment())


def test_a_source_without_a_published_checksum_is_held_to_its_first(fetched):
    folder, _, _ = fetched
    first = json.loads((folder / layout.first_seen()).read_text())
    assert list(first) == ["xlsa17/xlsa17.zip"]


def test_wrong_counts_are_named(fetched, tmp_path):
    _folder, icis, _ = fetched
    changed = experiment()
    changed["datasets"]["SUN"]["counts"] = {"trainval": 10_320, "classes": 25}
    file = write(tmp_path, changed)
    said = icis("index", "SUN", "--config", str(file), status=2)
    assert "trainval" in said
    assert "10320" in said.replace(",", "")
    assert "Traceback" not in said


def test_classes_are_in_the_order_of_the_descriptors(fetched):
    folder, icis, _ = fetched
    icis("describe", "AWA2", "att", "--config", str(folder / "experiment.json"))
    path = folder / layout.descriptors("AWA2", "att")
    frame = pl.read_parquet(path)
    data = drawn("AWA2")
    vectors = np.frombuffer(b"".join(frame["vector"]), dtype="<f4").reshape(len(frame), -1)
    expected = data.attributes / np.linalg.norm(data.attributes, axis=1, keepdims=True)
    assert frame["class"].to_list() == data.names
    assert np.allclose(vectors, expected, atol=1e-6)
    assert read_metadata(path)["dim"] == data.attributes.shape[1]


def test_official_tuning_splits_are_folds(fetched):
    folder, icis, _ = fetched
    config = ["--config", str(folder / "experiment.json")]
    icis("extract", "SUN", "given", *config)
    icis("describe", "SUN", "att", *config)
    icis("train-head", "SUN", "given", "linear-last_epochs-1", *config)
    place = ["SUN", "given", "linear-last_epochs-1", "att"]
    icis("cross-validate", *place, "conse", "--official", "-o", "cv.csv", *config)
    assert pl.read_csv(folder / "cv.csv")["fold"].unique().to_list() == [0, 1, 2]
