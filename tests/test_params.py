"""params.yaml as it is: on a miniature of its files, the whole DAG resolves."""

import shutil

import numpy as np
import pytest
from scipy.io import savemat

from icis.batches import Batches
from icis.config import read_experiment
from icis.methods import METHODS
from icis.plan import Plan
from tests.pipeline import ROOT, planned

DATASETS = ("CUB", "AWA2", "SUN")
CLASSES, UNSEEN, IMAGES = 10, 3, 6


def miniature(folder):
    """Write every file that params.yaml names, a few classes of each data set."""
    rng = np.random.default_rng(0)
    for name in DATASETS:
        place = folder / "xlsa17" / name
        place.mkdir(parents=True)
        names = [f"{name.lower()}-{number}" for number in range(CLASSES)]
        labels = np.repeat(np.arange(1, CLASSES + 1), IMAGES)
        seen = labels <= CLASSES - UNSEEN
        last = np.arange(len(labels)) % IMAGES == IMAGES - 1
        locations = {
            "trainval_loc": seen & ~last, "test_seen_loc": seen & last, "test_unseen_loc": ~seen,
        }  # fmt: skip
        savemat(
            place / "att_splits.mat",
            {
                "att": rng.random((5, CLASSES)),
                "allclasses_names": np.array(names, dtype=object)[:, None],
                **{key: np.flatnonzero(mask)[:, None] + 1 for key, mask in locations.items()},
            },
        )
        for file in ("res101_finetuned", "res101", "resnet101_tv_in1k"):
            features = rng.random((4, len(labels)))
            savemat(place / f"{file}.mat", {"features": features, "labels": labels[:, None]})
        words = folder / "descriptors"
        words.mkdir(exist_ok=True)
        (words / f"{name}_classnames.txt").write_text("\n".join(names))
        for kind in ("wiki2vec", "conceptnet"):
            np.save(words / f"{name}_{kind}.npy", rng.random((CLASSES, 6)))
            np.save(words / f"ImageNet1K_{kind}.npy", rng.random((8, 6)))
    (folder / "heads").mkdir()
    wnids = np.array([f"n{number}" for number in range(8)])
    head = folder / "heads/resnet101_tv_in1k.npz"
    np.savez(head, W=rng.random((8, 4)), b=rng.random(8), wnids=wnids)


@pytest.fixture
def data(tmp_path, monkeypatch):
    folder = tmp_path / "mirror"
    miniature(folder)
    monkeypatch.setenv("ICIS_DATA", str(folder))
    return folder


def test_every_table_and_method_of_the_paper_is_named(data):
    plan = Plan(read_experiment(ROOT / "params.yaml"))
    assert plan.missing_files() == []
    tables = {"table1", "table2", "table3", "table4", "table5", "ablations", "data-efficiency"}
    assert tables <= set(plan.table_cells)
    assert {cell.method.method for cell in plan.table_cells["table1"]} >= {
        "conse", "costa", "subreg", "wdae", "wavg", "smo", "icis",
    }  # fmt: skip
    assert {each.method for each in plan.experiment.methods.values()} == set(METHODS)
    assert {cell.dataset for cell in plan.table_cells["table3"]} == set(DATASETS)
    sizes = {cell.n_seen for cell in plan.table_cells["data-efficiency"]}
    assert sizes == {None, 125, 100, 75, 50, 37, 25, 12}
    batch = {cell.dataset: cell.method.batch_size for cell in plan.table_cells["table2"]}
    assert batch == {"CUB": 16, "AWA2": 20}
    # CLIP's text embeddings are not among the files: those cells stay empty
    left_out = {(key[0], key[3]) for key in plan.left_out}
    assert left_out == {(name, "clip") for name in DATASETS}


def test_the_whole_dag_resolves(data, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    shutil.copy(ROOT / "params.yaml", project / "experiment.json")  # YAML is no less than JSON
    jobs = planned(project, ICIS_DATA=str(data))
    plan = Plan(read_experiment(ROOT / "params.yaml"))
    assert jobs["cells"] == len(Batches(plan).all)
    assert sum(len(batch.cells) for batch in Batches(plan).all.values()) == len(plan.cells)
    assert jobs["tabulate"] == jobs["finish"] == len(plan.table_cells)
    assert jobs["describe_head"] == 2
    # CUB, AWA2, SUN: heads of finetuned features by two selections, of two others, and ImageNet's
    assert jobs["train_head"] == 3 * (2 + 2 + 1)
