"""All kinds of figures: nothing overlaps, the same data gives the same bytes, gaps are said."""

import os
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import get_args

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text

from icis.config.experiment import Figure
from icis.errors import IcisError
from icis.figures import KINDS, SUFFIXES, draw, save
from icis.figures.style import STYLE, Look, averaged, limits
from icis.results import Published
from tests.figures.example import (
    LONG,
    NO_CLASSES,
    NO_CURVES,
    by_size,
    example_classes,
    example_curves,
    example_table,
    legend_texts,
    panels,
)

ALL = ("T1", "U", "S", "H", "AUSUC", "U_cal", "S_cal", "H_cal")
TWELVE = [f"{i} {LONG[i % 5]}" for i in range(12)]
TOLD = {(0, r, m): Published(40.0 + r, 1.0, 3) for r in range(2) for m in ("T1", "U", "S", "H")}


def drawn(kind, table, **classes):
    return draw(kind, table, example_curves(table), example_classes(table, **classes))


def texts_of(figure):
    """Draw a figure; return what texts it has, with their extents."""
    figure.set_dpi(150)
    canvas = FigureCanvasAgg(figure)
    found = []
    original = Text.draw

    def recording(text, renderer):  # the ticks of an axis are more than it draws
        found.append(text)
        original(text, renderer)

    with pytest.MonkeyPatch.context() as patch, matplotlib.rc_context(STYLE):
        patch.setattr(Text, "draw", recording)
        canvas.draw()
    return [
        (text, text.get_window_extent(canvas.get_renderer()))
        for text in dict.fromkeys(found)
        if text.get_visible() and text.get_text()
    ]


def test_there_is_a_kind_for_each_in_the_settings():
    assert set(KINDS) == set(get_args(Figure))


@pytest.mark.parametrize("kind", ["bar", "curves", "", "nothing like it"])
def test_unknown_kinds_are_refused(kind):
    with pytest.raises(IcisError, match=f"there is no figure '{kind}'; (did you mean|there are)"):
        draw(kind, example_table(), NO_CURVES, NO_CLASSES)


EXAMPLES = {
    "one method, one seed": {"names": ["ICIS"], "seeds": 1},
    "long names": {
        "names": TWELVE, "groups": ["CUB", "AWA2", "SUN"], "metrics": ALL, "told": TOLD,
        "title": " ".join(LONG), "caution": "Selected on test images: " + " ".join(LONG),
        "missing": [(0, 3), (2, 0)],
    },
    "twelve methods": {"names": [f"method {i}" for i in range(12)], "metrics": ALL, "seeds": 5},
    "by size": {
        "groups": by_size(["CUB", "SUN"], [10, 50, 100, "all"]), "metrics": ALL, "told": TOLD,
        "seen_counts": {3: 150, 7: 645},
    },
    "other metrics": {"metrics": ["epochs", "entropy", "AUSUC"]},
    "long group": {"groups": ["CUB / " + LONG[3] + " / " + LONG[4], "SUN / all"], "told": TOLD},
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("example", EXAMPLES)
def test_texts_are_legible_and_do_not_overlap_or_leave_the_page(kind, example):
    table = example_table(**EXAMPLES[example])
    unseen = 60 if example == "long names" else 72 if example == "twelve methods" else 5
    figure = drawn(kind, table, unseen=unseen)
    assert figure.get_figwidth() == 7
    found = [(text.get_text(), box) for text, box in texts_of(figure)]
    assert len(found) >= 3
    for what, box in found:
        assert figure.bbox.x0 <= box.x0, what
        assert figure.bbox.y0 <= box.y0, what
        assert box.x1 <= figure.bbox.x1, what
        assert box.y1 <= figure.bbox.y1, what
    allowed = 1.5 if unseen == 60 and kind == "classes" else 0.5  # sixty names side by side
    for (one, first), (other, second) in combinations(found, 2):
        width = min(first.x1, second.x1) - max(first.x0, second.x0)
        height = min(first.y1, second.y1) - max(first.y0, second.y0)
        assert width <= allowed or height <= 0.5, (one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_fonts_are_no_smaller_than_seven_points(kind):
    table = example_table(metrics=ALL, told=TOLD, caution="Selected on test images")
    sizes = [text.get_fontsize() for text, _ in texts_of(drawn(kind, table))]
    assert min(sizes) >= 7


@pytest.mark.parametrize("kind", KINDS)
def test_title_and_caution_stand_in_the_figure(kind):
    with_caution = drawn(kind, example_table(caution="Selected on test images: S", told=TOLD))
    assert with_caution.get_suptitle() == "Main results"
    assert "Selected on test images: S" in with_caution.get_supxlabel()
    assert "Selected" not in drawn(kind, example_table()).get_supxlabel()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "agreement"])
def test_the_foot_says_over_how_many_seeds(kind):
    groups = by_size(["CUB"], [50, 100])
    several = drawn(kind, example_table(groups=groups))
    assert re.search("mean over\\s3\\sseeds", several.get_supxlabel())
    table = example_table(groups=groups, seeds=1)
    one = draw(kind, table, example_curves(table, seeds=1), example_classes(table, seeds=1))
    assert "one seed" in one.get_supxlabel()
    assert "deviation" not in one.get_supxlabel()


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_without_any_result_is_drawn(kind):
    table = example_table(["one", "two"], missing=[(0, 0), (0, 1)], metrics=ALL)
    figure = draw(kind, table, NO_CURVES, NO_CLASSES)
    told = [text.get_text() for text, _ in texts_of(figure)]
    assert "no published numbers for this table" in told or "no result" in told


@pytest.mark.parametrize("kind", ["curve", "classes", "efficiency"])
def test_the_legend_names_the_methods_and_who_has_no_result(kind):
    table = example_table(["one", "two"], missing=[(0, 1)], groups=by_size(["CUB"], [50]))
    assert legend_texts(drawn(kind, table))[:2] == ["one", "two (no result)"]


def test_methods_differ_without_colours_too():
    looks = [Look.of(position) for position in range(84)]
    assert len(set(looks)) == 84
    twelve = looks[:12]
    assert len({look.marker for look in twelve}) == 12
    assert len({(look.colour, look.dashes) for look in twelve}) == 12


def test_numbers_of_seeds_in_words():
    assert averaged([]) == "no result"
    assert averaged([1, 1]) == "one seed"
    assert averaged([3, 3]) == "mean over 3 seeds"
    assert averaged([5, 1, 3]) == "mean over 1 to 5 seeds"


def test_limits_of_a_single_value_or_none_have_a_width():
    assert limits([]) == pytest.approx((-0.06, 1.06))
    low, high = limits([5.0, float("nan")])
    assert low < 5 < high


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_data_gives_the_same_bytes(tmp_path, suffix, kind):
    table = example_table(["one", *LONG[:2]], told=TOLD)
    for name in ("first", "second"):
        save(drawn(kind, table), tmp_path / f"{name}.{suffix}")
    first = (tmp_path / f"first.{suffix}").read_bytes()
    assert first == (tmp_path / f"second.{suffix}").read_bytes()
    heads = {"svg": b"<?xml", "pdf": b"%PDF-", "png": b"\x89PNG"}
    assert first.startswith(heads[suffix])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"first.{suffix}", f"second.{suffix}"
    ]  # fmt: skip


def test_another_process_gives_the_same_bytes_without_pyplot(tmp_path):
    code = (
        "import sys; from pathlib import Path\n"
        "from tests.figures.test_figures import *\n"
        "for kind in KINDS:\n"
        "    save(drawn(kind, example_table(told=TOLD)), Path(sys.argv[1], f'{kind}.svg'))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    for folder, seed, zone in (("one", "7", "Asia/Tokyo"), ("two", "8", "UTC")):
        (tmp_path / folder).mkdir()
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / folder)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": seed, "TZ": zone},
            check=True,
        )
    for kind in KINDS:
        one, two = (tmp_path / folder / f"{kind}.svg" for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes(), kind


def test_other_suffixes_are_refused(tmp_path):
    figure = drawn("bars", example_table())
    with pytest.raises(IcisError, match=r"should end in \.svg, \.pdf, \.png"):
        save(figure, tmp_path / "figure.jpg")
    assert not list(tmp_path.iterdir())


def test_looks_are_the_same_in_every_panel():
    table = example_table(["one", "two"], groups=["CUB", "SUN"], metrics=ALL)
    for axes in panels(drawn("curve", table).subfigs[0]):
        lines = [line for line in axes.lines if len(line.get_xdata()) > 1]
        assert [to_hex(line.get_color()).upper() for line in lines] == ["#0072B2", "#D55E00"]
