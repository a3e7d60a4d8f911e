"""Trainings that several cells begin with: done once, the same bits, and never trusted blindly."""

import threading

import pytest
import torch

from icis import layout
from icis.artifacts import read_frame
from icis.config import parse_experiment
from icis.methods import Mlp, Wdae
from icis.plan import Plan
from icis.scorers import load_scorers
from icis.stages import inject
from tests.pipeline import tiny
from tests.test_stages import plan as prepared

SMALL = {"hidden": 6, "max_epochs": 3, "learning_rate": 1e-3}
METHODS = {
    "mlp": {"method": "mlp", **SMALL},
    "wdae": {"method": "wdae", "mlp": SMALL, "max_epochs": 2, "neighbours": 3, "name": "wDAE"},
}

plan = prepared  # seen heads, descriptors and features on disk; the methods are ours


def planned(methods=METHODS, **table):
    experiment = tiny()
    experiment["methods"] = methods
    experiment["tables"]["main"] |= {"methods": list(methods), "figures": ["bars"], **table}
    return Plan(parse_experiment(experiment, source="here"))


@pytest.fixture
def trained(plan, monkeypatch):
    """Return the seeds whose MLP was trained, in the order of the trainings."""
    seeds, fit = [], Mlp.fit

    def counted(self, problem, *, seed, **rest):
        seeds.append(seed)
        return fit(self, problem, seed=seed, **rest)

    monkeypatch.setattr(Mlp, "fit", counted)
    return seeds


def injected(plan, key):
    """Return the files of a method's seeds."""
    (cell,) = (each for each in plan.cells.values() if each.method_key == key)
    files = sorted(layout.cell("tiny", *cell.key).glob("seed-*.safetensors"))
    assert len(files) == 2
    return files


def rows(plan, key):
    """Return the injected rows of a method's seeds."""
    return [load_scorers(file)[0]["joint"].joined() for file in injected(plan, key)]


def histories(plan, key):
    """Return the losses of a method's seeds, in the order in which they stand in the files."""
    return [read_frame(layout.history(file)).to_dicts() for file in injected(plan, key)]


def compute(plan, order):
    for key in order:
        (cell,) = (each for each in plan.cells.values() if each.method_key == key)
        inject.run(plan, cell, device="cpu")


def kept():
    return sorted((layout.results("tiny") / "trainings").rglob("*.safetensors"))


@pytest.fixture
def alone(trained, tmp_path, monkeypatch):
    """Return rows and losses of each method computed by itself, where nothing is shared."""
    found = {}
    for key, method in METHODS.items():
        single = planned({key: method})
        compute(single, [key])
        assert not kept()
        found[key] = rows(single, key)
        found[f"{key}'s losses"] = histories(single, key)
        layout.results("tiny").rename(tmp_path / f"alone-{key}")
    assert sorted(trained) == [0, 0, 1, 1]
    trained.clear()
    return found


@pytest.mark.parametrize("order", [("mlp", "wdae"), ("wdae", "mlp")])
def test_who_comes_first_trains_and_all_get_the_same_bits(trained, alone, order):
    both = planned()
    compute(both, order)
    assert sorted(trained) == [0, 1]
    assert len(kept()) == 2
    for key in METHODS:
        torch.testing.assert_close(rows(both, key), alone[key], rtol=0, atol=0)
        assert histories(both, key) == alone[f"{key}'s losses"]


def test_a_rescaled_row_begins_with_the_same_training(trained, alone):
    both = planned(rescale="gzsl")
    compute(both, ("wdae", "mlp"))
    assert sorted(trained) == [0, 1]
    (found, _), (expected, _) = rows(both, "mlp"), alone["mlp"]
    factor = (expected[6:] / found[6:]).mean()
    assert float(factor) != pytest.approx(1, rel=1e-3)
    torch.testing.assert_close(found[6:] * factor, expected[6:])


def test_damaged_or_of_other_settings_it_is_trained_again(trained, alone):
    both = planned()
    compute(both, ("mlp",))
    first, second = kept()
    first.write_bytes(first.read_bytes()[:-9])
    second.write_bytes(b"")
    compute(both, ("wdae",))
    assert sorted(trained) == [0, 0, 1, 1]
    torch.testing.assert_close(rows(both, "wdae"), alone["wdae"], rtol=0, atol=0)
    changed = {key: {**METHODS[key]} for key in METHODS}
    changed["mlp"]["batch_size"] = 2
    changed["wdae"]["mlp"] = {**SMALL, "batch_size": 2}
    compute(planned(changed), ("mlp", "wdae"))
    assert sorted(trained) == [0, 0, 0, 1, 1, 1]


def test_what_nobody_else_begins_with_is_not_kept(trained):
    compute(planned({"mlp": METHODS["mlp"], "costa": {"method": "costa"}}), ("mlp", "costa"))
    other = {**METHODS["wdae"], "mlp": {**SMALL, "max_epochs": 2}}
    compute(planned({"mlp": METHODS["mlp"], "wdae": other}), ("wdae",))
    assert not kept()


def test_large_trainings_follow_one_another_with_all_threads(plan, monkeypatch):
    """Small steps gain from running at once; wDAE's products fill the cores, its tensors memory."""
    found, refined = {}, Wdae.refined

    def noted(self, *arguments, **rest):
        found[rest["seed"]] = threading.current_thread(), torch.get_num_threads()
        return refined(self, *arguments, **rest)

    before = torch.get_num_threads()
    monkeypatch.setattr(Wdae, "refined", noted)
    torch.set_num_threads(2)
    try:
        compute(planned({"wdae": METHODS["wdae"]}), ["wdae"])
    finally:
        torch.set_num_threads(before)
    assert found == {seed: (threading.main_thread(), 2) for seed in (0, 1)}
