"""An ablation as a ladder: what each row of the table adds to the one before."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from icis.figures.style import (  # fmt: skip
    BLACK,
    BLUE,
    GREY,
    LINE,
    ORANGE,
    SIZE,
    averaged,
    chosen,
    ends,
    limits,
    names,
    part_title,
    plain,
    seeds_of,
    several,
    stacked,
)
from icis.results import ACCURACIES, ResultTable, Summary

METRICS = ("T1", "H")
STEP = 0.56
"""Height of a step's bar, in rows."""
THINNEST = 0.24
"""Inches from one step to the next."""


def draw(table: ResultTable) -> Figure:
    """Draw a part a group, a panel each for T1 and H, a step a method from top to bottom.

    A bar reaches from the mean of the step before to a step's own.
    """
    metrics = chosen(table, METRICS)
    labels = names(table.methods)
    slot = max(LINE * max(name.count("\n") + 1.4 for name in labels), THINNEST)
    figure, parts = stacked(table, slot * len(labels) + 4 * LINE, _key(table, metrics))
    for g, part in enumerate(parts):
        _draw_group(part, table, g, metrics, labels)
    return figure


def _draw_group(
    part: SubFigure, table: ResultTable, g: int, metrics: list[str], labels: list[str]
) -> None:
    part_title(part, table.groups[g].label)
    panels = part.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        summaries = [row.cells[g, metric] for row in table.methods]
        _draw_steps(axes, summaries)
        cells = [row.cells[at, metric] for at in range(len(table.groups)) for row in table.methods]
        axes.set_xlim(*limits(end for cell in cells if cell for end in ends(cell)))
        axes.set_title(metric)
    panels[0].set_ylim(len(labels) - 0.5, -0.5)
    panels[0].set_yticks(range(len(labels)), labels)


def _draw_steps(axes: Axes, summaries: list[Summary | None]) -> None:
    plain(axes, "x")
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=5)
    before: tuple[int, float] | None = None
    for position, summary in enumerate(summaries):
        if summary is None:
            _write(axes, position, "no result", missing=True)
            continue
        text = f"{summary.mean:.1f}"
        if before:
            last, level = before
            gain = summary.mean - level
            axes.barh(position, gain, left=level, height=STEP, color=BLUE if gain >= 0 else ORANGE,
                      alpha=0.35, edgecolor=BLACK, linewidth=0,
                      hatch=None if gain >= 0 else "////")  # fmt: skip
            axes.plot([level] * 2, [last, position + STEP / 2], color=GREY, linewidth=0.7,
                      linestyle=(0, (3, 2)))  # fmt: skip
            text += f"  ({_signed(gain)})"
        _draw_mean(axes, position, summary)
        _write(axes, position, text)
        before = position, summary.mean


def _draw_mean(axes: Axes, position: int, summary: Summary) -> None:
    axes.plot([summary.mean], [position], marker="o", markersize=SIZE, color=BLACK,
              linestyle="none", zorder=3)  # fmt: skip
    if summary.n > 1:
        spread = np.linspace(-STEP / 3, STEP / 3, summary.n)
        axes.plot(summary.values, position + spread, linestyle="none", marker="o", markersize=2,
                  markerfacecolor="white", markeredgecolor=BLACK, markeredgewidth=0.5,
                  zorder=4)  # fmt: skip


def _write(axes: Axes, position: int, text: str, *, missing: bool = False) -> None:
    """Write a row's numbers right of the panel, where no data is."""
    axes.annotate(text, (1, position), xycoords=axes.get_yaxis_transform(), xytext=(4, 0),
                  textcoords="offset points", va="center", annotation_clip=False,
                  color=GREY if missing else BLACK,
                  fontstyle="italic" if missing else "normal")  # fmt: skip


def _signed(gain: float) -> str:
    """Return ``+1.2``, ``−0.3`` or ``±0.0``."""
    text = f"{abs(gain):.1f}"
    sign = "±" if float(text) == 0 else "+" if gain > 0 else "−"
    return sign + text


def _key(table: ResultTable, metrics: list[str]) -> str:
    seeds = seeds_of(table, metrics)
    key = (
        f"Large dots: {averaged(seeds)}{several(seeds, ', small dots: single seeds')}; bars: from "
        "the mean of the step before, blue up, orange and hatched down; in brackets: the difference"
    )
    return key + ("; in percent." if set(metrics) <= set(ACCURACIES) else ".")
