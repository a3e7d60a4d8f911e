"""What all figures share: sizes, colours and markers, the page, and how it is saved."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D

from icis.artifacts import atomic_path
from icis.errors import IcisError
from icis.results import ResultTable, Row, Summary

SUFFIXES = ("svg", "pdf", "png")

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, BLACK)
"""That of Okabe and Ito, which colour-blind people can tell apart, less its yellow."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*", "h")
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)))
GREY, LIGHT = "#555555", "#dddddd"

WIDTH = 7.0
"""Inches: the text block of a page."""
FONT_SIZE = 7.0
LINE = 1.25 * FONT_SIZE / 72
"""Inches from one line of text to the next."""
EDGE = 0.06
"""Inches above and below whatever stands on the page."""
TITLE_WIDTH, FOOT_WIDTH = 75, 125
"""Characters to a line across the page."""
LABEL_WIDTHS = (26, 40)
"""Fewest and most characters to a line of a method's name."""
HANDLE_WIDTH = 9
"""Characters that a legend's line and the gap to the next column take."""
SIZE = 4.5
"""Points: a marker that stands for a mean."""
DPI = 200
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same glyphs on every machine
    "font.size": FONT_SIZE,
    "axes.titlesize": FONT_SIZE + 1,
    "axes.labelsize": FONT_SIZE,
    "xtick.labelsize": FONT_SIZE,
    "ytick.labelsize": FONT_SIZE,
    "legend.fontsize": FONT_SIZE,
    "legend.title_fontsize": FONT_SIZE,
    "svg.hashsalt": "icis",
    "text.parse_math": False,  # a $ in a name is a $
    "text.usetex": False,
}
METADATA: dict[str, dict[str, None]] = {
    "svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
    "pdf": dict.fromkeys(("CreationDate", "Creator", "Producer")),
    "png": {"Software": None},
}


def save(figure: Figure, path: Path) -> None:
    """Write a figure atomically as .svg, .pdf or .png; the same figure gives the same bytes."""
    suffix = path.suffix.removeprefix(".")
    if suffix not in SUFFIXES:
        raise IcisError(f"{path}: a figure's file should end in .{', .'.join(SUFFIXES)}")
    with matplotlib.rc_context(STYLE), atomic_path(path) as temporary:
        figure.savefig(temporary, format=suffix, dpi=DPI, metadata=METADATA[suffix])


@dataclass(frozen=True)
class Look:
    """How a method is drawn, the same in every panel; colour is never the only difference."""

    colour: str
    marker: str
    dashes: Any

    @classmethod
    def of(cls, position: int) -> Look:
        """Return the look of a table's n-th method; the first 84 differ."""
        kinds: tuple[Sequence[Any], ...] = (PALETTE, MARKERS, DASHES)
        return cls(*(each[position % len(each)] for each in kinds))

    def handle(self, label: str, *, line: bool) -> Line2D:
        """Return what stands beside a method's name in a legend."""
        return Line2D([], [], color=self.colour, marker=self.marker, markersize=SIZE,
                      linestyle=self.dashes if line else "none", linewidth=1.2,
                      label=label)  # fmt: skip


@dataclass(frozen=True)
class Legend:
    """Entries below the panels, in as many columns as their texts leave room for."""

    handles: Sequence[Line2D]

    @property
    def columns(self) -> list[list[str]]:
        """Return the labels column by column, as matplotlib distributes them."""
        labels = [str(each.get_label()) for each in self.handles]
        longest = max((len(line) for each in labels for line in each.split("\n")), default=1)
        count = max(1, min(len(labels), (FOOT_WIDTH - 5) // (longest + HANDLE_WIDTH)))
        return [[str(each) for each in part] for part in np.array_split(labels, count)]

    @property
    def height(self) -> float:
        """Return the height in inches."""
        lines = [sum(each.count("\n") + 1.2 for each in column) for column in self.columns]
        return LINE * (max(lines) + 0.5) if self.handles else 0


def page(
    table: ResultTable, body: float, key: str, legend: Legend | None = None
) -> tuple[Figure, SubFigure | Figure]:
    """Return a figure with title, legend and foot, and the part of it that is for panels.

    ``body`` is the height of that part in inches. The foot is ``key``, which says what is shown,
    and the table's caution.
    """
    title = textwrap.wrap(table.title, TITLE_WIDTH)
    foot = [line for text in (key, table.caution or "") for line in _wrapped(text, FOOT_WIDTH)]
    below = legend.height if legend else 0
    height = LINE * (2 * len(title) + len(foot) + 1) + EDGE + body + below
    figure = Figure(
        figsize=(WIDTH, height), layout=ConstrainedLayoutEngine(h_pad=EDGE, wspace=0.05)
    )
    figure.suptitle("\n".join(title), fontsize=FONT_SIZE + 3)
    figure.supxlabel("\n".join(foot), fontsize=FONT_SIZE, x=0.01, ha="left")
    if not legend or not below:
        return figure, figure
    upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[body, below])[:, 0]
    handles: Sequence[Artist] = legend.handles
    lower.legend(handles=handles, loc="center", ncols=len(legend.columns), frameon=False,
                 borderpad=0, borderaxespad=0, handlelength=3, columnspacing=1.5,
                 labelspacing=0.2)  # fmt: skip
    return figure, upper


def stacked(table: ResultTable, height: float, key: str) -> tuple[Figure, Sequence[SubFigure]]:
    """Return a page with a part a group, one below the other; ``height`` is without its title."""
    heights = [height + part_title_height(group.label) for group in table.groups]
    figure, body = page(table, sum(heights), key)
    parts = body.subfigures(len(table.groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    return figure, list(parts)


def names(rows: Sequence[Row]) -> list[str]:
    """Return the methods' names, long ones broken into two lines or as few as will do."""
    longest = max((len(row.display) for row in rows), default=0)
    width = min(max(LABEL_WIDTHS[0], longest // 2 + 5), LABEL_WIDTHS[1])
    return ["\n".join(textwrap.wrap(row.display, width)) for row in rows]


def method_handles(table: ResultTable, *, line: bool, gone: Iterable[str] = ()) -> list[Line2D]:
    """Return a legend's entries for the methods; those whose stems are ``gone`` have no result."""
    without = set(gone)
    return [
        Look.of(r).handle(f"{name} (no result)" if row.stem in without else name, line=line)
        for r, (row, name) in enumerate(zip(table.methods, names(table.methods), strict=True))
    ]


def panel_title(axes: Axes, text: str, width: int, *, bold: bool = False) -> None:
    """Write a title, broken into lines of ``width`` characters."""
    weight: Literal["bold", "normal"] = "bold" if bold else "normal"
    axes.set_title(broken(text, width), fontweight=weight)


def part_title(part: SubFigure, text: str) -> None:
    """Write the name of a group of columns above its panels."""
    part.suptitle(broken(text, TITLE_WIDTH), fontsize=FONT_SIZE + 1.5,
                  fontweight="bold")  # fmt: skip


def part_title_height(text: str) -> float:
    """Return how many inches a group's name takes above its panels."""
    return LINE * (1.3 * len(_wrapped(text, TITLE_WIDTH)) + 0.5)


def plain(axes: Axes, grid: Literal["x", "y", "both"]) -> None:
    """Take away what an axes need not have, and draw a light grid behind the data."""
    axes.set_axisbelow(True)
    axes.grid(axis=grid, color=LIGHT, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def say(axes: Axes, text: str) -> None:
    """Write a sentence into an axes that has nothing to show."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel("")
    axes.set_ylabel("")
    axes.spines[:].set_visible(False)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY,
              fontstyle="italic")  # fmt: skip


def limits(values: Iterable[float], *, margin: float = 0.06) -> tuple[float, float]:
    """Return the ends of an axis that shows all finite values, with a margin."""
    there = [value for value in values if math.isfinite(value)]
    low, high = (min(there), max(there)) if there else (0.0, 1.0)
    room = margin * (high - low) or max(1.0, 0.05 * abs(high))
    return low - room, high + room


def ends(summary: Summary) -> list[float]:
    """Return the values of all seeds and the ends of the whisker."""
    std = summary.std or 0
    return [*summary.values, summary.mean - std, summary.mean + std]


def chosen(table: ResultTable, wanted: Sequence[str]) -> list[str]:
    """Return the wanted metrics that the table has, else the first ones that it has."""
    return [each for each in wanted if each in table.metrics] or list(table.metrics[: len(wanted)])


def seeds_of(table: ResultTable, metrics: Iterable[str]) -> list[int]:
    """Return how many seeds each mean of some metrics is taken over."""
    wanted = set(metrics)
    cells = [row.cells[key] for row in table.methods for key in row.cells if key[1] in wanted]
    return [cell.n for cell in cells if cell]


def averaged(seeds: Iterable[int]) -> str:
    """Return ``mean over 3 seeds``, or ``1 to 3``, ``one seed``; ``no result`` without any."""
    known = sorted(set(seeds))
    if len(known) > 1:
        return f"mean over {known[0]} to {known[-1]} seeds"
    if not known:
        return "no result"
    return "one seed" if known == [1] else f"mean over {known[0]} seeds"


def several(seeds: Iterable[int], text: str) -> str:
    """Return what says something of more than one seed, else nothing."""
    return text if any(number > 1 for number in seeds) else ""


def broken(text: str, width: int) -> str:
    """Return a text broken into lines."""
    return "\n".join(_wrapped(text, width))


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False)
