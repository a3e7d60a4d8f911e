"""The seen-unseen curve: what is averaged, and where the operating points are."""

import numpy as np
import polars as pl
import pytest
from matplotlib.collections import PolyCollection

from icis.figures import CURVES
from icis.figures.curve import draw, mean_curve
from tests.figures.example import (
    NO_CURVES,
    example_curves,
    example_table,
    legend_texts,
    panels,
)

METRICS = ("T1", "U", "S", "H", "AUSUC", "U_cal", "S_cal")


def points(*seeds):
    rows = [
        {"group": 0, "stem": "m0", "seed": seed, "unseen": float(u), "seen": float(s)}
        for seed, curve in enumerate(seeds)
        for u, s in curve
    ]
    return pl.DataFrame(rows, schema=CURVES)


def curves_of(axes):
    return [line for line in axes.lines if len(line.get_xdata()) > 1]


def markers_of(axes):
    return [
        (line.get_xdata()[0], line.get_ydata()[0], line.get_markerfacecolor())
        for line in axes.lines
        if len(line.get_xdata()) == 1
    ]


def test_one_seeds_curve_is_drawn_as_measured():
    measured = [(0, 80), (0, 70), (30, 50), (60, 20), (60, 0)]
    curve = mean_curve(points(measured))
    assert list(zip(curve.unseen, curve.seen, strict=True)) == measured
    assert (curve.std, curve.seeds) == (None, 1)


def test_the_mean_is_taken_at_the_same_accuracy_on_unseen_classes():
    curve = mean_curve(points([(0, 80), (40, 0)], [(0, 60), (20, 60), (20, 0)]))
    assert curve.seeds == 2
    at = dict(zip(curve.unseen.round(6), zip(curve.seen, curve.std, strict=True), strict=True))
    assert at[0] == pytest.approx((70, np.std([80, 60], ddof=1)))
    assert at[10] == pytest.approx((60, 0), abs=1e-6)
    assert at[20] == pytest.approx((50, np.std([40, 60], ddof=1)))  # the step's upper end
    assert at[30] == pytest.approx((10, np.std([20, 0], ddof=1)))  # one of them has ended
    assert (curve.unseen[-1], curve.seen[-1]) == (40, 0)


def test_the_area_below_the_mean_is_the_mean_of_the_areas():
    table = example_table(["one"])
    frame = example_curves(table, seeds=5, points=400)
    mean = mean_curve(frame)
    areas = [np.trapezoid(part["seen"], part["unseen"]) for _, part in frame.group_by("seed")]
    assert np.trapezoid(mean.seen, mean.unseen) == pytest.approx(np.mean(areas), rel=1e-3)


def test_the_direction_of_the_points_does_not_matter():
    measured = [[(0, 80), (30, 50), (60, 0)], [(0, 70), (50, 0)]]
    one = mean_curve(points(*measured))
    other = mean_curve(points(*(each[::-1] for each in measured)))
    assert np.array_equal(one.unseen, other.unseen)
    assert np.array_equal(one.seen, other.seen)


def test_there_is_no_curve_without_points():
    assert mean_curve(NO_CURVES) is None


def test_a_panel_a_group_and_a_line_a_method_with_its_band_and_points():
    names = ["one", "two"]
    table = example_table(names, groups=["CUB", "AWA2", "SUN"], metrics=METRICS)
    figure = draw(table, example_curves(table))
    found = panels(figure.subfigs[0])
    assert [axes.get_title() for axes in found] == ["CUB", "AWA2", "SUN"]
    for g, axes in enumerate(found):
        assert len(curves_of(axes)) == len(names)
        assert sum(isinstance(each, PolyCollection) for each in axes.collections) == len(names)
        expected = []
        for row, colour in zip(table.methods, ("#0072B2", "#D55E00"), strict=True):
            for u, s, face in (("U", "S", colour), ("U_cal", "S_cal", "white")):
                expected.append((row.cells[g, u].mean, row.cells[g, s].mean, face))
        assert markers_of(axes) == expected
        areas = [text.get_text() for text in axes.get_legend().get_texts()]
        cells = [row.cells[g, "AUSUC"] for row in table.methods]
        assert areas == [f"{cell.mean:.1f} ± {cell.std:.1f}" for cell in cells]
    assert legend_texts(figure) == ["one", "two", "without calibration", "calibrated"]


def test_a_table_without_operating_points_or_areas_has_lines_alone():
    table = example_table(["one", "two"], metrics=["T1", "U"])
    figure = draw(table, example_curves(table, seeds=1))
    (axes,) = panels(figure.subfigs[0])
    assert len(axes.lines) == len(curves_of(axes)) == 2
    assert not axes.collections
    assert axes.get_legend() is None
    assert legend_texts(figure) == ["one", "two"]


def test_a_method_that_failed_in_one_group_is_named_there():
    table = example_table(["one", "two"], groups=["CUB", "SUN"], missing=[(1, 0)], metrics=METRICS)
    figure = draw(table, example_curves(table))
    cub, sun = panels(figure.subfigs[0])
    assert (len(curves_of(cub)), len(curves_of(sun))) == (2, 1)
    assert sun.get_legend().get_texts()[0].get_text() == "no result"
    assert legend_texts(figure)[:2] == ["one", "two"]
