"""The benchmark suite itself: every side of it runs on small shapes, and its sums are right."""

import json
import math

import pytest

from benchmarks import agreement, cases, growth, shown, speed, turns, whole
from benchmarks.shapes import AWA2, SHAPES, Shape

TINY = Shape("tiny", 13, 5, 7, 60, 30, 30, batch_size=5, dim=10, hidden=8)

MACHINE = {
    "processor": "p", "cores": 2, "threads": 2, "load_before": 0.0, "python": "3", "torch": "2",
}  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [
        lambda: cases.injection(TINY, 2),
        lambda: cases.seeds_together(TINY, 1),
        lambda: cases.seen_heads(TINY, 2),
        lambda: cases.evaluation(TINY, 2),
        lambda: cases.reading(TINY),
    ],
    ids=["injection", "seeds", "heads", "evaluation", "reading"],
)
def test_all_sides_of_a_case_run(make):
    found = turns.take_turns(make(), 2)
    assert next(iter(found)) == "ours"
    assert len(found) >= 2
    assert all(len(values) == 2 and min(values) > 0 for values in found.values())


def test_every_part_of_the_tables_has_both_sides():
    shape = Shape("tiny", 12, 5, 7, 60, 30, 30, batch_size=5, dim=12)
    works = whole.parts(shape)
    assert {*works} == {"seen head", "SMO", "evaluation", whole.GRAPH, *whole.TRAINED}
    for sides in works.values():
        assert {side: work() > 0 for side, work in sides.items()} == {"ours": True, "plain": True}


def test_the_shapes_are_those_of_the_split_files():
    assert {each.name: (each.seen, each.unseen, each.components) for each in SHAPES} == {
        "CUB": (150, 50, 312), "AWA2": (40, 10, 85), "SUN": (645, 72, 102),
    }  # fmt: skip
    assert (AWA2.trainval, AWA2.test_seen, AWA2.test_unseen) == (23527, 5882, 7913)


class Clock:
    """A clock that stands still unless it is moved."""

    now = 0.0

    def __call__(self):
        return self.now

    def training(self, *lengths):
        """Return a training whose first length is its start, then those of its epochs."""

        def train(progress):
            for epoch, length in enumerate(lengths):
                self.now += length
                if epoch:
                    progress(epoch, 0.0)

        return train


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    monkeypatch.setattr("time.perf_counter", found)
    return found


def test_the_first_epoch_is_left_out(clock):
    assert turns.epoch_seconds(clock.training(7, 9, 2, 4)) == 3
    assert turns.epoch_seconds(clock.training(7, 9, 9, 2, 4), skip=2) == 3


def test_a_whole_training_is_start_and_first_epoch_and_the_others(clock):
    assert whole.extrapolated(clock.training(7, 9, 2, 4), 10) == 7 + 9 + 9 * 3


def test_sides_begin_in_turn():
    order = []
    works = {name: lambda name=name: order.append(name) or 1.0 for name in "abc"}
    assert turns.take_turns(works, 3, warm_up=False) == {name: [1.0] * 3 for name in "abc"}
    assert order == [*"abc", *"bca", *"cab"]


@pytest.mark.parametrize(
    ("bound", "target", "ratio", "met"),
    [("at least", 3, 4, True), ("at least", 5, 4, False), ("at most", 0.3, 0.25, True),
     ("at most", 0.2, 0.25, False), ("seconds", 2, 0.25, True), ("seconds", 0.5, 0.25, False)],
)  # fmt: skip
def test_ratio_and_target(bound, target, ratio, met):
    case = turns.Case("part", "name", "s", lambda: {"ours": lambda: 1.0, "plain": lambda: 4.0},
                      bound, target, memory=False)  # fmt: skip
    result = turns.measure(case, 3, quick=True)
    assert result["ratio"]["median"] == ratio
    text = shown.markdown({"machine": MACHINE, "rounds": 3, "cases": [result]})
    assert (": met" if met else ": missed") in text


def test_memory_is_that_of_the_work_alone():
    def work():
        return float(bytearray(40 * 2**20)[-1])

    bytearray(400 * 2**20)  # the inputs' making, which is over
    found = turns.own_memory(work)
    assert 30 < found["peak_mib"] - found["before_mib"] < 200


def test_a_finished_run_is_shown_from_its_file(tmp_path, monkeypatch):
    sides = {"ours": lambda: 2.0, "bare": lambda: 1.0, "also": lambda: 3.0}
    case = turns.Case("reading", "name", "s", lambda: sides, "at most", 3, memory=False)
    monkeypatch.setattr(speed, "cases", lambda quick: [case])
    found = speed.run(["reading"], quick=False, rounds=2, output=tmp_path)
    text = shown.markdown(json.loads((tmp_path / "speed.json").read_text()))
    assert text == shown.markdown(found)
    assert "2 (2–2)" in text
    assert "≤ 3: met" in text


def test_hours_of_the_tables():
    def part(ours, plain):
        return {"ours": [ours] * 2, "plain": [plain] * 2}

    one = {"seen head": part(10, 40), "MLP": part(5, 20), "ICIS": part(7, 21),
           whole.GRAPH: part(100, 150)}  # fmt: skip
    hours = whole.totals({"A": one, "B": one}, 2)
    scale = 2 * whole.SEEDS / 3600
    expected = {
        "all": (10 + 2 * 5 + 7 + 100, 40 + 2 * 20 + 21 + 150),
        "all but the graph network": (27, 101),
        "all, nothing shared by plain": (122, 12 * 40 + 40 + 42 + 150),
    }
    assert {*hours} == {*expected}
    for kind, (ours, plain) in expected.items():
        assert math.isclose(hours[kind]["ours"]["median"], scale * ours)
        assert math.isclose(hours[kind]["plain"]["median"], scale * plain)
        assert math.isclose(hours[kind]["ratio"]["median"], plain / ours)
    tables = {"epochs": {"MLP": 9}, "target": 3, "hours": hours, "seconds_a_seed": {"A": one}}
    text = shown.markdown({"machine": MACHINE, "rounds": 2, "cases": [], "tables": tables})
    assert text.count("≥ 3: met") == 2  # 101 / 27 and 712 / 122, but not 251 / 127
    assert text.count("≥ 3: missed") == 1
    assert "5 / 20" in text


def test_growth_is_drawn(tmp_path):
    def point(value):
        return {
            "value": value,
            **{side: turns.spread([value, 2.0 * value]) for side in growth.COLOURS},
        }

    found = {axis: [point(value) for value in values] for axis, (_, values) in growth.AXES.items()}
    growth.draw(found, tmp_path / "growth.png")
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    text = shown.markdown({"machine": MACHINE, "rounds": 2, "cases": [], "growth": found})
    assert all(f"| {value} " in text for _, values in growth.AXES.values() for value in values)


def test_difference_in_standard_errors():
    found = agreement.compared([1.0, 2.0, 3.0], [4.0, 6.0, 8.0])
    assert (found["ours"]["mean"], found["plain"]["std"]) == (2, 2)
    assert found["standard_errors"] == pytest.approx(-4 / math.sqrt(1 / 3 + 4 / 3))
