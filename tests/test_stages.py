"""Stages run in this process, on artifacts made by hand."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch

from icis import layout
from icis.artifacts import read_frame, read_metadata, vector_column, write_table
from icis.batches import Batches
from icis.calibration import FACTORS
from icis.config import parse_experiment
from icis.errors import IcisError
from icis.heads import Head
from icis.plan import Plan
from icis.seen_heads import head_table
from icis.stages import evaluate, finish, inject, tabulate
from icis.workflow import Workflow
from tests.pipeline import tiny

SEEN, UNSEEN = ("s0", "s1", "s2", "s3", "s4", "s5"), ("u0", "u1")
CLASSES = {"names": [*SEEN, *UNSEEN], "is_seen": [True] * 6 + [False] * 2}
ABOUT = {
    "sources": {"file": "0" * 64}, "split_version": "mine", "classes": CLASSES,
    "backbone_selection": "as it is",
}  # fmt: skip


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Return a plan whose seen heads, descriptors and features are on disk."""
    monkeypatch.chdir(tmp_path)
    experiment = tiny()
    experiment["methods"] = {
        "bad": {"method": "conse", "top": 99, "name": "bad"},
        "costa": {"method": "costa", "name": "COSTA"},
    }
    experiment["tables"]["main"] |= {
        "methods": ["bad", "costa"], "figures": ["bars", "curve", "classes"],
    }  # fmt: skip
    plan = Plan(parse_experiment(experiment, source="here"))
    rng = np.random.default_rng(0)
    weights = torch.from_numpy(rng.normal(size=(2, 6, 5)).astype(np.float32))
    place = next(iter(plan.cells))
    table = pa.concat_tables(
        [head_table(Head(weights[s], torch.zeros(6), SEEN), s) for s in (0, 1)]
    )
    training = {str(seed): {"epoch": 5, "selection": "last of 5 epochs"} for seed in (0, 1)}
    write_table(layout.seen_heads(*place[:3]), table, {**ABOUT, "training": training})
    vectors = np.abs(rng.normal(size=(8, 4))).astype(np.float32)
    described = pl.DataFrame(
        {"id": range(8), "class": CLASSES["names"], "seen": CLASSES["is_seen"]}
    )
    described = described.to_arrow().append_column("vector", vector_column(vectors))
    write_table(layout.descriptors("drawn", "att"), described, ABOUT)
    rows = [(f"{split}-{name}-{i}", name, split)
            for split, names in (("trainval", SEEN), ("test_seen", SEEN), ("test_unseen", UNSEEN))
            for name in names for i in range(3)]  # fmt: skip
    frame = pl.DataFrame(rows, schema=["image", "class", "split"], orient="row").to_arrow()
    pictures = rng.normal(size=(len(rows), 5)).astype(np.float32)
    frame = frame.append_column("vector", vector_column(pictures))
    write_table(layout.features("drawn", "small"), frame, ABOUT)
    return plan


def run_cells(plan):
    for cell in plan.cells.values():
        inject.run(plan, cell, device="cpu")
        evaluate.run(plan, cell, device="cpu")


def test_a_failing_method_is_a_failed_row_of_a_whole_table(plan):
    run_cells(plan)
    for kind in plan.experiment.tables["main"].figures:
        tabulate.plot(plan, "main", kind)
    tabulate.run(plan, "main")
    text = layout.table("tiny", "main", "csv").read_text()
    lines = text.splitlines()
    assert "failed" in next(line for line in lines if line.startswith("bad"))
    assert "failed" not in next(line for line in lines if line.startswith("COSTA"))
    with pytest.raises(
        IcisError,
        match="(?s)1 of the rows.*conse/top-99, 2 seeds: seed 0: .*top is 99",
    ):
        finish.run(plan, "main")
    assert not layout.complete("tiny", "main").exists()


def test_a_page_is_the_same_bytes_twice(plan):
    run_cells(plan)
    pages = []
    for _ in range(2):
        for kind in plan.experiment.tables["main"].figures:
            tabulate.plot(plan, "main", kind)
        tabulate.run(plan, "main")
        pages.append(layout.table("tiny", "main", "html").read_bytes())
    assert pages[0] == pages[1]
    assert pages[0].count(b"<figure") == 3


def test_a_head_that_gives_no_finite_scores_fails_in_evaluation(plan):
    features = layout.features("drawn", "small")
    frame = read_frame(features)
    run_cells(plan)
    cell = next(cell for cell in plan.cells.values() if cell.method.method == "costa")
    huge = np.full((len(frame), 5), 3e38, dtype=np.float32)
    table = frame.select("image", "class", "split").to_arrow()
    write_table(features, table.append_column("vector", vector_column(huge)), ABOUT)
    evaluate.run(plan, cell, device="cpu")
    rows = read_frame(layout.cell_metrics("tiny", *cell.key))
    assert rows["metric"].to_list() == ["failed", "failed"]
    assert "NaN or infinite" in rows["problem"][0]
    assert "logs/tiny/evaluate" in rows["problem"][0]
    count = layout.failures("tiny", *cell.key)
    assert count.read_text() == "1"
    evaluate.run(plan, cell, device="cpu")
    assert count.read_text() == "2"


def test_an_unexpected_error_is_a_failed_row_too(plan, monkeypatch):
    cell = next(cell for cell in plan.cells.values() if cell.method.method == "costa")

    def broken(self, problem, **_):
        if problem.truth is None:
            raise ZeroDivisionError("by nothing")
        raise AssertionError("not reached: the seed failed before")

    monkeypatch.setattr(type(cell.method), "inject", broken)
    inject.run(plan, cell, device="cpu")
    manifest = json.loads(layout.injection("tiny", *cell.key).read_text())
    assert manifest["seeds"] == {}
    assert manifest["failed"]["0"]["reason"] == "seed 0: ZeroDivisionError: by nothing"
    evaluate.run(plan, cell, device="cpu")
    assert read_metadata(layout.cell_metrics("tiny", *cell.key))["cell"] == cell.id


def test_each_failure_makes_its_cell_stale_once_more(plan):
    flow = Workflow(plan.experiment.identity(), "here")
    flow.batches = Batches(flow.plan, 1)
    places = {}
    for each in flow.batches.all.values():
        names = ("dataset", "backbone", "head", "descriptor", "number")
        place = SimpleNamespace(**dict(zip(names, each.names, strict=True)))
        places[each.cells[0].method.method] = place

    def states():
        return {name: flow.batch_state(place) for name, place in places.items()}

    before = states()
    run_cells(plan)
    after = states()
    assert before["costa"] == after["costa"]
    assert before["conse"] != after["conse"]
    assert states() == after


@pytest.mark.parametrize("error", [IcisError("it cannot be"), RuntimeError("a fault")])
def test_a_failure_with_held_out_classes_costs_the_diagnostics_only(plan, monkeypatch, error):
    other = showing(plan, ["T1", "H_cal"])
    cell = next(cell for cell in other.cells.values() if cell.method.method == "costa")
    whole = type(cell.method).inject

    def broken(self, problem, **settings):
        if problem.truth is not None:
            raise error
        return whole(self, problem, **settings)

    monkeypatch.setattr(type(cell.method), "inject", broken)
    inject.run(other, cell, device="cpu")
    evaluate.run(other, cell, device="cpu")
    found = read_frame(layout.cell_metrics("tiny", *cell.key))["metric"].to_list()
    assert found.count("T1") == 2
    assert "H_cal" not in found
    assert "failed" not in found


def test_held_out_scores_that_are_no_numbers_cost_the_offset_only(plan, monkeypatch):
    other = showing(plan, ["T1", "H_cal"])
    cell = next(cell for cell in other.cells.values() if cell.method.method == "costa")
    whole = type(cell.method).inject

    def endless(self, problem, **settings):
        injection = whole(self, problem, **settings)
        if problem.truth is None:
            return injection
        joint = Head(injection.joint.weight * 3e38, injection.joint.bias, injection.joint.classes)
        return replace(injection, joint=joint)

    monkeypatch.setattr(type(cell.method), "inject", endless)
    inject.run(other, cell, device="cpu")
    evaluate.run(other, cell, device="cpu")
    found = read_frame(layout.cell_metrics("tiny", *cell.key))["metric"].to_list()
    assert found.count("T1") == 2
    assert "H_cal" not in found


def showing(plan, metrics):
    experiment = json.loads(json.dumps(plan.experiment.identity()))
    experiment["tables"]["main"]["metrics"] = metrics
    return Plan(parse_experiment(experiment, source="here"))


def test_held_out_classes_are_for_tables_that_show_them(plan):
    cell = next(cell for cell in plan.cells.values() if cell.method.method == "costa")
    inject.run(plan, cell, device="cpu")
    folder = layout.cell("tiny", *cell.key)
    assert not list(folder.glob("held-out-*"))
    other = showing(plan, ["T1", "held_out_cosine"])
    before = (folder / "seed-0.safetensors").stat().st_mtime_ns
    cell = other.cells[cell.key]
    inject.run(other, cell, device="cpu")
    assert [path.name for path in folder.glob("held-out-*.safetensors")] == [
        "held-out-0.safetensors"
    ]
    assert (folder / "seed-0.safetensors").stat().st_mtime_ns == before
    evaluate.run(other, cell, device="cpu")
    rows = read_frame(layout.cell_metrics("tiny", *cell.key))
    [cosine] = rows.filter(metric="held_out_cosine")["value"]
    assert -1 <= cosine <= 1
    assert len(rows.filter(metric="H_cal")) == 2
    [factor] = rows.filter(metric="norm_factor")["value"].unique()
    assert factor in FACTORS
    assert len(rows.filter(metric="H_norm")) == 2


@pytest.mark.parametrize("act", [
    lambda plan: tabulate.run(plan, "mian"),
    lambda plan: tabulate.plot(plan, "mian", "bars"),
    lambda plan: finish.run(plan, "mian"),
])  # fmt: skip
def test_a_table_that_is_not_there_is_named_with_the_nearest(plan, act):
    with pytest.raises(IcisError, match="there is no table 'mian'; did you mean 'main'?"):
        act(plan)
