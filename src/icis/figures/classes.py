"""Which unseen classes are recognised: the accuracy of every one of them."""

from __future__ import annotations

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from icis.figures.style import (  # fmt: skip
    LIGHT,
    LINE,
    SIZE,
    Legend,
    Look,
    averaged,
    method_handles,
    page,
    part_title,
    part_title_height,
    plain,
    say,
)
from icis.results import ResultTable

MOST_NAMES = 60
"""Classes up to which their names fit below the axis."""
LONGEST = 28
"""Characters of a class's name."""
CHARACTER = 0.058
"""Inches: the width of a character, rounded up."""
PANEL = 1.5
KINDS = {"accuracy": "among all classes (%)", "zsl": "among unseen classes (%)"}
"""Columns of the classes, and what they measure."""


def draw(table: ResultTable, classes: pl.DataFrame) -> Figure:
    """Draw the unseen classes from left to right and a dot a method; a part a group.

    Classes are sorted by the accuracy of the table's reference, or of the last method that has any
    result. ``classes`` as ``icis.figures.draw`` has them; the upper panel, accuracy among unseen
    classes alone, is left out if none is known.
    """
    unseen = classes.filter(~pl.col("seen"))
    means = (
        unseen.group_by("group", "stem", "class")
        .agg(pl.col("accuracy").mean(), pl.col("zsl").mean(), seeds=pl.col("seed").n_unique())
        .sort("group", "stem", "class")
    )
    kinds = [each for each in ("zsl", "accuracy") if means[each].drop_nulls().len()] or ["accuracy"]
    orders = [_order(table, means.filter(pl.col("group") == g)) for g in range(len(table.groups))]
    heights = [
        _panel_height(table) * len(kinds) * bool(order)
        + _label_height(order)
        + part_title_height(group.label)
        for group, order in zip(table.groups, orders, strict=True)
    ]
    there = set(means["stem"])
    gone = [row.stem for row in table.methods if row.stem not in there]
    legend = Legend(method_handles(table, line=False, gone=gone))
    figure, body = page(table, sum(heights), _key(table, means), legend)
    parts = body.subfigures(len(table.groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for g, (part, order) in enumerate(zip(parts, orders, strict=True)):
        group = means.filter(pl.col("group") == g)
        _draw_group(part, table, g, group, order, kinds)
    return figure


def _order(table: ResultTable, means: pl.DataFrame) -> list[str]:
    """Return a group's unseen classes, the best recognised by the reference first."""
    there = set(means["stem"])
    rows = [table.methods[table.reference], *reversed(table.methods)]
    reference = next((row.stem for row in rows if row.stem in there), "")
    best = means.filter(pl.col("stem") == reference)
    accuracy = dict(best.select("class", "accuracy").iter_rows())
    zsl = dict(best.select("class", "zsl").iter_rows())
    return sorted(
        set(means["class"]),
        key=lambda name: (-accuracy.get(name, -1.0), -(zsl.get(name) or 0.0), name),
    )


def _draw_group(
    part: SubFigure, table: ResultTable, g: int, means: pl.DataFrame, order: list[str],
    kinds: list[str],
) -> None:  # fmt: skip
    part_title(part, table.groups[g].label)
    if not order:
        say(part.subplots(), "no result")
        return
    panels = part.subplots(len(kinds), 1, sharex=True, squeeze=False)[:, 0]
    for axes, kind in zip(panels, kinds, strict=True):
        _draw_panel(axes, table, means, order, kind)
        axes.set_ylabel(KINDS[kind])
    panels[-1].set_xlim(-0.7, len(order) - 0.3)
    if len(order) <= MOST_NAMES:
        panels[-1].set_xticks(range(len(order)), map(_short, order), rotation=90)
        for axes in panels:
            axes.tick_params(axis="x", length=0)
    else:
        panels[-1].set_xlabel("rank of the class")
        ranks = [1, *range(10, len(order) + 1, 10)]
        while len(ranks) > 12:
            ranks = [1, *ranks[2::2]]
        panels[-1].set_xticks([rank - 1 for rank in ranks], map(str, ranks))


def _draw_panel(
    axes: Axes, table: ResultTable, means: pl.DataFrame, order: list[str], kind: str
) -> None:
    plain(axes, "y")
    known = means.filter(pl.col(kind).is_not_null())
    place = {name: x for x, name in enumerate(order)}
    spans = known.group_by("class").agg(low=pl.col(kind).min(), high=pl.col(kind).max())
    for name, low, high in spans.sort("class").iter_rows():
        axes.plot([place[name]] * 2, [low, high], color=LIGHT, linewidth=1, zorder=1)
    size = SIZE if len(order) <= MOST_NAMES else SIZE - 1
    for r, row in enumerate(table.methods):
        look = Look.of(r)
        found = dict(known.filter(pl.col("stem") == row.stem).select("class", kind).iter_rows())
        at = [name for name in order if name in found]
        if at:
            axes.plot([place[name] for name in at], [found[name] for name in at],
                      linestyle="none", marker=look.marker, markersize=size, color=look.colour,
                      markeredgecolor="white", markeredgewidth=0.3, zorder=2)  # fmt: skip
    axes.set_ylim(-5, 105)
    axes.set_yticks(range(0, 101, 20))


def _short(name: str) -> str:
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def _panel_height(table: ResultTable) -> float:
    """Return the inches of an axes: more methods need more room to stand apart."""
    return PANEL + 0.06 * max(0, len(table.methods) - 4)


def _label_height(order: list[str]) -> float:
    """Return the inches below the axis."""
    if not order or len(order) > MOST_NAMES:
        return 3 * LINE
    return CHARACTER * max(len(_short(name)) for name in order) + LINE


def _key(table: ResultTable, means: pl.DataFrame) -> str:
    key = f"Markers: accuracy of each unseen class, {averaged(means['seeds'])}"
    if len(means) and len(table.methods) > 1:
        reference = table.methods[table.reference]
        missing = set(means["group"]) - set(means.filter(pl.col("stem") == reference.stem)["group"])
        key += f"; sorted by “{reference.display}” among all classes"
        key += ", where it has no result by another method" if missing else ""
    return key + "."
