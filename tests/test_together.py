"""What a GPU does, on the CPU: the trainings of a job as one program, each kept when it ends."""

import json
import math

import numpy as np
import pytest

from icis import layout
from icis.artifacts import read_frame
from icis.batches import Batches
from icis.errors import IcisError
from icis.methods.encoders import Course
from icis.methods.ensemble import train_together
from icis.methods.icis import Icis
from icis.scorers import load_scorers
from icis.stages import batch, evaluate, inject
from icis.stages.common import trains_together
from tests.test_batches import METHODS, SHORT, changed_plan
from tests.test_stages import plan as with_inputs

plan = with_inputs  # the fixture: artifacts made by hand
TRAINED = {"subreg", "mlp", "mlp-l2", "icis", "icis-cross"}
ALL = METHODS | {
    "mlp-l2": {"method": "mlp", **SHORT, "distance": "cosine"},
    "icis-cross": {"method": "icis", **SHORT, "unseen_descriptors": False, "max_epochs": 4},
}


@pytest.fixture
def made(plan, monkeypatch):
    """Return a plan whose cells are trained together, and with held-out classes too."""
    monkeypatch.setenv("ICIS_TOGETHER", "1")
    return changed_plan(ALL, main={"metrics": ["T1", "H_cal"]})


@pytest.fixture
def trained(monkeypatch):
    """Record the tasks of each program."""
    programs = []

    def recording(tasks, **settings):
        programs.append([task.label for task in tasks])
        train_together(tasks, **settings)

    monkeypatch.setattr("icis.methods.ensemble.train_together", recording)
    return programs


def heads(cells):
    found = {}
    for cell in cells:
        for path in layout.cell("tiny", *cell.key).glob("*.safetensors"):
            scorers, about = load_scorers(path)
            history = read_frame(layout.history(path))
            found[cell.stem, path.name] = scorers, about, history
    return found


def assert_nearly_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, (scorers, about, history) in expected.items():
        others, about_others, course = found[name]
        assert about_others.keys() == about.keys()
        assert about_others["key"] == about["key"]
        assert about_others["epochs"] == about["epochs"]
        assert history.drop("value").equals(course.drop("value"))
        np.testing.assert_allclose(course["value"], history["value"], rtol=0, atol=1e-6)
        for role, scorer in scorers.items():
            if hasattr(scorer, "joined"):
                assert (others[role].joined() - scorer.joined()).abs().max() < 1e-6


def remove(cells):
    for path in layout.cell("tiny", *cells[0].key).parent.rglob("*"):
        if path.is_file():
            path.unlink()


def metrics(cells):
    return {cell.stem: read_frame(layout.cell_metrics("tiny", *cell.key)) for cell in cells}


def test_a_batch_as_one_program_stores_what_its_cells_store_alone(made, trained, monkeypatch):
    cells = list(made.cells.values())
    [only] = Batches(made, len(cells)).all.values()
    batch.run(made, only, device="cpu")
    assert len(trained) == 1
    stems = {cell.stem for cell in cells if cell.method.batched}
    seeds = ("seed-0", "seed-1", "held-out-0")
    assert sorted(trained[0]) == sorted(f"{stem}, {seed}" for stem in stems for seed in seeds)
    in_batch, numbers = heads(cells), metrics(cells)

    remove(cells)
    for cell in cells:
        inject.run(made, cell, device="cpu")
    assert [len(labels) for labels in trained[1:]] == [3] * len(TRAINED)
    assert_nearly_equal(heads(cells), in_batch)

    remove(cells)
    monkeypatch.setenv("ICIS_TOGETHER", "0")
    count = len(trained)
    for cell in cells:
        inject.run(made, cell, device="cpu")
        evaluate.run(made, cell, device="cpu")
    assert len(trained) == count
    assert_nearly_equal(heads(cells), in_batch)
    for stem, frame in metrics(cells).items():
        accuracies = frame["metric"].is_in(["T1", "U", "S", "H", "epochs"])
        assert accuracies.any()
        assert frame.filter(accuracies).equals(numbers[stem].filter(accuracies))


def test_a_killed_program_goes_on_with_what_is_missing(made, trained, monkeypatch):
    cells = [cell for cell in made.cells.values() if cell.method.batched]
    [only] = Batches(made, 99).all.values()
    whole, saved = inject._Maker.save, []

    def killed(self, job, injection):
        if len(saved) == 4:
            raise KeyboardInterrupt
        saved.append(job.path)
        whole(self, job, injection)

    with monkeypatch.context() as patch:
        patch.setattr(inject._Maker, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            batch.run(made, only, device="cpu")
    kept = {path: path.stat().st_mtime_ns for path in saved}
    batch.run(made, only, device="cpu")
    assert [len(labels) for labels in trained] == [15, 11]
    assert {path: path.stat().st_mtime_ns for path in saved} == kept
    assert len(heads(cells)) == 15


def test_a_training_that_fails_is_a_failed_row_and_not_tried_twice(made, trained, monkeypatch):
    whole = Course.add

    def broken(self, means):
        is_icis = self.max_epochs == 4
        return whole(self, means | {"loss": math.nan} if is_icis else means)

    monkeypatch.setattr(Course, "add", broken)
    monkeypatch.setattr(Icis, "fit", lambda *_, **__: pytest.fail("tried again"))
    [only] = Batches(made, 99).all.values()
    batch.run(made, only, device="cpu")
    for cell in only.cells:
        manifest = json.loads(layout.injection("tiny", *cell.key).read_text())
        if cell.method.method == "icis" and not cell.method.unseen_descriptors:
            reason = "the loss became nan in epoch 1: lower the learning rate"
            assert manifest["seeds"] == {}
            assert manifest["failed"]["1"]["reason"] == f"seed 1: {reason}"
            assert "cells" in manifest["failed"]["1"]["log"]
        else:
            assert manifest["failed"] == {}


def test_a_missing_input_is_named_as_it_is_alone(made, trained):
    cell = next(cell for cell in made.cells.values() if cell.method.batched)
    layout.seen_heads(*cell.key[:3]).unlink()
    with pytest.raises(IcisError, match="linear-last"):
        inject.run(made, cell, device="cpu")
    assert trained == []


@pytest.mark.parametrize(
    ("wanted", "device", "together"),
    [("", "cpu", False), ("", "cuda:1", True), ("1", "cpu", True), ("0", "cuda", False)],
)
def test_a_gpu_trains_together_and_the_cpu_does_not(wanted, device, together, monkeypatch):
    monkeypatch.setenv("ICIS_TOGETHER", wanted)
    assert trains_together(device) == together


def test_a_wrong_switch_is_refused(monkeypatch):
    monkeypatch.setenv("ICIS_TOGETHER", "yes")
    with pytest.raises(IcisError, match="ICIS_TOGETHER is 'yes'"):
        trains_together("cpu")
