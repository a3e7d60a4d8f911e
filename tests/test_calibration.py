"""The seen-unseen curve against adding the offset to every score and predicting anew."""

import math

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from icis import evaluation
from icis.calibration import (
    FACTORS,
    Contest,
    Rivals,
    at_factor,
    at_offset,
    ausuc,
    best_factor,
    best_offset,
    class_accuracies,
    seen_unseen_curve,
    thin,
)
from icis.errors import IcisError
from icis.evaluation import evaluate, examine, predict
from icis.heads import Head
from icis.metrics import LabelledFeatures, harmonic_mean, per_class_accuracy

SEEN, UNSEEN = ("bat", "wolf", "seal"), ("zebra", "ant")
COLUMNS = len(SEEN) + len(UNSEEN)


def is_seen_of(seen, unseen):
    return torch.tensor([True] * seen + [False] * unseen)


@st.composite
def problems(draw):
    """Draw scores of both kinds of images: eighths, so that offsets are exact and ties happen."""
    seen, unseen = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    score = st.integers(-6, 6).map(lambda value: value / 8)

    def images(first, last):
        row = st.tuples(
            st.lists(score, min_size=seen + unseen, max_size=seen + unseen),
            st.integers(first, last),
        )
        drawn = draw(st.lists(row, min_size=1, max_size=12))
        scores, target = zip(*drawn, strict=True)
        return torch.tensor(scores), torch.tensor(target)

    return is_seen_of(seen, unseen), images(0, seen - 1), images(seen, seen + unseen - 1)


def curve_of(is_seen, on_seen, on_unseen):
    return seen_unseen_curve(
        Rivals.of(on_seen[0], is_seen), on_seen[1], Rivals.of(on_unseen[0], is_seen), on_unseen[1]
    )


def brute(is_seen, images, offset):
    """Return the per-class accuracy with the offset taken off the seen columns, argmax anew."""
    scores = images[0].double() - offset * is_seen.double()
    return per_class_accuracy(scores.argmax(dim=1), images[1])


OFFSETS = [each / 16 for each in range(-60, 61)]


def contest_of(is_seen, on_seen, on_unseen):
    return Contest(
        Rivals.of(on_seen[0], is_seen), on_seen[1], Rivals.of(on_unseen[0], is_seen), on_unseen[1]
    )


def brute_factor(is_seen, images, factor):
    """Return the per-class accuracy with the unseen columns multiplied, argmax anew."""
    scores = torch.where(is_seen, images[0], images[0] * factor)
    return per_class_accuracy(scores.argmax(dim=1), images[1])


@settings(deadline=None, max_examples=60)
@given(problems())
def test_every_factor_gives_what_predicting_anew_gives(drawn):
    is_seen, on_seen, on_unseen = drawn
    contest, means = contest_of(*drawn), {}
    for factor in FACTORS:
        parts = (brute_factor(is_seen, images, factor) for images in (on_seen, on_unseen))
        seen, unseen = parts
        means[factor] = harmonic_mean(seen, unseen)
        assert at_factor(contest, factor) == pytest.approx((seen, unseen, means[factor]), abs=1e-9)
    best = best_factor([contest])
    assert means[best] == pytest.approx(max(means.values()), abs=1e-9)
    nearer = [each for each in FACTORS if abs(math.log(each)) < abs(math.log(best)) - 1e-9]
    assert all(means[each] < means[best] for each in nearer)


def test_the_factor_of_several_contests_has_the_best_mean():
    """Images of one seen and one unseen class; the first contest asks for more than 4, or 2."""
    is_seen = is_seen_of(1, 1)

    def contest(unseen_scores, seen_score):
        on_unseen = torch.tensor([[1.0, score] for score in unseen_scores])
        on_seen = torch.tensor([[1.0, seen_score]])
        zeros = torch.zeros(1, dtype=torch.long)
        return contest_of(is_seen, (on_seen, zeros), (on_unseen, torch.ones(2, dtype=torch.long)))

    greedy, modest = contest([0.45, 0.2], 0.01), contest([0.45, 0.45], 0.22)
    assert best_factor([greedy]) == pytest.approx(2 ** (10 / 4))  # 5.66, the first above 5
    assert best_factor([modest]) == pytest.approx(2 ** (5 / 4))  # 2.38, the first above 1 / 0.45
    # at 2.38 the mean H is (66.7 + 100) / 2, at 5.66 it is (100 + 0) / 2
    assert best_factor([greedy, modest]) == pytest.approx(2 ** (5 / 4))


def test_what_is_no_factor():
    contest = contest_of(
        is_seen_of(1, 1),
        (torch.tensor([[1.0, 0.0]]), torch.tensor([0])),
        (torch.tensor([[1.0, 0.0]]), torch.tensor([1])),
    )
    for factor in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(IcisError, match="a number above 0"):
            at_factor(contest, factor)
    with pytest.raises(IcisError, match="no contest"):
        best_factor([])


@settings(deadline=None, max_examples=60)
@given(problems())
def test_every_offset_gives_what_predicting_anew_gives(drawn):
    is_seen, on_seen, on_unseen = drawn
    curve = curve_of(*drawn)
    best = 0.0
    for offset in OFFSETS:
        expected = brute(is_seen, on_seen, offset), brute(is_seen, on_unseen, offset)
        found = at_offset(curve, offset)
        assert found[:2] == pytest.approx(expected, abs=1e-9)
        assert found[2] == pytest.approx(harmonic_mean(*expected), abs=1e-9)
        best = max(best, found[2])
    assert at_offset(curve, best_offset(curve))[2] == pytest.approx(best, abs=1e-9)


@settings(deadline=None, max_examples=60)
@given(problems())
def test_the_curves_points_are_those_of_its_offsets_and_no_others(drawn):
    is_seen, on_seen, on_unseen = drawn
    curve = curve_of(*drawn)
    reached = {
        (round(brute(is_seen, on_seen, offset), 6), round(brute(is_seen, on_unseen, offset), 6))
        for offset in OFFSETS
    }
    points = curve.select("seen", "unseen").rows()
    assert {(round(seen, 6), round(unseen, 6)) for seen, unseen in points} == reached
    assert len(points) == len(reached)
    assert curve["offset"].is_sorted()
    assert curve["offset"][-1] == math.inf


@settings(deadline=None, max_examples=60)
@given(problems())
def test_the_curve_falls_from_all_seen_to_all_unseen(drawn):
    is_seen, on_seen, on_unseen = drawn
    curve = curve_of(*drawn)
    assert (np.diff(curve["seen"]) <= 0).all()
    assert (np.diff(curve["unseen"]) >= 0).all()
    assert curve["unseen"][0] == 0
    assert curve["seen"][-1] == 0
    assert curve["seen"][0] == pytest.approx(brute(is_seen, on_seen, -1e6))
    assert curve["unseen"][-1] == pytest.approx(brute(is_seen, on_unseen, 1e6))
    assert -1e-9 <= ausuc(curve) <= curve["seen"][0] * curve["unseen"][-1] / 100 + 1e-9


def rivals(margins, right=True):
    """Return the rivals of images of a data set with one seen (0) and one unseen class (1)."""
    count = len(margins)
    return Rivals(
        torch.full((count,), 0 if right else 5),
        torch.full((count,), 1 if right else 5),
        torch.tensor(margins),
        torch.zeros(count),
    )


def curve_of_margins(seen, unseen):
    return seen_unseen_curve(
        rivals(seen),
        torch.zeros(len(seen), dtype=int),
        rivals(unseen),
        torch.ones(len(unseen), dtype=int),
    )


def test_perfect_separation_fills_the_square():
    curve = curve_of_margins([5.0, 3.0, 4.0], [1.0, 2.0])
    assert ausuc(curve) == pytest.approx(100)
    assert at_offset(curve, 2.5) == pytest.approx((100, 100, 100))
    assert best_offset(curve) == pytest.approx(2.5)


def test_the_wrong_way_round_leaves_nothing():
    curve = curve_of_margins([1.0, 2.0], [3.0, 4.0])
    assert ausuc(curve) == 0
    assert best_offset(curve) == 0.0


def test_margins_that_tell_nothing_leave_half():
    assert ausuc(curve_of_margins([1.0], [1.0])) == pytest.approx(50)
    assert ausuc(curve_of_margins([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])) == pytest.approx(50)
    generator = torch.Generator().manual_seed(0)
    seen, unseen = torch.randn(2, 4000, generator=generator).tolist()
    assert ausuc(curve_of_margins(seen, unseen)) == pytest.approx(50, abs=2)


def test_a_staircase_by_hand():
    """Margins in order: unseen, seen, unseen, seen; so S is 100, 100, 50, 50, 0."""
    curve = curve_of_margins([2.0, 4.0], [1.0, 3.0])
    assert curve.rows() == [
        (1, 100, 0),
        (2, 100, 50),
        (3, 50, 50),
        (4, 50, 100),
        (math.inf, 0, 100),
    ]
    assert ausuc(curve) == pytest.approx(75)
    assert at_offset(curve, 2.0)[:2] == (100, 50)
    assert at_offset(curve, 2.001)[:2] == (50, 50)


def test_images_that_are_wrong_anyway_count_for_nothing():
    seen = seen_unseen_curve(
        rivals([1.0, 2.0], right=False),
        torch.zeros(2, dtype=int),
        rivals([0.0]),
        torch.ones(1, dtype=int),
    )
    assert seen["seen"].to_list() == [0, 0]
    assert ausuc(seen) == 0


def test_of_equally_good_offsets_the_nearest_to_zero_is_taken():
    curve = pl.DataFrame(
        {
            "offset": [-9.0, -5.0, -1.0, 1.0, math.inf],
            "seen": [90.0, 80.0, 60.0, 40.0, 0.0],
            "unseen": [0.0, 40.0, 40.0, 80.0, 90.0],
        }
    )
    assert best_offset(curve) == 0.0  # (80, 40) for (-9, -5], (40, 80) for (-1, 1]


def test_neighbouring_floats_leave_an_offset_between_them():
    low = 1.0
    high = math.nextafter(low, 2)
    curve = pl.DataFrame(
        {"offset": [low, high, math.inf], "seen": [9.0, 9.0, 0.0], "unseen": [0.0, 9.0, 9.0]}
    )
    assert at_offset(curve, best_offset(curve)) == (9, 9, 9)


def test_what_makes_no_curve_is_refused():
    with pytest.raises(IcisError, match="needs test images"):
        curve_of_margins([], [1.0])
    curve = curve_of_margins([1.0], [1.0])
    with pytest.raises(IcisError, match="not a number"):
        at_offset(curve, math.nan)
    with pytest.raises(IcisError, match="two ends"):
        thin(curve, 1)


# --- thinning ---------------------------------------------------------------------------------


def test_a_short_curve_stays_whole():
    curve = curve_of_margins([2.0, 4.0], [1.0, 3.0])
    assert thin(curve).equals(curve)


@pytest.mark.parametrize("points", [2, 3, 50, 200])
def test_a_thinned_curve_keeps_its_ends_and_nearly_its_area(points):
    generator = torch.Generator().manual_seed(3)
    seen, unseen = torch.randn(2, 2000, generator=generator)
    curve = curve_of_margins((seen + 1).tolist(), unseen.tolist())
    thinned = thin(curve, points)
    assert len(thinned) <= points
    assert thinned.schema == dict.fromkeys(("offset", "seen", "unseen"), pl.Float64)
    assert thinned.row(0) == curve.row(0)
    assert thinned.row(-1) == curve.row(-1)
    assert set(thinned.rows()) <= set(curve.rows())
    if points >= 50:
        assert ausuc(thinned) == pytest.approx(ausuc(curve), abs=1)
        apart = [
            min(abs(s - a) + abs(u - b) for _, a, b in thinned.rows())
            for _, s, u in curve[::20].rows()
        ]
        assert max(apart) <= 200 / points


# --- classes ----------------------------------------------------------------------------------

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


@settings(deadline=None)
@given(pairs)
def test_accuracies_of_classes_average_to_the_accuracy(drawn):
    predicted, target = (torch.tensor(each) for each in zip(*drawn, strict=True))
    found = class_accuracies(predicted, target, SEEN + UNSEEN)
    assert found["accuracy"].mean() == pytest.approx(per_class_accuracy(predicted, target))
    for name, value in found.rows():
        of_class = target == (SEEN + UNSEEN).index(name)
        assert value == pytest.approx(100 * float((predicted == target)[of_class].double().mean()))
    assert set(found["class"]) == {(SEEN + UNSEEN)[column] for column in target.tolist()}


def test_predictions_must_fit_labels():
    with pytest.raises(IcisError, match="3 predictions do not fit 2 labels"):
        class_accuracies(torch.zeros(3), torch.zeros(2), SEEN)


# --- within the evaluation --------------------------------------------------------------------


def images_of(classes, count, seed):
    generator = torch.Generator().manual_seed(seed)
    names = [classes[k % len(classes)] for k in range(count)]
    centres = torch.eye(COLUMNS)[[(SEEN + UNSEEN).index(name) for name in names]]
    return LabelledFeatures(centres + torch.randn(count, COLUMNS, generator=generator), names)


def joint_head(order=SEEN + UNSEEN):
    """Return a head that favours the seen classes."""
    bias = torch.tensor([0.8] * len(SEEN) + [0.0] * len(UNSEEN))
    return Head(torch.eye(COLUMNS), bias, SEEN + UNSEEN).restrict(order)


PARTS = {"test_seen": images_of(SEEN, 41, 1), "test_unseen": images_of(UNSEEN, 33, 2)}


def shifted(offset):
    head = joint_head()
    return Head(head.weight, head.bias - offset * is_seen_of(3, 2), head.classes)


@pytest.mark.parametrize("offset", [-0.5, 0.0, 0.7, 2.0])
def test_calibrated_accuracies_are_those_of_a_head_with_other_biases(offset):
    found = evaluate(joint_head(), UNSEEN, offset=offset, **PARTS)
    other = evaluate(shifted(offset), UNSEEN, **PARTS)
    assert found["offset"] == offset
    for metric in "SUH":
        assert found[f"{metric}_cal"] == pytest.approx(other[metric])
    assert "S_cal" not in other
    assert other["AUSUC"] == pytest.approx(found["AUSUC"])
    assert other["T1"] == found["T1"]


@pytest.mark.parametrize("factor", [0.25, 1.0, 3.0])
def test_the_factor_is_that_of_the_predicted_rows_norm(factor):
    head = joint_head()
    scale = torch.tensor([factor if name in UNSEEN else 1.0 for name in head.classes])
    longer = Head(head.weight * scale[:, None], head.bias * scale, head.classes)
    expected = evaluate(longer, UNSEEN, **PARTS)
    found = evaluate(head, UNSEEN, factor=factor, **PARTS)
    for metric in ("S", "U", "H"):
        assert found[f"{metric}_norm"] == pytest.approx(expected[metric])
    assert found["norm_factor"] == factor
    assert found["T1"] == pytest.approx(expected["T1"])
    plain = evaluate(head, UNSEEN, **PARTS)
    assert "H_norm" not in plain
    assert (found["U_norm"] == plain["U"]) == (factor == 1)


def test_the_bias_towards_seen_classes():
    found = evaluate(joint_head(), UNSEEN, **PARTS)
    assert found["bias_gap"] == pytest.approx(found["S"] - found["U"])
    columns = predict(joint_head(), PARTS["test_unseen"].vectors).columns
    shares = []
    for name in UNSEEN:
        of_class = torch.tensor([each == name for each in PARTS["test_unseen"].classes])
        shares.append(float((columns[of_class] < len(SEEN)).double().mean()))
    assert found["to_seen"] == pytest.approx(100 * np.mean(shares))
    assert evaluate(shifted(1e3), UNSEEN, **PARTS)["to_seen"] == 0
    assert evaluate(shifted(-1e3), UNSEEN, **PARTS)["to_seen"] == 100


def test_the_unseen_classes_names_stand_for_the_joint_scorer_restricted():
    joint = joint_head()
    for names in (UNSEEN, UNSEEN[::-1]):
        found = examine(joint, names, offset=0.5, **PARTS)
        other = examine(joint, joint.restrict(names), offset=0.5, **PARTS)
        assert found.metrics == pytest.approx(other.metrics)
        assert found.classes.equals(other.classes)
        assert found.curve.equals(other.curve)


def test_the_joint_scorer_sees_every_image_once(monkeypatch):
    seen = []

    class Listening(Head):
        def scores(self, features):
            seen.append(len(features))
            return super().scores(features)

        def to(self, device):
            return self

    head = joint_head()
    monkeypatch.setattr(evaluation, "CHUNK", 10)
    examine(Listening(head.weight, head.bias, head.classes), UNSEEN, offset=1.0, **PARTS)
    assert sum(seen) == 41 + 33
    assert max(seen) == 10


def test_classes_and_curve_of_an_evaluation():
    found = examine(joint_head(), UNSEEN, **PARTS)
    classes = found.classes
    assert classes.schema == {
        "class": pl.String, "seen": pl.Boolean, "accuracy": pl.Float64, "zsl": pl.Float64
    }  # fmt: skip
    assert classes["class"].to_list() == [*SEEN, *UNSEEN]
    of_seen, of_unseen = classes.filter("seen"), classes.filter(~pl.col("seen"))
    assert of_seen["class"].to_list() == [*SEEN]
    assert of_seen["zsl"].null_count() == len(SEEN)
    assert of_seen["accuracy"].mean() == pytest.approx(found.metrics["S"])
    assert of_unseen["accuracy"].mean() == pytest.approx(found.metrics["U"])
    assert of_unseen["zsl"].mean() == pytest.approx(found.metrics["T1"])
    assert at_offset(found.curve, 0.0)[:2] == pytest.approx(
        (found.metrics["S"], found.metrics["U"])
    )
    assert found.metrics["AUSUC"] == ausuc(found.curve)
    assert found.curve["unseen"][-1] == pytest.approx(found.metrics["T1"])


def test_without_images_of_seen_classes_what_needs_them_is_left_out():
    both = {"offset": 0.5, "factor": 2.0}
    whole = examine(joint_head(), UNSEEN, **both, **PARTS)
    part = examine(joint_head(), UNSEEN, **both, **{**PARTS, "test_seen": None})
    left_out = {"S", "H", "AUSUC", "bias_gap", "offset", "S_cal", "U_cal", "H_cal",
                "norm_factor", "S_norm", "U_norm", "H_norm"}  # fmt: skip
    assert whole.metrics.keys() - part.metrics.keys() == left_out
    for metric in ("T1", "U", "to_seen", "chance_T1", "chance_all"):
        assert part.metrics[metric] == whole.metrics[metric]
    entropy = predict(joint_head(), PARTS["test_unseen"].vectors).entropy.double().mean()
    assert part.metrics["entropy"] == pytest.approx(float(entropy))
    assert part.curve is None
    assert part.classes.equals(whole.classes.filter(~pl.col("seen")))


def test_a_head_without_seen_classes():
    """Nothing to be biased towards."""
    alone = joint_head().restrict(UNSEEN)
    found = evaluate(alone, UNSEEN, test_seen=None, test_unseen=PARTS["test_unseen"])
    assert found["to_seen"] == 0
    assert found["T1"] == found["U"]


@pytest.mark.parametrize("order", [UNSEEN + SEEN, ("ant", "wolf", "zebra", "seal", "bat")])
def test_seen_columns_may_stand_anywhere(order):
    found = examine(joint_head(order), UNSEEN, offset=0.4, **PARTS)
    usual = examine(joint_head(), UNSEEN, offset=0.4, **PARTS)
    assert found.metrics == pytest.approx(usual.metrics)
    assert found.classes.sort("class").equals(usual.classes.sort("class"))


def test_rivals_agree_with_the_prediction():
    head, images = joint_head(), PARTS["test_unseen"].vectors
    found = predict(head, images, is_seen=is_seen_of(3, 2))
    assert torch.equal(found.rivals.columns(), found.columns)
    assert torch.equal(found.rivals.columns(math.inf), found.rivals.unseen)
    assert torch.equal(found.rivals.columns(-math.inf), found.rivals.seen)
    assert predict(head, images).rivals is None
