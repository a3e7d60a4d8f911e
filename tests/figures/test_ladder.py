"""The ladder: steps, what each adds, and gaps between them."""

from itertools import pairwise

import pytest
from matplotlib.container import BarContainer

from icis.figures.ladder import draw
from tests.figures.example import example_table, panels


def test_bars_reach_from_step_to_step_and_dots_are_seeds():
    table = example_table(["a", "b", "c"], groups=["CUB", "SUN"])
    found = panels(draw(table))
    assert [axes.get_title() for axes in found] == ["T1", "H"] * 2
    for number, axes in enumerate(found):
        g, metric = number // 2, axes.get_title()
        cells = [row.cells[g, metric] for row in table.methods]
        bars = [bar for each in axes.containers if isinstance(each, BarContainer) for bar in each]
        for bar, before, after in zip(bars, cells, cells[1:], strict=False):
            assert bar.get_x() == pytest.approx(min(before.mean, after.mean))
            assert abs(bar.get_width()) == pytest.approx(abs(after.mean - before.mean))
        assert len(bars) == 2
        dots = [line for line in axes.lines if line.get_marker() == "o"]
        assert [tuple(line.get_xdata()) for line in dots[::2]] == [(c.mean,) for c in cells]
        assert [tuple(line.get_xdata()) for line in dots[1::2]] == [c.values for c in cells]
        gains = [after.mean - before.mean for before, after in pairwise(cells)]
        texts = [text.get_text().replace("−", "-") for text in axes.texts]
        assert texts == [
            f"{cells[0].mean:.1f}",
            *(f"{c.mean:.1f}  ({gain:+.1f})" for c, gain in zip(cells[1:], gains, strict=True)),
        ]
        low, high = axes.get_xlim()
        assert all(low < value < high for cell in cells for value in cell.values)
        assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert found[0].get_xlim() == found[2].get_xlim()
    assert [text.get_text() for text in found[0].get_yticklabels()] == ["a", "b", "c"]


def test_a_gain_over_a_missing_step_is_that_over_the_last_one():
    table = example_table(["a", "b", "c"], missing=[(0, 1)], seeds=1)
    axes = panels(draw(table))[0]
    first, last = (table.methods[r].cells[0, "T1"].mean for r in (0, 2))
    sign = "+" if last > first else "−"
    assert [text.get_text() for text in axes.texts] == [
        f"{first:.1f}", "no result", f"{last:.1f}  ({sign}{abs(last - first):.1f})"
    ]  # fmt: skip


def test_losses_are_hatched():
    table = example_table(["a", "b", "c"], seed=2)
    for axes in panels(draw(table)):
        cells = [row.cells[0, axes.get_title()].mean for row in table.methods]
        bars = [bar for each in axes.containers for bar in each]
        for bar, before, after in zip(bars, cells, cells[1:], strict=False):
            assert bool(bar.get_hatch()) == (after < before)


def test_a_table_without_t1_and_h_shows_its_first_metrics():
    table = example_table(["a", "b"], metrics=["AUSUC", "epochs", "entropy"])
    assert [axes.get_title() for axes in panels(draw(table))] == ["AUSUC", "epochs"]
