"""Figures: what is drawn, that nothing overlaps, and that the same data gives the same bytes."""

import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import BarContainer
from matplotlib.text import Text

from icis.errors import IcisError
from icis.figures import SUFFIXES, draw, save
from icis.results import build_table
from tests.example_results import example_metrics, example_plan

LONG = [
    "+ single-modal reconstruction of descriptors and weights",
    "ICIS with unseen descriptors, full method",
    "costs $5 \\nonsense{ or $6 in x_1^2, no formula",
    "a name of nearly a hundred characters, which nobody should give to a method but somebody will",
    "AnUnbrokenWordOfMoreThanFortyCharactersWithoutAnySpaceInIt",
]


def example(names, *, missing=(), **table):
    plan = example_plan(names, **table)
    cells = [cell.id for cell in plan.cells.values()]
    gone = [cells[position] for position in missing]
    metrics = example_metrics(plan).filter(~pl.col("cell").is_in(gone))
    return build_table(metrics, plan, "main")


def panels(figure, columns):
    axes = [each for part in figure.subfigs for each in part.axes]
    return [axes[start : start + columns] for start in range(0, len(axes), columns)]


def test_bars_are_means_whiskers_deviations_dots_seeds():
    table = example(["one", "two", "three"], datasets=["CUB", "SUN"], missing=[1])
    figure = draw(table)
    for g, row in enumerate(panels(figure, 4)):
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
    assert len({axes.get_xlim() for row in panels(figure, 4) for axes in row}) == 1


def test_labels_stand_in_the_tables_order():
    table = example(["b", "a", "c"], datasets=["SUN", "CUB"], metrics=["H", "T1", "epochs"])
    figure = draw(table)
    assert [part.get_suptitle() for part in figure.subfigs] == ["SUN", "CUB"]
    assert figure.get_suptitle() == "Main results"
    for row in panels(figure, 2):
        assert [axes.get_title() for axes in row] == ["H", "T1"]
        assert [text.get_text() for text in row[0].get_yticklabels()] == ["b", "a", "c"]


def test_caution_stands_in_the_figure():
    table = example(["one"], heads=["leak"])
    assert "Selected on test images" in draw(table).get_supxlabel()
    assert "Selected on" not in draw(example(["one"])).get_supxlabel()


@pytest.mark.parametrize(
    ("names", "table"),
    [
        ([f"{i} {LONG[i % 5]}" for i in range(12)], {"datasets": ["CUB", "AWA2", "SUN"]}),
        ([f"method {i}" for i in range(12)], {}),
        ([LONG[3]], {"title": " ".join(LONG), "heads": ["leak"]}),
        (["ConSE", "ICIS"], {"metrics": ["entropy", "epochs", "seen_accuracy"]}),
        (["ConSE"], {"metrics": ["T1"], "backbones": ["r101", "vit"], "seeds": 1}),
    ],
)
def test_no_texts_overlap_or_leave_the_page(names, table, monkeypatch):
    figure = draw(example(names, **table))
    figure.set_dpi(150)
    canvas = FigureCanvasAgg(figure)
    drawn = []
    original = Text.draw

    def recording(text, renderer):  # the ticks of an axis are more than it draws
        drawn.append(text)
        original(text, renderer)

    monkeypatch.setattr(Text, "draw", recording)
    canvas.draw()
    boxes = [
        (text.get_text(), text.get_window_extent(canvas.get_renderer()))
        for text in dict.fromkeys(drawn)
        if text.get_visible() and text.get_text()
    ]
    assert len(boxes) > len(names)
    assert {name.split()[0] for name in names} <= {what.split()[0] for what, _ in boxes}
    for what, box in boxes:
        assert figure.bbox.x0 <= box.x0, what
        assert figure.bbox.y0 <= box.y0, what
        assert box.x1 <= figure.bbox.x1, what
        assert box.y1 <= figure.bbox.y1, what
    for (one, first), (other, second) in combinations(boxes, 2):
        width = min(first.x1, second.x1) - max(first.x0, second.x0)
        height = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert width <= 0.5 or height <= 0.5, (one, other)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_data_gives_the_same_bytes(tmp_path, suffix):
    table = example(["one", *LONG[:2]])
    for name in ("first", "second"):
        save(draw(table), tmp_path / f"{name}.{suffix}")
    first = (tmp_path / f"first.{suffix}").read_bytes()
    assert first == (tmp_path / f"second.{suffix}").read_bytes()
    heads = {"svg": b"<?xml", "pdf": b"%PDF-", "png": b"\x89PNG"}
    assert first.startswith(heads[suffix])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"first.{suffix}", f"second.{suffix}"
    ]  # fmt: skip


def test_another_process_gives_the_same_bytes_without_pyplot(tmp_path):
    names = ["one", *LONG[:2]]
    save(draw(example(names)), tmp_path / "here.svg")
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.test_figures import example; from icis.figures import draw, save\n"
        f"save(draw(example({names!r})), Path('there.svg'))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"},
        check=True,
    )
    assert (tmp_path / "there.svg").read_bytes() == (tmp_path / "here.svg").read_bytes()


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(IcisError, match=r"should end in \.svg, \.pdf, \.png"):
        save(draw(example(["one"])), tmp_path / "figure.jpg")
    assert not list(tmp_path.iterdir())
