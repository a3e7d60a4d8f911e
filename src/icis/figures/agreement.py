"""Our numbers against published ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from icis.figures.style import (  # fmt: skip
    GREY,
    LABEL_WIDTHS,
    LINE,
    SIZE,
    Legend,
    Look,
    averaged,
    broken,
    limits,
    method_handles,
    page,
    plain,
    say,
    seeds_of,
)
from icis.results import ACCURACIES, Published, ResultTable, Summary, difference

NOTHING = "no published numbers for this table"
FILLINGS = ("full", "none", "left", "top", "right", "bottom")
"""Of the markers, by group; from the seventh on they begin anew."""
PANEL, STRIP = 2.6, 1.0
"""Inches: the height of a scatter, and of the differences below it."""


@dataclass(frozen=True)
class Pair:
    """A number that we measured and that is published."""

    g: int
    r: int
    ours: Summary
    published: Published

    @property
    def errors(self) -> float | None:
        """Return ours minus published in units of their combined standard error, if known."""
        found = difference(self.ours, self.published)
        return None if found.errors is None else math.copysign(found.errors, found.value)


def draw(table: ResultTable) -> Figure:
    """Draw a panel a metric, ours over published, with the line on which they are equal.

    Methods have colours and markers, groups have fillings. Differences in units of the combined
    standard error are drawn below where deviations and numbers of seeds are known.
    """
    by_metric = {
        metric: pairs
        for metric in table.metrics
        if metric in ACCURACIES and (pairs := _pairs(table, metric))
    }
    if not by_metric:
        figure, body = page(table, PANEL / 2, "Our means against published numbers.")
        axes = body.subplots()
        say(axes, NOTHING)
        return figure
    every = [pair for pairs in by_metric.values() for pair in pairs]
    strip = any(pair.errors is not None for pair in every)
    columns = min(2, len(by_metric))
    rows = math.ceil(len(by_metric) / columns)
    height = PANEL + STRIP * strip + 3 * LINE
    legend = Legend(_handles(table, every))
    figure, body = page(table, rows * height, _key(table, list(by_metric), strip), legend)
    if len(by_metric) == 1:  # half as wide as the page, so that it is about square
        parts = body.subfigures(1, 3, squeeze=False, width_ratios=[1, 2, 1])[0, 1:]
    else:
        parts = body.subfigures(rows, columns, squeeze=False).ravel()
    for part, (metric, pairs) in zip(parts, by_metric.items(), strict=False):
        _draw_metric(part, metric, pairs, strip)
    return figure


def _pairs(table: ResultTable, metric: str) -> list[Pair]:
    keys = [(g, metric) for g in range(len(table.groups))]
    found = [
        (g, r, row.cells[key], row.published.get(key))
        for r, row in enumerate(table.methods)
        for g, key in enumerate(keys)
    ]
    return [Pair(g, r, ours, told) for g, r, ours, told in found if ours and told]


def _draw_metric(part: SubFigure, metric: str, pairs: list[Pair], strip: bool) -> None:
    rows = 2 if strip else 1
    ratios = [PANEL, STRIP][:rows]
    panels = part.subplots(rows, 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    upper = panels[0]
    plain(upper, "both")
    low, high = limits(
        end
        for pair in pairs
        for value, std in (
            (pair.ours.mean, pair.ours.std),
            (pair.published.value, pair.published.std),
        )
        for end in (value - (std or 0), value + (std or 0))
    )
    upper.plot([low, high], [low, high], color=GREY, linewidth=0.8, linestyle=(0, (3, 2)))
    for pair in pairs:
        _draw_pair(upper, pair)
    upper.set_xlim(low, high)
    upper.set_ylim(low, high)
    for axis in (upper.xaxis, upper.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    upper.set_title(metric)
    upper.set_ylabel("ours (%)")
    if strip:
        _draw_differences(panels[1], pairs)
    panels[-1].set_xlabel("published (%)")


def _draw_pair(axes: Axes, pair: Pair) -> None:
    look = Look.of(pair.r)
    axes.errorbar(pair.published.value, pair.ours.mean, xerr=pair.published.std, yerr=pair.ours.std,
                  ecolor=look.colour, elinewidth=0.7, fmt="none")  # fmt: skip
    axes.plot([pair.published.value], [pair.ours.mean], **_marker(look, pair.g))


def _marker(look: Look, g: int) -> dict[str, Any]:
    filling = FILLINGS[g % len(FILLINGS)]
    return {
        "color": look.colour, "marker": look.marker, "markersize": SIZE + 1, "linestyle": "none",
        "fillstyle": "full" if filling == "none" else filling, "markerfacecoloralt": "white",
        "markerfacecolor": "white" if filling == "none" else look.colour, "zorder": 3,
    }  # fmt: skip


def _draw_differences(axes: Axes, pairs: list[Pair]) -> None:
    plain(axes, "both")
    axes.axhspan(-2, 2, color=GREY, alpha=0.1, linewidth=0)
    axes.axhline(0, color=GREY, linewidth=0.8, linestyle=(0, (3, 2)))
    there = [(pair, pair.errors) for pair in pairs if pair.errors is not None]
    for pair, errors in there:
        axes.plot([pair.published.value], [errors], **_marker(Look.of(pair.r), pair.g))
    axes.set_ylim(*limits([-2.5, 2.5, *(errors for _, errors in there)], margin=0.12))
    axes.locator_params(axis="y", nbins=4)
    axes.set_ylabel("difference\n(std errors)")


def _handles(table: ResultTable, pairs: list[Pair]) -> list[Line2D]:
    """Return entries for the methods, then for the groups where there are several."""
    shown = {table.methods[pair.r].stem for pair in pairs}
    methods = method_handles(table, line=False)
    handles = [each for each, row in zip(methods, table.methods, strict=True) if row.stem in shown]
    if len(table.groups) > 1:
        for g in sorted({pair.g for pair in pairs}):
            style = _marker(Look(GREY, "o", "none"), g)
            handles.append(
                Line2D([], [], label=broken(table.groups[g].label, LABEL_WIDTHS[1]), **style)
            )
    return handles


def _key(table: ResultTable, metrics: list[str], strip: bool) -> str:
    key = (
        f"Ours ({averaged(seeds_of(table, metrics))}) against published numbers, both ± standard "
        "deviation where known; dashed: equal."
    )
    if strip:
        key += " Below: ours minus published in units of the combined standard error, shaded: ±2."
    return key
