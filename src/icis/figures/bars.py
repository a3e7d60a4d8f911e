"""The numbers of a table as bars, with every seed shown."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from icis.figures.style import (  # fmt: skip
    BLUE,
    FONT_SIZE,
    GREEN,
    GREY,
    LINE,
    ORANGE,
    PURPLE,
    SKY,
    averaged,
    broken,
    ends,
    names,
    part_title,
    plain,
    seeds_of,
    several,
    stacked,
)
from icis.results import ACCURACIES, CHANCE, ResultTable, Summary
from icis.shown import heading

COLOURS = {"T1": BLUE, "U": ORANGE, "S": GREEN, "H": PURPLE}
GAP = 0.05
"""Inches between the names of two methods."""
THINNEST = 0.2
"""Inches from one bar to the next, so that the dots of five seeds stand apart."""
BAR = 0.68
TITLES = 72
"""Characters of all panels' titles side by side."""


def draw(table: ResultTable) -> Figure:
    """Draw a row of panels a group, a panel a metric, a bar a method from top to bottom.

    Metrics are T1, U, S and H as far as the table has them, else all that it has. Accuracies have
    one scale in the whole figure, so that lengths can be compared.
    """
    metrics = [each for each in table.metrics if each in ACCURACIES] or list(table.metrics)
    labels = names(table.methods)
    slot = max(LINE * max(name.count("\n") + 1 for name in labels) + GAP, THINNEST)
    titles = [broken(heading(metric), TITLES // len(metrics)) for metric in metrics]
    above = LINE * max(title.count("\n") for title in titles)
    height = slot * len(labels) + 4 * LINE + above
    figure, parts = stacked(table, height, _key(table, metrics))
    for g, part in enumerate(parts):
        _draw_group(part, table, g, dict(zip(metrics, titles, strict=True)), labels)
    return figure


def _draw_group(
    part: SubFigure, table: ResultTable, g: int, titles: dict[str, str], labels: list[str]
) -> None:
    part_title(part, table.groups[g].label)
    panels = part.subplots(1, len(titles), sharey=True, squeeze=False)[0]
    for axes, (metric, title) in zip(panels, titles.items(), strict=True):
        chance = table.chance.cells[g, metric]
        limit = _limit(table, ACCURACIES if metric in ACCURACIES else (metric,))
        axes.set_xlim(0, limit)
        summaries = [row.cells[g, metric] for row in table.methods]
        _draw_bars(axes, summaries, COLOURS.get(metric, SKY))
        if chance:
            _draw_chance(axes, chance.mean, limit)
        axes.set_title(title, pad=1.7 * FONT_SIZE if chance else None)
    panels[0].set_ylim(len(labels) - 0.5, -0.5)
    panels[0].set_yticks(range(len(labels)), labels)


def _draw_bars(axes: Axes, summaries: list[Summary | None], colour: str) -> None:
    plain(axes, "x")
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=4)
    for position, summary in enumerate(summaries):
        if summary is None:
            axes.annotate("no result", (0, position), xytext=(3, 0), textcoords="offset points",
                          va="center", color=GREY, fontstyle="italic")  # fmt: skip
            continue
        axes.barh(position, summary.mean, height=BAR, color=colour)
        if summary.std is not None:
            axes.errorbar(summary.mean, position, xerr=summary.std, color="black",
                          linewidth=0.8, capsize=2)  # fmt: skip
        spread = np.linspace(-BAR / 3, BAR / 3, summary.n) if summary.n > 1 else np.zeros(1)
        axes.plot(summary.values, position + spread, linestyle="none", marker="o", markersize=2,
                  markerfacecolor="white", markeredgecolor="black", markeredgewidth=0.5,
                  zorder=3)  # fmt: skip


def _draw_chance(axes: Axes, level: float, limit: float) -> None:
    axes.axvline(level, color=GREY, linestyle=(0, (3, 2)), linewidth=0.9)
    left = level < limit / 2
    axes.annotate(f"chance {level:.1f}", (level, 1), xycoords=axes.get_xaxis_transform(),
                  xytext=(0, 1.5), textcoords="offset points", va="bottom",
                  ha="left" if left else "right", color=GREY)  # fmt: skip


def _limit(table: ResultTable, metrics: Sequence[str]) -> float:
    """Return the right end of an axis that shows all seeds and whiskers of some metrics."""
    cells = [cell for row in table.rows for (_, key), cell in row.cells.items() if key in metrics]
    found = [end for cell in cells if cell for end in ends(cell) if math.isfinite(end)]
    highest = max(found, default=0)
    return 1.06 * highest if highest > 0 else 1


def _key(table: ResultTable, metrics: list[str]) -> str:
    """Return what is shown, in a sentence."""
    seeds = seeds_of(table, metrics)
    spread = ", whiskers: ± sample standard deviation, dots: single seeds"
    key = [f"Bars: {averaged(seeds)}{several(seeds, spread)}"]
    if any(metric in CHANCE for metric in metrics):
        key.append("dashed: chance")
    if any(metric in ACCURACIES for metric in metrics):
        key.append("all in percent")
    return ", ".join(key) + "."
