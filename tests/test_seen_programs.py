"""Seen heads of several seeds as one program: each is the head that it is alone."""

import numpy as np
import pytest
import torch

from icis import layout, seen_programs
from icis.artifacts import read_metadata, read_table
from icis.base_classifier import TrainedHead, initial_weight, train_seen_head
from icis.errors import IcisError
from icis.seen_heads import load_seen_head
from icis.seen_programs import train_seen_heads
from icis.stages import train_head
from tests.devices import Watched
from tests.test_base_classifier import CLASSES, make_images, recipe
from tests.test_stages import plan as with_inputs

plan = with_inputs  # the fixture: artifacts made by hand
SEEDS = (3, 0, 7)


def assert_as_alone(found, alone):
    assert isinstance(found, TrainedHead), found
    assert found.epoch == alone.epoch
    assert found.selection_accuracy == alone.selection_accuracy
    np.testing.assert_allclose(found.loss, alone.loss, rtol=0, atol=1e-6)
    assert found.head.classes == alone.head.classes
    assert (found.head.joined() - alone.head.joined()).abs().max() < 1e-6


@pytest.mark.parametrize("selection", ["last", "holdout", "test_seen"])
@pytest.mark.parametrize("steps", [2, 512])
def test_each_head_is_as_alone(selection, steps, monkeypatch):
    """However many steps' row numbers go to the device at once."""
    monkeypatch.setattr(seen_programs, "STEPS", steps)
    images, others = make_images(60, spread=2.0), make_images(40, spread=2.0, seed=1)
    settings = recipe(selection=selection, epochs=6, batch_size=7, learning_rate=0.01)
    given = {"classes": CLASSES, "test_seen": others if selection == "test_seen" else None}
    found = train_seen_heads(images, settings, seeds=SEEDS, **given)
    assert {*found} == {*SEEDS}
    for seed in SEEDS:
        assert_as_alone(found[seed], train_seen_head(images, settings, seed=seed, **given))
    assert found[0].head.digest() != found[3].head.digest()


def test_a_seed_that_diverges_leaves_the_others_running(monkeypatch):
    def broken(classes, dim, seed):
        start = initial_weight(classes, dim, seed)
        return start.fill_(torch.nan) if seed == 0 else start

    monkeypatch.setattr(seen_programs, "initial_weight", broken)
    images, heard = make_images(), []
    found = train_seen_heads(images, recipe(), classes=CLASSES, seeds=SEEDS,
                             progress=lambda *each: heard.append(each))  # fmt: skip
    assert str(found[0]) == "seen head: the loss became nan in epoch 1"
    for seed in (3, 7):
        assert_as_alone(found[seed], train_seen_head(images, recipe(), classes=CLASSES, seed=seed))
    assert [epoch for epoch, _ in heard] == list(range(1, recipe().epochs + 1))


def test_no_images_are_refused():
    with pytest.raises(IcisError, match="there are none"):
        train_seen_heads(make_images(0), recipe(), classes=CLASSES, seeds=SEEDS)


def test_the_stage_writes_the_same_heads_and_trains_only_what_is_missing(plan, monkeypatch):
    place = next(iter(plan.cells))[:3]
    trained = []

    def recording(images, settings, *, seeds, **others):
        trained.append(seeds)
        return train_seen_heads(images, settings, seeds=seeds, **others)

    monkeypatch.setattr(train_head, "train_seen_heads", recording)
    train_head.run(plan, *place, device="cpu")
    assert trained == []
    path = layout.seen_heads(*place)
    alone = [load_seen_head(path, seed) for seed in (0, 1)]
    parts = sorted(path.with_suffix(".parts").glob("*.parquet"))
    assert len(parts) == 2
    monkeypatch.setenv("ICIS_TOGETHER", "1")
    for missing in (parts, parts[1:]):
        for part in missing:
            part.unlink()
        train_head.run(plan, *place, device="cpu")
        for seed, head in enumerate(alone):
            found = load_seen_head(path, seed)
            assert (found.joined() - head.joined()).abs().max() < 1e-6
    assert trained == [[0, 1], [1]]
    assert read_table(path).num_rows == 12
    assert [*read_metadata(path)["training"]] == ["0", "1"]


def test_the_stage_names_the_seed_that_diverged_and_keeps_the_other(plan, monkeypatch):
    place = next(iter(plan.cells))[:3]
    monkeypatch.setenv("ICIS_TOGETHER", "1")

    def broken(classes, dim, seed):
        start = initial_weight(classes, dim, seed)
        return start.fill_(torch.nan) if seed == 1 else start

    with monkeypatch.context() as patch:
        patch.setattr(seen_programs, "initial_weight", broken)
        with pytest.raises(IcisError, match="^seed 1: seen head: the loss became nan in epoch 1$"):
            train_head.run(plan, *place, device="cpu")
    folder = layout.seen_heads(*place).with_suffix(".parts")
    assert [part.name for part in folder.glob("*.parquet")] == ["seed-0.parquet"]


def test_a_step_stays_on_its_device_and_never_waits_for_it():
    images = torch.zeros(20, 7, device="meta"), torch.zeros(20, dtype=torch.long, device="meta")
    program = seen_programs._Program([images] * 3, recipe(), CLASSES, SEEDS, "meta")
    rows = torch.zeros(3, 5, dtype=torch.long, device="meta")
    with Watched():
        program.step(rows)
        program.step(rows)
