"""Ours against published numbers: points, deviations and differences."""

import math

import pytest

from icis.figures.agreement import FILLINGS, NOTHING, Pair, draw
from icis.results import Published
from tests.figures.example import example_table, legend_texts, panels, summary


def points_of(axes):
    return [
        (line.get_xdata()[0], line.get_ydata()[0])
        for line in axes.lines
        if len(line.get_xdata()) == 1
    ]


def test_points_are_published_and_our_means():
    told = {(g, r, "T1"): Published(50.0 + g + 2 * r) for g in range(2) for r in (0, 2)}
    told[1, 1, "H"] = Published(30.0)
    table = example_table(["one", "two", "three"], groups=["CUB", "SUN"], told=told)
    figure = draw(table)
    t1, h = panels(figure.subfigs[0])
    assert (t1.get_title(), h.get_title()) == ("T1", "H")
    cells = [table.methods[r].cells[g, "T1"].mean for r in (0, 2) for g in range(2)]
    assert points_of(t1) == list(zip([50.0, 51.0, 54.0, 55.0], cells, strict=True))
    assert points_of(h) == [(30.0, table.methods[1].cells[1, "H"].mean)]
    for axes in (t1, h):
        assert axes.get_xlim() == axes.get_ylim()
        identity = next(line for line in axes.lines if line.is_dashed())
        assert list(identity.get_xdata()) == list(identity.get_ydata()) == list(axes.get_xlim())
    assert legend_texts(figure) == ["one", "two", "three", "CUB", "SUN"]


def test_differences_stand_below_where_errors_are_known():
    told = {(0, 0, "T1"): Published(50.0, 1.0, 4), (0, 1, "T1"): Published(50.0, 1.0),
            (0, 2, "T1"): Published(50.0)}  # fmt: skip
    table = example_table(told=told)
    figure = draw(table)
    upper, lower = panels(figure.subfigs[0])
    assert len(points_of(upper)) == 3
    ours = table.methods[0].cells[0, "T1"]
    expected = (ours.mean - 50) / math.sqrt(ours.std**2 / 3 + 1 / 4)
    assert points_of(lower) == [(50.0, pytest.approx(expected))]
    low, high = lower.get_ylim()
    assert low < min(expected, -2)
    assert high > max(expected, 2)
    assert "standard error" in figure.get_supxlabel()


def test_the_sign_of_a_difference_is_that_of_ours_less_published():
    ours = summary(39.0, 40.0, 41.0)
    above, below = (Pair(0, 0, ours, Published(value, 1.0, 3)) for value in (38.0, 42.0))
    assert above.errors == pytest.approx(2 / math.sqrt(2 / 3))
    assert below.errors == pytest.approx(-above.errors)
    assert Pair(0, 0, summary(40.0), Published(38.0, 1.0, 3)).errors is None


def test_deviations_have_whiskers():
    told = {(0, 0, "T1"): Published(50.0, 1.5), (0, 1, "T1"): Published(51.0)}
    table = example_table(["one", "two"], told=told)
    (axes,) = panels(draw(table).subfigs[0])
    spans = [each.get_segments()[0] for each in axes.collections]
    assert len(spans) == 3
    assert spans[0][:, 0] == pytest.approx([48.5, 51.5])
    cell = table.methods[0].cells[0, "T1"]
    assert spans[1][:, 1] == pytest.approx([cell.mean - cell.std, cell.mean + cell.std])


def test_groups_differ_by_the_filling_of_markers():
    groups = ["CUB", "AWA2", "SUN"]
    told = {(g, 0, "T1"): Published(50.0) for g in range(3)}
    (axes,) = panels(draw(example_table(["one"], groups=groups, told=told)).subfigs[0])
    drawn = [line for line in axes.lines if len(line.get_xdata()) == 1]
    looks = {(line.get_fillstyle(), line.get_markerfacecolor()) for line in drawn}
    assert len(looks) == 3
    assert {line.get_marker() for line in drawn} == {"o"}
    assert len(set(FILLINGS)) == len(FILLINGS)


def test_missing_results_of_ours_are_left_out():
    told = {(0, r, "T1"): Published(50.0 + r) for r in range(2)}
    figure = draw(example_table(["one", "two"], told=told, missing=[(0, 1)]))
    (axes,) = panels(figure.subfigs[0])
    assert len(points_of(axes)) == 1
    assert legend_texts(figure) == ["one"]


def test_a_table_without_published_numbers_says_so():
    for told in ({}, {(0, 0, "epochs"): Published(100.0)}):
        figure = draw(example_table(told=told))
        (axes,) = panels(figure)
        assert [text.get_text() for text in axes.texts] == [NOTHING]
