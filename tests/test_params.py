"""params.yaml as it is: from an empty folder, the whole DAG resolves."""

import shutil

import pytest

from icis.batches import Batches
from icis.config import read_experiment
from icis.methods import METHODS
from icis.plan import Plan
from tests.pipeline import ROOT, planned

DATASETS = ("CUB", "AWA2", "SUN")
SOURCES = ("xlsa17", "cub-images", "awa2-images", "sun-images", "numberbatch", "wikipedia2vec")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ICIS_CATALOGUE", "ICIS_MIRROR", "IMAGENET_VAL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_every_table_and_method_of_the_paper_is_named(here):
    plan = Plan(read_experiment(ROOT / "params.yaml"))
    assert plan.missing_files() == []  # all that is not there can be fetched
    assert plan.left_out == {}
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
    used = {cell.backbone for cells in plan.table_cells.values() for cell in cells}
    assert used == {"resnet101-xlsa17", *plan.experiment.backbones}
    assert tuple(sorted(SOURCES)) == tuple(plan.files.sources(plan.cells.values()))


def test_published_counts_are_those_of_the_paper(here):
    datasets = read_experiment(ROOT / "params.yaml").datasets
    expected = {  # classes, seen, attributes, images, trainval, test_seen, test_unseen
        "CUB": (200, 150, 312, 11_788, 7_057, 1_764, 2_967),
        "AWA2": (50, 40, 85, 37_322, 23_527, 5_882, 7_913),
        "SUN": (717, 645, 102, 14_340, 10_320, 2_580, 1_440),
    }
    keys = ("classes", "seen", "attributes", "images", "trainval", "test_seen", "test_unseen")
    for name, numbers in expected.items():
        assert {key: datasets[name].counts[key] for key in keys} == dict(
            zip(keys, numbers, strict=True)
        )


def test_the_whole_dag_resolves(here):
    shutil.copy(ROOT / "params.yaml", here / "experiment.json")  # YAML is no less than JSON
    jobs = planned(here)
    plan = Plan(read_experiment(ROOT / "params.yaml"))
    assert jobs["fetch"] == len(SOURCES)
    assert jobs["finetune"] == len(DATASETS)
    # five backbones that see the images, and the features given
    assert jobs["extract"] == 6 * len(DATASETS)
    assert jobs["cells"] == len(Batches(plan).all)
    assert sum(len(batch.cells) for batch in Batches(plan).all.values()) == len(plan.cells)
    assert jobs["tabulate"] == jobs["finish"] == len(plan.table_cells)
    assert jobs["describe_head"] == 3
    # finetuned features by two selections, five others by one, and ImageNet's own head
    assert jobs["train_head"] == len(DATASETS) * (2 + 5 + 1)


def test_imagenet_s_images_are_used_where_they_are(here, monkeypatch):
    monkeypatch.setenv("IMAGENET_VAL", str(here))
    plan = Plan(read_experiment(ROOT / "params.yaml"))
    assert {plan.test_dataset(cell) for cell in plan.table_cells["table3"]} == {"imagenet-val"}
    monkeypatch.setenv("IMAGENET_VAL", str(here / "nowhere"))
    plan = Plan(read_experiment(ROOT / "params.yaml"))
    assert {plan.test_dataset(cell) for cell in plan.table_cells["table3"]} == {None}
