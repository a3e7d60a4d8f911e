"""Figures: the numbers of a table as bars, with every seed shown."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from icis.artifacts import atomic_path
from icis.errors import IcisError
from icis.results import ACCURACIES, CHANCE, ResultTable, Summary

SUFFIXES = ("svg", "pdf", "png")
COLOURS = {"T1": "#0072B2", "U": "#E69F00", "S": "#009E73", "H": "#CC79A7"}
"""From the palette of Okabe and Ito, which colour-blind people can tell apart."""
OTHER_COLOUR = "#56B4E9"
CHANCE_COLOUR = "#555555"

WIDTH = 7.0
"""Inches: the text block of a page."""
FONT_SIZE = 7.0
LINE = 1.25 * FONT_SIZE / 72
"""Inches from one line of text to the next."""
GAP = 0.05
"""Inches between the names of two methods."""
THINNEST = 0.2
"""Inches from one bar to the next, so that the dots of five seeds stand apart."""
LABEL_WIDTHS = (26, 40)
"""Fewest and most characters to a line of a method's name."""
TITLE_WIDTH, FOOT_WIDTH = 75, 125
"""Characters to a line across the page."""
BAR = 0.68
DPI = 200
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same glyphs on every machine
    "font.size": FONT_SIZE,
    "axes.titlesize": FONT_SIZE + 1,
    "axes.labelsize": FONT_SIZE,
    "xtick.labelsize": FONT_SIZE,
    "ytick.labelsize": FONT_SIZE,
    "svg.hashsalt": "icis",
    "text.parse_math": False,  # a $ in a name is a $
    "text.usetex": False,
}
METADATA: dict[str, dict[str, None]] = {
    "svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
    "pdf": dict.fromkeys(("CreationDate", "Creator", "Producer")),
    "png": {"Software": None},
}


def draw(table: ResultTable) -> Figure:
    """Draw a row of panels a group, a panel a metric, a bar a method from top to bottom.

    Metrics are T1, U, S and H as far as the table has them, else all that it has. Accuracies have
    one scale in the whole figure, so that lengths can be compared.
    """
    metrics = [each for each in table.metrics if each in ACCURACIES] or list(table.metrics)
    names = _names(table)
    title = textwrap.wrap(table.title, TITLE_WIDTH)
    foot = _foot(table, metrics)
    slot = max(LINE * max(name.count("\n") + 1 for name in names) + GAP, THINNEST)
    panel = slot * len(names) + 5.5 * LINE
    margins = LINE * (2 * len(title) + len(foot) + 1)
    with matplotlib.rc_context(STYLE):
        layout = ConstrainedLayoutEngine(wspace=0.05)
        size = (WIDTH, margins + panel * len(table.groups))
        figure = Figure(figsize=size, layout=layout)
        figure.suptitle("\n".join(title), fontsize=FONT_SIZE + 3)
        figure.supxlabel("\n".join(foot), fontsize=FONT_SIZE, x=0.01, ha="left")
        parts = figure.subfigures(len(table.groups), 1, squeeze=False)[:, 0]
        for g, part in enumerate(parts):
            _draw_group(part, table, g, metrics, names)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure atomically as .svg, .pdf or .png; the same figure gives the same bytes."""
    suffix = path.suffix.removeprefix(".")
    if suffix not in SUFFIXES:
        raise IcisError(f"{path}: a figure's file should end in .{', .'.join(SUFFIXES)}")
    with matplotlib.rc_context(STYLE), atomic_path(path) as temporary:
        figure.savefig(temporary, format=suffix, dpi=DPI, metadata=METADATA[suffix])


def _draw_group(
    part: SubFigure, table: ResultTable, g: int, metrics: list[str], names: list[str]
) -> None:
    part.suptitle(table.groups[g].label, fontsize=FONT_SIZE + 1.5, fontweight="bold")
    panels = part.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        chance = table.chance.cells[g, metric]
        limit = _limit(table, ACCURACIES if metric in ACCURACIES else (metric,))
        axes.set_xlim(0, limit)
        summaries = [row.cells[g, metric] for row in table.methods]
        _draw_bars(axes, summaries, COLOURS.get(metric, OTHER_COLOUR))
        if chance:
            _draw_chance(axes, chance.mean, limit)
        axes.set_title(metric, pad=1.6 * FONT_SIZE if chance else None)
    panels[0].set_ylim(len(names) - 0.5, -0.5)
    panels[0].set_yticks(range(len(names)), names)


def _draw_bars(axes: Axes, summaries: list[Summary | None], colour: str) -> None:
    axes.set_axisbelow(True)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=4)
    for position, summary in enumerate(summaries):
        if summary is None:
            axes.annotate("no result", (0, position), xytext=(3, 0), textcoords="offset points",
                          va="center", color=CHANCE_COLOUR, fontstyle="italic")  # fmt: skip
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
    axes.axvline(level, color=CHANCE_COLOUR, linestyle=(0, (3, 2)), linewidth=0.9)
    left = level < limit / 2
    axes.annotate(f"chance {level:.1f}", (level, 1), xycoords=axes.get_xaxis_transform(),
                  xytext=(0, 1.5), textcoords="offset points", va="bottom",
                  ha="left" if left else "right", fontsize=FONT_SIZE - 1,
                  color=CHANCE_COLOUR)  # fmt: skip


def _limit(table: ResultTable, metrics: Sequence[str]) -> float:
    """Return the right end of an axis that shows all seeds and whiskers of some metrics."""
    cells = [cell for row in table.rows for (_, key), cell in row.cells.items() if key in metrics]
    there = [cell for cell in cells if cell]
    ends = [end for cell in there for end in (*cell.values, cell.mean + (cell.std or 0))]
    highest = max((end for end in ends if math.isfinite(end)), default=0)
    return 1.06 * highest if highest > 0 else 1


def _names(table: ResultTable) -> list[str]:
    """Return the methods' names, long ones broken into two lines or as few as will do."""
    longest = max(len(row.display) for row in table.methods)
    width = min(max(LABEL_WIDTHS[0], longest // 2 + 5), LABEL_WIDTHS[1])
    return ["\n".join(textwrap.wrap(row.display, width)) for row in table.methods]


def _foot(table: ResultTable, metrics: list[str]) -> list[str]:
    """Return the lines below the panels: a key, and the caution where there is one."""
    key = ["Bars: mean over seeds, whiskers: ± sample standard deviation, dots: single seeds"]
    if any(metric in CHANCE for metric in metrics):
        key.append("dashed: chance")
    if any(metric in ACCURACIES for metric in metrics):
        key.append("all in percent")
    texts = [", ".join(key) + ".", table.caution or ""]
    return [
        line for each in texts for line in textwrap.wrap(each, FOOT_WIDTH, break_on_hyphens=False)
    ]
