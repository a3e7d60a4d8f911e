"""Accuracies of classes: which, in which order, and under which names."""

import dataclasses

import polars as pl
import pytest

from icis.figures import CLASSES
from icis.figures.classes import draw
from tests.figures.example import NO_CLASSES, example_classes, example_table, panels


def dots_of(axes):
    return [line for line in axes.lines if line.get_linestyle() == "None"]


def names_below(axes):
    return [text.get_text() for text in axes.get_xticklabels()]


def frame(stem, values, *, zsl=None, seed=0, seen=False):
    rows = [
        {"group": 0, "stem": stem, "seed": seed, "class": name, "seen": seen,
         "accuracy": value, "zsl": zsl}
        for name, value in values.items()
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=CLASSES)


def test_dots_are_means_over_seeds_sorted_by_the_reference():
    table = example_table(["one", "two"])
    frames = [
        frame("m0", {"ant": 10.0, "bee": 20.0, "cat": 30.0}),
        frame("m1", {"ant": 50.0, "bee": 90.0, "cat": 70.0}, seed=0),
        frame("m1", {"ant": 70.0, "bee": 80.0, "cat": 50.0}, seed=1),
        frame("m1", {"dog": 99.0}, seen=True),
    ]
    (axes,) = panels(draw(table, pl.concat(frames)).subfigs[0])
    assert names_below(axes) == ["bee", "ant", "cat"]
    one, two = dots_of(axes)
    assert list(one.get_xdata()) == list(two.get_xdata()) == [0, 1, 2]
    assert list(one.get_ydata()) == [20, 10, 30]
    assert list(two.get_ydata()) == [85, 60, 60]
    assert axes.get_ylabel() == "among all classes (%)"


def test_the_reference_is_the_tables_own_or_else_the_last_with_results():
    table = dataclasses.replace(example_table(["one", "two", "three"]), reference=0)
    one, two = frame("m0", {"ant": 1.0, "bee": 2.0}), frame("m1", {"ant": 2.0, "bee": 1.0})
    (axes,) = panels(draw(table, pl.concat([one, two])).subfigs[0])
    assert names_below(axes) == ["bee", "ant"]
    figure = draw(table, two)
    assert names_below(panels(figure.subfigs[0])[0]) == ["ant", "bee"]
    assert "by another method" in " ".join(figure.get_supxlabel().split())


def test_accuracy_among_unseen_classes_stands_above_where_it_is_known():
    table = example_table(["one"])
    classes = example_classes(table, unseen=6)
    upper, lower = panels(draw(table, classes).subfigs[0])
    assert upper.get_ylabel() == "among unseen classes (%)"
    means = {
        name: (accuracy, zsl)
        for name, accuracy, zsl in classes.filter(~pl.col("seen"))
        .group_by("class").agg(pl.col("accuracy").mean(), pl.col("zsl").mean()).iter_rows()
    }  # fmt: skip
    order = names_below(lower)
    assert set(order) == set(means)
    assert list(dots_of(lower)[0].get_ydata()) == pytest.approx([means[n][0] for n in order])
    assert list(dots_of(upper)[0].get_ydata()) == pytest.approx([means[n][1] for n in order])


@pytest.mark.parametrize(("count", "named"), [(60, True), (61, False), (250, False)])
def test_up_to_sixty_classes_have_names_else_ranks(count, named):
    table = example_table(["one"])
    (axes,) = panels(draw(table, example_classes(table, unseen=count, zsl=False)).subfigs[0])
    labels = names_below(axes)
    if named:
        assert len(labels) == count
    else:
        assert axes.get_xlabel() == "rank of the class"
        assert [int(label) - 1 for label in labels] == list(axes.get_xticks())
        assert len(labels) <= 13


def test_long_names_are_cut():
    table = example_table(["one"])
    (axes,) = panels(draw(table, frame("m0", {"x" * 50: 1.0, "y" * 28: 0.0})).subfigs[0])
    assert names_below(axes) == ["x" * 27 + "…", "y" * 28]


def test_a_group_without_classes_says_so_and_the_others_are_drawn():
    table = example_table(["one"], groups=["CUB", "SUN"], missing=[(1, 0)])
    found = panels(draw(table, example_classes(table, unseen=4, zsl=False)).subfigs[0])
    assert len(dots_of(found[0])) == 1
    assert [text.get_text() for text in found[1].texts] == ["no result"]


def test_no_classes_at_all():
    (axes,) = panels(draw(example_table(), NO_CLASSES).subfigs[0])
    assert [text.get_text() for text in axes.texts] == ["no result"]
