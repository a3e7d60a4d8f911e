"""Bars: means, whiskers, seeds and chance."""

from itertools import pairwise

import pytest
from matplotlib.container import BarContainer

from icis.figures.bars import draw
from tests.figures.example import example_table, panels


def rows_of(figure, columns):
    axes = panels(figure)
    return [axes[start : start + columns] for start in range(0, len(axes), columns)]


def test_bars_are_means_whiskers_deviations_dots_seeds():
    table = example_table(["one", "two", "three"], groups=["CUB", "SUN"], missing=[(0, 1)])
    rows = rows_of(draw(table), 4)
    assert len(rows) == 2
    for g, row in enumerate(rows):
        for axes, metric in zip(row, table.metrics, strict=True):
            there = [(r, method.cells[g, metric]) for r, method in enumerate(table.methods)
                     if method.cells[g, metric]]  # fmt: skip
            bars = [bar for each in axes.containers if isinstance(each, BarContainer)
                    for bar in each]  # fmt: skip
            assert [bar.get_width() for bar in bars] == [cell.mean for _, cell in there]
            middles = [bar.get_y() + bar.get_height() / 2 for bar in bars]
            assert middles == pytest.approx([r for r, _ in there])
            assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is on top
            whiskers = [line.get_segments()[0][:, 0] for line in axes.collections]
            for (low, high), (_, cell) in zip(whiskers, there, strict=True):
                assert (low, high) == pytest.approx((cell.mean - cell.std, cell.mean + cell.std))
            dots = [tuple(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"]
            assert dots == [cell.values for _, cell in there]
            chance = [line.get_xdata()[0] for line in axes.lines if line.is_dashed()]
            assert chance == [table.chance.cells[g, metric].mean]
            texts = [text.get_text() for text in axes.texts]
            assert f"chance {chance[0]:.1f}" in texts
            assert texts.count("no result") == len(table.methods) - len(there)
            low, high = axes.get_xlim()
            assert low == 0
            assert all(max(*cell.values, cell.mean + cell.std) <= high for _, cell in there)
    assert len({axes.get_xlim() for row in rows for axes in row}) == 1


def test_labels_stand_in_the_tables_order():
    table = example_table(["b", "a", "c"], groups=["SUN", "CUB"], metrics=["H", "T1", "epochs"])
    figure = draw(table)
    assert [part.get_suptitle() for part in figure.subfigs] == ["SUN", "CUB"]
    for row in rows_of(figure, 2):
        assert [axes.get_title() for axes in row] == ["H", "T1"]
        assert [text.get_text() for text in row[0].get_yticklabels()] == ["b", "a", "c"]


def test_many_metrics_have_readable_titles_that_do_not_touch():
    metrics = ["bias_gap", "to_seen", "entropy", "norm_ratio", "train_loss", "held_out_loss",
               "held_out_cosine", "held_out_w2a"]  # fmt: skip
    figure = draw(example_table(["a", "b"], metrics=metrics))
    figure.draw_without_rendering()
    titles = [axes.title for part in figure.subfigs for axes in part.axes]
    assert titles[0].get_text() == "S − U"
    assert all("_" not in title.get_text() for title in titles)
    boxes = [title.get_window_extent() for title in titles]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes))
