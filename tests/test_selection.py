"""Cross-validation over seen classes: what is held out, what is measured, what is chosen."""

import inspect
from dataclasses import replace
from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from icis import layout, selection
from icis.artifacts import vector_column, write_table
from icis.cli import app, read_seeds
from icis.errors import IcisError
from icis.heads import Head
from icis.methods import Conse, Costa, Injection, InjectionProblem, Method
from icis.metrics import LabelledFeatures
from icis.seen_heads import head_table
from icis.selection import (
    compare,
    criteria,
    cross_validate,
    folds,
    held_out_cosine,
    hold_out,
    image_accuracy,
    norm_ratio,
    pseudo_accuracy,
    retrieval,
    select,
)
from icis.stages.cross_validate import report
from tests.pipeline import tiny, write

SEEN, UNSEEN, D_DESCRIPTOR, D_FEATURE = 30, 4, 8, 20


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def make_problem(pairs=None):
    """Return a problem whose rows [weight, bias] are linear in the descriptors."""
    descriptors = normal(SEEN + UNSEEN, D_DESCRIPTOR)
    rows = descriptors @ normal(D_DESCRIPTOR, D_FEATURE + 1, seed=1)
    seen = Head.from_joined(rows[:SEEN], tuple(f"s{(7 * i) % SEEN}" for i in range(SEEN)))
    unseen = tuple(f"u{i}" for i in range(UNSEEN))
    return InjectionProblem(seen, descriptors[:SEEN], descriptors[SEEN:], unseen, pairs)


class Ridge(Method):
    """The best linear map from descriptors to rows."""

    method: Literal["ridge"] = "ridge"

    def fit(self, problem, *, seed, device, progress=None):
        a, w = problem.known_descriptors.double(), problem.known_head.joined().double()
        mapped = torch.linalg.lstsq(a, w).solution
        rows = (problem.unseen_descriptors.double() @ mapped).float()
        return Injection(problem.seen_head.append(Head.from_joined(rows, problem.unseen_classes)))


class Nonsense(Method):
    """Random rows."""

    method: Literal["nonsense"] = "nonsense"

    def fit(self, problem, *, seed, device, progress=None):
        rows = normal(len(problem.unseen_classes), problem.seen_head.dim + 1, seed=seed + 99)
        return Injection(problem.seen_head.append(Head.from_joined(rows, problem.unseen_classes)))


class Told(Method):
    """Gives away its problems."""

    method: Literal["told"] = "told"

    def fit(self, problem, *, seed, device, progress=None):
        TOLD.append((seed, problem))
        return Injection(problem.seen_head.append(problem.truth))


TOLD: list = []


@pytest.fixture
def told():
    TOLD.clear()
    return TOLD


# --- folds ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    st.integers(2, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(2, n))), st.integers()
)
def test_folds_are_a_partition(sizes, seed):
    classes, k = sizes
    found = folds(classes, k, seed)
    assert len(found) == k
    assert sorted(row for fold in found for row in fold) == list(range(classes))
    lengths = [len(fold) for fold in found]
    assert max(lengths) - min(lengths) <= 1
    assert all(fold == sorted(fold) for fold in found)
    assert found == folds(classes, k, seed)


def test_folds_depend_on_the_seed():
    assert folds(40, 5, 0) != folds(40, 5, 1)


@pytest.mark.parametrize("k", [0, 1, 6])
def test_no_folds_of_nothing(k):
    with pytest.raises(IcisError, match="5 classes cannot be parted"):
        folds(5, k, 0)


# --- holding out ------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    st.none() | st.permutations(range(SEEN)).map(lambda order: tuple(order[:12])),
    st.permutations(range(12)),
    st.integers(1, 11),
)
def test_held_out_classes_take_rows_and_descriptors_with_them(pairs, order, count):
    problem = make_problem(pairs)
    rows = order[:count]
    found = hold_out(problem, rows)
    known = range(SEEN) if pairs is None else pairs
    held = [known[row] for row in rows]
    names = problem.seen_head.classes
    assert found.unseen_classes == tuple(names[row] for row in held)
    assert found.truth.classes == found.unseen_classes
    assert torch.equal(found.truth.joined(), problem.seen_head.joined()[held])
    assert torch.equal(found.unseen_descriptors, problem.seen_descriptors[held])
    rest = [row for row in known if row not in held]
    assert found.pairs is None
    assert found.seen_head.classes == tuple(names[row] for row in rest)
    assert torch.equal(found.seen_head.joined(), problem.seen_head.joined()[rest])
    assert torch.equal(found.seen_descriptors, problem.seen_descriptors[rest])


@pytest.mark.parametrize("rows", [[], range(SEEN), [3, 3], [-1], [SEEN]])
def test_what_cannot_be_held_out(rows):
    with pytest.raises(IcisError, match="hold out|held out"):
        hold_out(make_problem(), list(rows))


def test_no_image_and_no_unseen_class_takes_part(told):
    for each in (hold_out, select):
        assert not {"features", "images", "test_seen"} & {*inspect.signature(each).parameters}
    for each in (cross_validate, compare):
        assert inspect.signature(each).parameters["images"].default is None
    problem = make_problem()
    changed = replace(
        problem, unseen_descriptors=torch.full((1, D_DESCRIPTOR), torch.nan), unseen_classes=("x",)
    )
    method = Told()
    one = cross_validate(problem, method, folds=3, seed=5)
    other = cross_validate(changed, method, folds=3, seed=5)
    assert one.equals(other)
    assert len(told) == 6
    assert all(seed == 5 for seed, _ in told)
    for _, given_problem in told:
        assert not {*problem.unseen_classes, "x"} & {*given_problem.unseen_classes}
    held = [name for _, given_problem in told[:3] for name in given_problem.unseen_classes]
    assert sorted(held) == sorted(problem.seen_head.classes)


def test_only_known_classes_are_held_out(told):
    pairs = (3, 9, 27, 1, 2, 20, 11)
    cross_validate(make_problem(pairs), Told(), folds=3, seed=0)
    known = {make_problem().seen_head.classes[row] for row in pairs}
    for _, reduced in told:
        assert {*reduced.seen_head.classes, *reduced.unseen_classes} == known


# --- criteria ---------------------------------------------------------------------------------


def held_problem():
    return hold_out(make_problem(), [4, 17, 8, 29, 0])


def injected(problem, rows, scale=1.0):
    head = Head.from_joined(rows, problem.unseen_classes)
    scaled = Head.from_joined(rows * scale, problem.unseen_classes)
    return Injection(problem.seen_head.append(scaled), unseen=head)


def test_the_truth_has_the_best_of_all_criteria():
    problem = held_problem()
    found = criteria(injected(problem, problem.truth.joined()), problem, device="cpu")
    assert found["held_out_cosine"] == pytest.approx(1)
    assert found["retrieval"] == 100
    assert found["norm_ratio"] == pytest.approx(1)


def test_criteria_by_hand():
    problem = held_problem()
    noise = normal(5, D_FEATURE + 1, seed=9) * 6
    rows, truth = (problem.truth.joined() + noise).numpy(), problem.truth.joined().numpy()
    injection = injected(problem, torch.tensor(rows), scale=3.0)
    units = [matrix / np.linalg.norm(matrix, axis=1, keepdims=True) for matrix in (rows, truth)]
    cosines = units[0] @ units[1].T
    assert held_out_cosine(injection, problem) == pytest.approx(np.diag(cosines).mean())
    right = cosines.argmax(1) == np.arange(5)
    assert retrieval(injection, problem) == pytest.approx(100 * right.mean())
    norms = [np.linalg.norm(matrix, axis=1).mean() for matrix in (rows, truth)]
    assert norm_ratio(injection, problem) == pytest.approx(3 * norms[0] / norms[1])
    weights = truth[:, :-1] / np.linalg.norm(truth[:, :-1], axis=1, keepdims=True)
    scores = weights @ rows[:, :-1].T + rows[:, -1]
    expected = 100 * (scores.argmax(1) == np.arange(5)).mean()
    assert pseudo_accuracy(injection, problem, device="cpu") == pytest.approx(expected)
    assert 0 < expected < 100


def test_a_scorer_that_is_not_linear_has_the_pseudo_accuracy_alone():
    problem = held_problem()
    injection = Conse().inject(problem, seed=0, device="cpu")
    found = criteria(injection, problem, device="cpu")
    assert found.keys() == {"pseudo_accuracy"}
    images = torch.nn.functional.normalize(problem.truth.weight)
    scores = injection.joint.restrict(problem.unseen_classes).scores(images)
    right = scores.argmax(1) == torch.arange(5)
    assert found["pseudo_accuracy"] == pytest.approx(100 * float(right.double().mean()))


def test_scores_that_tell_nothing_recognise_nothing():
    problem = held_problem()
    nothing = injected(problem, torch.zeros(5, D_FEATURE + 1))
    assert pseudo_accuracy(nothing, problem, device="cpu") == 0
    assert retrieval(nothing, problem) == 0
    broken = injected(problem, torch.full((5, D_FEATURE + 1), torch.nan))
    with pytest.raises(IcisError, match="NaN or infinite"):
        pseudo_accuracy(broken, problem, device="cpu")


def test_without_true_rows_there_is_nothing_to_measure():
    problem = make_problem()
    with pytest.raises(IcisError, match="no held-out classes"):
        held_out_cosine(Ridge().inject(problem, seed=0, device="cpu"), problem)


# --- images that judge ------------------------------------------------------------------------


def images_of(problem, each=6):
    """Return images near the directions of all seen classes' weights."""
    names = [name for name in problem.seen_head.classes for _ in range(each)]
    centres = problem.seen_head.weight.repeat_interleave(each, dim=0)
    return LabelledFeatures(centres + 5 * normal(len(names), D_FEATURE, seed=4), names)


def test_image_accuracy_by_hand():
    problem, whole = held_problem(), make_problem()
    images = images_of(whole)
    noise = normal(5, D_FEATURE + 1, seed=9) * 6
    injection = injected(problem, problem.truth.joined() + noise)
    shares = []
    for place, name in enumerate(problem.unseen_classes):
        own = images.vectors[[label == name for label in images.classes]]
        scores = own @ (problem.truth.weight + noise[:, :-1]).T + problem.truth.bias + noise[:, -1]
        shares.append(float((scores.argmax(1) == place).double().mean()))
    expected = 100 * sum(shares) / len(shares)
    assert 0 < expected < 100
    assert image_accuracy(injection, problem, images, device="cpu") == pytest.approx(expected)
    few = images.of_classes(problem.seen_head.classes)
    with pytest.raises(IcisError, match="no image of the 5 held-out classes"):
        image_accuracy(injection, problem, few, device="cpu")


def test_images_judge_and_change_nothing_else(told):
    problem = make_problem()
    without = cross_validate(problem, Told(), folds=3, seed=5)
    found = cross_validate(problem, Told(), folds=3, seed=5, images=images_of(problem))
    assert found.filter(pl.col("criterion") != "image_accuracy").equals(without)
    assert len(found.filter(criterion="image_accuracy")) == 3
    for (_, one), (_, other) in zip(told[:3], told[3:], strict=True):
        assert one.unseen_classes == other.unseen_classes
        assert torch.equal(one.seen_head.joined(), other.seen_head.joined())
    candidates = {"wrong": Nonsense(), "right": Ridge(), "conse": Conse()}
    frame = compare({0: problem}, candidates, images=images_of(problem))
    chosen = selection.choose(frame, "image_accuracy")
    assert chosen.best == "right"
    assert chosen.means.keys() == candidates.keys()
    assert "image_accuracy" in report(chosen).splitlines()[0]
    assert "no test image and no unseen class took part" in report(chosen)


# --- selection --------------------------------------------------------------------------------


def test_the_frame_of_a_cross_validation():
    found = cross_validate(make_problem(), Ridge(), folds=4, seed=0)
    assert found.schema == {"fold": pl.Int64, "criterion": pl.String, "value": pl.Float64}
    assert len(found) == 4 * len(selection.MEASURES)
    assert found["fold"].unique().to_list() == [0, 1, 2, 3]
    values = found.filter(pl.col("criterion") == "held_out_cosine")["value"]
    assert values.to_list() == pytest.approx([1.0] * 4, abs=1e-5)


@pytest.mark.parametrize("criterion", selection.CRITERIA)
def test_the_right_candidate_is_found(criterion):
    """Rows are linear in descriptors here: a linear map is right, random rows are wrong."""
    candidates = {"wrong": Nonsense(), "costa": Costa(), "right": Ridge()}
    found = select(make_problem(), candidates, criterion=criterion, seeds=(0, 1))
    assert found.best == "right"
    assert list(found.means) == list(candidates)
    assert found.means["wrong"] < found.means["right"]
    assert "wrong" not in found.within
    assert "right" in found.within
    assert len(found.frame) == 3 * 2 * 5 * len(selection.MEASURES)
    values = found.frame.filter(candidate="wrong", criterion=criterion)["value"].to_numpy()
    assert found.means["wrong"] == pytest.approx(values.mean())
    assert found.errors["wrong"] == pytest.approx(values.std(ddof=1) / np.sqrt(10))


def test_of_equals_the_first_is_taken():
    candidates = {"b": Ridge(), "a": Ridge(name="the same"), "c": Ridge()}
    found = select(make_problem(), candidates)
    assert found.best == "b"
    assert found.within == ("b", "a", "c")


def frame_of(**values):
    rows = [
        (name, 0, fold, "retrieval", value)
        for name, each in values.items()
        for fold, value in enumerate(each)
    ]
    return pl.DataFrame(rows, schema=selection.RUN, orient="row")


def test_within_one_standard_error():
    """The best mean is 60 with a standard error of 10."""
    values = {"far": [49, 49.8], "simple": [50, 50.2], "best": [50, 70], "near": [55, 55]}
    found = selection.choose(frame_of(**values), "retrieval")
    assert found.best == "best"
    assert found.errors["best"] == pytest.approx(10)
    assert found.within == ("simple", "best", "near")


def test_a_single_value_has_no_standard_error():
    found = selection.choose(frame_of(one=[3.0], two=[4.0]), "retrieval")
    assert found.best == "two"
    assert found.errors == {"one": None, "two": None}
    assert found.within == ("two",)


def test_what_cannot_be_selected_by():
    candidates = {"ridge": Ridge(), "conse": Conse()}
    with pytest.raises(IcisError, match="'conse' is not linear and has no retrieval"):
        select(make_problem(), candidates, criterion="retrieval", folds=2)
    with pytest.raises(IcisError, match="no criterion 'norm_ratio' to select by"):
        select(make_problem(), candidates, criterion="norm_ratio", folds=2)
    with pytest.raises(IcisError, match="no candidate"):
        select(make_problem(), {})
    with pytest.raises(IcisError, match=r"candidate 'few', seed 0: ConSE: top is 29"):
        select(make_problem(), {"few": Conse(top=29)}, folds=2)


# --- the stage --------------------------------------------------------------------------------

PLACE = ["drawn", "small", "linear-last_epochs-5", "att"]


@pytest.fixture
def artifacts(tmp_path, monkeypatch):
    """Write heads of two seeds and descriptors as the stages before would; no features exist."""
    monkeypatch.chdir(tmp_path)
    experiment = tiny()
    experiment["methods"]["costa"] = {"method": "costa"}
    write(tmp_path, experiment)
    problem = make_problem()
    tables = [head_table(problem.seen_head, seed) for seed in (0, 1)]
    write_table(layout.seen_heads(*PLACE[:3]), pa.concat_tables(tables), {})
    names = [*problem.seen_head.classes, *problem.unseen_classes]
    vectors = torch.cat([problem.seen_descriptors, problem.unseen_descriptors]).abs()
    table = pa.table({"class": names, "vector": vector_column(vectors.numpy())})
    classes = {"names": names, "is_seen": [True] * SEEN + [False] * UNSEEN}
    write_table(layout.descriptors("drawn", "att"), table, {"classes": classes})


def verb(*arguments):
    return CliRunner().invoke(
        app, ["cross-validate", *arguments, "--config", "experiment.json", "--device", "cpu"]
    )


def test_the_verb_end_to_end(artifacts, tmp_path):
    done = verb(*PLACE, "costa", "mlp", "conse", "--folds", "3", "--output", "out/cv.csv")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].split() == ["method", *selection.MEASURES]
    assert [line.split()[0] for line in lines[2:5]] == ["costa", "mlp", "conse"]
    assert "Best by pseudo_accuracy: " in done.output
    assert "3 folds of the seen classes x 2 seeds; no image" in done.output
    frame = pl.read_csv(tmp_path / "out/cv.csv")
    assert frame.columns == ["candidate", "seed", "fold", "criterion", "value"]
    assert len(frame) == 2 * 3 * (4 + 4 + 1)
    again = verb(*PLACE, "costa", "mlp", "conse", "--folds", "3", "--output", "out/again.csv")
    assert again.exit_code == 0
    assert pl.read_csv(tmp_path / "out/again.csv").equals(frame)


def test_the_verb_with_images(artifacts, tmp_path):
    problem = make_problem()
    images = images_of(problem)
    count = len(images.classes)
    table = pa.table(
        {
            "id": range(count + 1),
            "image": [f"{row}.png" for row in range(count + 1)],
            "class": [*images.classes, "u0"],
            "split": ["trainval"] * count + ["test_unseen"],
            "vector": vector_column(torch.cat([images.vectors, torch.zeros(1, D_FEATURE)]).numpy()),
        }
    )
    names = [*problem.seen_head.classes, *problem.unseen_classes]
    classes = {"names": names, "is_seen": [True] * SEEN + [False] * UNSEEN}
    write_table(layout.features("drawn", PLACE[1]), table, {"classes": classes})
    done = verb(*PLACE, "costa", "--folds", "3", "--images", "-o", "cv.csv",
                "--criterion", "image_accuracy")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "Best by image_accuracy: costa." in done.output
    found = pl.read_csv(tmp_path / "cv.csv").filter(criterion="image_accuracy")
    assert len(found) == 2 * 3
    assert found["value"].is_between(0, 100).all()


def test_seeds_of_ones_own(artifacts, tmp_path):
    done = verb(*PLACE, "costa", "--folds", "2", "--seeds", "1", "-o", "cv.csv")
    assert done.exit_code == 0, done.output
    assert pl.read_csv(tmp_path / "cv.csv")["seed"].unique().to_list() == [1]
    assert read_seeds("3,1, 2") == [3, 1, 2]
    assert read_seeds("") == []
    for text in ("a", "1,1", "-1", "1,,2"):
        with pytest.raises(IcisError, match="--seeds"):
            read_seeds(text)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([*PLACE, "icos"], "no method 'icos'"),
        (["drawn", "small", "linear-last", "att"], "linear-last_epochs-5"),
        ([*PLACE, "costa", "--criterion", "norm_ratio"], "no criterion 'norm_ratio'"),
        ([*PLACE, "costa", "--criterion", "image_accuracy"], "add --images"),
        ([*PLACE, "costa", "--images"], "features/drawn/small.parquet"),
        ([*PLACE, "costa", "--output", "cv.xlsx"], "written as .csv"),
        ([*PLACE, "costa", "--folds", "31"], "30 classes cannot be parted into 31 folds"),
        ([*PLACE, "costa", "--seeds", "7"], "no head of seed 7"),
        ([*PLACE, "costa", "conse", "--criterion", "retrieval"], "'conse' is not linear"),
    ],
)
def test_what_the_verb_refuses(artifacts, arguments, problem):
    done = verb(*arguments)
    assert isinstance(done.exception, IcisError)
    assert problem in str(done.exception)


def test_the_report_names_what_is_nearly_as_good():
    found = select(make_problem(), {"one": Ridge(), "two": Ridge(), "bad": Nonsense()}, folds=2)
    text = report(found)
    assert "Best by pseudo_accuracy: one; within one standard error of it: two." in text
    assert "1.000 ± 0.000" in text
