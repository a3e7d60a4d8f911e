"""The seen-unseen curve: what a bias between seen and unseen classes trades for what."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from icis.figures.style import (  # fmt: skip
    GREY,
    LINE,
    SIZE,
    Legend,
    Look,
    averaged,
    method_handles,
    page,
    panel_title,
    plain,
    say,
    several,
)
from icis.results import ResultTable

GRID = 201
"""Points of a mean curve."""
PLAIN, CALIBRATED = ("U", "S"), ("U_cal", "S_cal")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MeanCurve:
    """Accuracy on seen classes over that on unseen ones, and its deviation over seeds."""

    unseen: Floats
    seen: Floats
    std: Floats | None
    seeds: int


def draw(table: ResultTable, curves: pl.DataFrame) -> Figure:
    """Draw a panel a group and a line a method; ``curves`` as ``icis.figures.draw`` has them."""
    means = {
        (g, row.stem): mean_curve(curves.filter(pl.col("group") == g, pl.col("stem") == row.stem))
        for g in range(len(table.groups))
        for row in table.methods
    }
    groups = len(table.groups)
    columns = min(2, groups)
    rows = math.ceil(groups / columns)
    height = max(2.5 if columns > 1 else 3.6, LINE * (1.15 * len(table.methods) + 7))
    legend = Legend([*_handles(table, means), *_points(table)])
    figure, body = page(table, rows * height, _key(table, means), legend)
    panels = body.subplots(rows, columns, squeeze=False).ravel()
    for g, axes in enumerate(panels):
        if g < groups:
            _draw_group(axes, table, g, means)
            panel_title(axes, table.groups[g].label, 70 // columns, bold=True)
        else:
            axes.remove()
    return figure


def mean_curve(points: pl.DataFrame) -> MeanCurve | None:
    """Return the mean over seeds of one method's curves, None where there are no points.

    A single seed's curve is as measured. Several are read off at the same accuracies on unseen
    classes; one that has ended by there counts as it ended, at offset +inf.
    """
    by_seed = [
        part.select("unseen", "seen").to_numpy().astype(np.float64)
        for _, part in points.group_by("seed", maintain_order=True)
    ]
    by_seed = [each if each[0, 0] <= each[-1, 0] else each[::-1] for each in by_seed]
    if not by_seed:
        return None
    if len(by_seed) == 1:
        return MeanCurve(by_seed[0][:, 0], by_seed[0][:, 1], None, 1)
    low = min(each[0, 0] for each in by_seed)
    high = max(each[-1, 0] for each in by_seed)
    grid = np.linspace(low, high, GRID)
    read = np.array([_read(each, grid) for each in by_seed])
    grid = np.append(grid, high)  # and down to where they end
    read = np.hstack([read, [[each[-1, 1]] for each in by_seed]])
    return MeanCurve(grid, read.mean(axis=0), read.std(axis=0, ddof=1), len(by_seed))


def _read(points: Floats, grid: Floats) -> Floats:
    """Return the seen accuracies at a grid of unseen ones; the upper end of a vertical step."""
    strictly = points[:, 0] + 1e-9 * np.arange(len(points))
    return np.interp(grid, strictly, points[:, 1])


def _draw_group(
    axes: Axes, table: ResultTable, g: int, means: dict[tuple[int, str], MeanCurve | None]
) -> None:
    plain(axes, "both")
    axes.set_xlabel("accuracy on unseen classes, U (%)")
    axes.set_ylabel("accuracy on seen classes, S (%)")
    for r, row in enumerate(table.methods):
        look = Look.of(r)
        curve = means[g, row.stem]
        if curve is not None:
            axes.plot(curve.unseen, curve.seen, color=look.colour, linestyle=look.dashes,
                      linewidth=1.2)  # fmt: skip
            if curve.std is not None:
                low, high = curve.seen - curve.std, curve.seen + curve.std
                axes.fill_between(curve.unseen, np.maximum(low, 0), high, color=look.colour,
                                  alpha=0.12, linewidth=0)  # fmt: skip
        for metrics, face in ((PLAIN, look.colour), (CALIBRATED, "white")):
            point = _point(table, g, r, metrics)
            if point:
                axes.plot(*point, color=look.colour, marker=look.marker, markersize=SIZE + 0.5,
                          markerfacecolor=face, linestyle="none", zorder=4)  # fmt: skip
    if not axes.lines:
        say(axes, "no result")
        return
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    _list_areas(axes, table, g, means)


def _list_areas(
    axes: Axes, table: ResultTable, g: int, means: dict[tuple[int, str], MeanCurve | None]
) -> None:
    """List each method's AUSUC beside the panel, or that it has no curve."""
    handles = []
    for r, row in enumerate(table.methods):
        area = row.cells.get((g, "AUSUC"))
        if means[g, row.stem] is None:
            handles.append(Look.of(r).handle("no result", line=True))
        elif "AUSUC" in table.metrics:
            text = "–" if area is None else f"{area.mean:.1f}"
            text += f" ± {area.std:.1f}" if area is not None and area.std is not None else ""
            handles.append(Look.of(r).handle(text, line=True))
    if handles:
        title = "AUSUC (%)" if "AUSUC" in table.metrics else None
        axes.legend(handles=handles, title=title, loc="upper left", bbox_to_anchor=(1.01, 1),
                    borderaxespad=0, frameon=False, handlelength=3, labelspacing=0.25,
                    alignment="left")  # fmt: skip


def _point(table: ResultTable, g: int, r: int, metrics: tuple[str, str]) -> list[list[float]]:
    cells = [table.methods[r].cells.get((g, metric)) for metric in metrics]
    return [[cell.mean] for cell in cells if cell] if all(cells) else []


def _has(table: ResultTable, metrics: tuple[str, str]) -> bool:
    return set(metrics) <= set(table.metrics)


def _handles(table: ResultTable, means: dict[tuple[int, str], MeanCurve | None]) -> list[Line2D]:
    there = {stem for (_, stem), curve in means.items() if curve is not None}
    gone = [row.stem for row in table.methods if row.stem not in there]
    return method_handles(table, line=True, gone=gone)


def _points(table: ResultTable) -> list[Line2D]:
    """Return the legend's entries for the operating points that the table has."""
    kinds = [(PLAIN, GREY, "without calibration"), (CALIBRATED, "white", "calibrated")]
    return [
        Line2D([], [], linestyle="none", marker="o", markersize=SIZE, markerfacecolor=face,
               markeredgecolor=GREY, label=label)
        for metrics, face, label in kinds
        if _has(table, metrics)
    ]  # fmt: skip


def _key(table: ResultTable, means: dict[tuple[int, str], MeanCurve | None]) -> str:
    numbers = [curve.seeds for curve in means.values() if curve]
    spread = several(numbers, ", bands: ± sample standard deviation")
    key = f"Lines: S over U as the bias against seen classes grows, {averaged(numbers)}{spread}"
    if _has(table, PLAIN):
        key += "; markers: the means of the table"
    return key + "."
