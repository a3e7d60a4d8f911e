"""Data efficiency: where the points are, and what becomes of ``all``."""

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer

from icis.figures.efficiency import draw
from icis.results import Published
from tests.figures.example import by_size, example_table, legend_texts, panels


def lines_of(axes):
    return [each[0] for each in axes.containers if isinstance(each, ErrorbarContainer)]


def test_lines_are_means_over_the_number_of_classes():
    groups = by_size(["CUB", "SUN"], ["all", 100, 50])
    table = example_table(["one", "two"], groups=groups, seen_counts={0: 150, 3: 645})
    figure = draw(table)
    assert [part.get_suptitle() for part in figure.subfigs[0].subfigs] == ["CUB", "SUN"]
    found = panels(figure.subfigs[0])
    assert [axes.get_title() for axes in found] == ["T1", "H", "T1", "H"]
    for number, axes in enumerate(found):
        row, metric = divmod(number, 2)
        most = (150, 645)[row]
        for line, method in zip(lines_of(axes), table.methods, strict=True):
            assert list(line.get_xdata()) == [50, 100, most]
            cells = [method.cells[3 * row + g, ("T1", "H")[metric]] for g in (2, 1, 0)]
            assert list(line.get_ydata()) == [cell.mean for cell in cells]
        for each, method in zip(axes.containers, table.methods, strict=True):
            spans = [np.diff(seg[:, 1])[0] for seg in each[2][0].get_segments()]
            stds = [method.cells[3 * row + g, ("T1", "H")[metric]].std for g in (2, 1, 0)]
            assert spans == pytest.approx([2 * std for std in stds])
        labels = [text.get_text() for text in axes.get_xticklabels()]
        assert labels == ["50", "100", f"all ({most})"]
    assert [axes.get_xscale() for axes in found] == ["linear", "linear", "log", "log"]


def test_all_without_a_known_number_is_left_out_and_said():
    table = example_table(["one"], groups=by_size(["CUB"], [50, 100, "all"]))
    figure = draw(table)
    assert list(lines_of(panels(figure.subfigs[0])[0])[0].get_xdata()) == [50, 100]
    assert "Left out: “all”" in " ".join(figure.get_supxlabel().split())
    known = example_table(["one"], groups=table.groups, seen_counts={2: 150})
    assert "Left out" not in draw(known).get_supxlabel()


def test_nothing_left_to_draw_is_said():
    figure = draw(example_table(["one"], groups=by_size(["CUB"], ["all"])))
    for axes in panels(figure.subfigs[0]):
        assert [text.get_text() for text in axes.texts] == ["no result"]


def test_missing_cells_are_gaps_and_one_seed_has_no_whiskers():
    groups = by_size(["CUB"], [25, 50, 100])
    table = example_table(["one", "two"], groups=groups, missing=[(1, 0)], seeds=1)
    axes = panels(draw(table).subfigs[0])[0]
    one, two = lines_of(axes)
    assert list(one.get_xdata()) == [25, 100]
    assert list(two.get_xdata()) == [25, 50, 100]
    assert not axes.collections


def test_published_numbers_are_hollow_and_dotted():
    told = {(0, 1, "T1"): Published(33.0), (2, 1, "T1"): Published(44.0, 1.0, 3)}
    table = example_table(["one", "two"], groups=by_size(["CUB"], [25, 50, 100]), told=told)
    figure = draw(table)
    t1, h = panels(figure.subfigs[0])
    hollow = [line for line in t1.lines if line.get_markerfacecolor() == "white"]
    assert [(list(line.get_xdata()), list(line.get_ydata())) for line in hollow] == [
        ([25, 100], [33.0, 44.0])
    ]
    assert hollow[0].get_linestyle() == ":"
    assert hollow[0].get_color() == lines_of(t1)[1].get_color()
    assert not [line for line in h.lines if line.get_markerfacecolor() == "white"]
    assert legend_texts(figure) == ["one", "two", "published"]
    assert "published" in figure.get_supxlabel()


def test_a_row_of_panels_for_whatever_else_differs():
    first, second = by_size(["CUB"], [25]), by_size(["CUB"], [25])
    other = type(second[0])("CUB", "vit", "last", "att", "25", "CUB / vit / 25")
    figure = draw(example_table(["one"], groups=[*first, other]))
    titles = [part.get_suptitle() for part in figure.subfigs[0].subfigs]
    assert titles == ["CUB / r101", "CUB / vit"]
