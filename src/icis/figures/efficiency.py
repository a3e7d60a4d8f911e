"""Data efficiency: accuracy by the number of seen classes that methods learn from."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from icis.figures.style import (  # fmt: skip
    GREY,
    SIZE,
    Legend,
    Look,
    averaged,
    chosen,
    method_handles,
    page,
    part_title,
    part_title_height,
    plain,
    say,
    seeds_of,
    several,
)
from icis.results import ACCURACIES, GroupHeader, ResultTable, Row, Summary

METRICS = ("T1", "H")
PANEL = 2.3
MOST_LEVEL = 6
"""Sizes up to which their labels fit side by side."""
LOGARITHMIC = 8
"""Ratio of the most to the fewest classes from which the axis is logarithmic."""
Counts = dict[int, tuple[int, str]]
"""By a group's position: its number of seen classes, and how that is written."""


def draw(table: ResultTable) -> Figure:
    """Draw a row of panels for what differs apart from the number of seen classes.

    A panel each for T1 and H, a line a method. Published numbers have hollow markers. The number
    behind ``all`` is that of ``table.seen_counts``; a group whose number is unknown is left out,
    and the foot says so.
    """
    metrics = chosen(table, METRICS)
    counts = _counts(table)
    series: dict[tuple[str, ...], list[int]] = {}
    for g, group in enumerate(table.groups):
        series.setdefault(group.parts[:4], []).append(g)
    varying = [not axis or len({each[axis] for each in series}) > 1 for axis in range(4)]
    titles = [
        " / ".join(name for name, shown in zip(parts, varying, strict=True) if shown)
        for parts in series
    ]
    heights = [PANEL + part_title_height(title) for title in titles]
    legend = Legend([*method_handles(table, line=True, gone=_gone(table, metrics)),
                     *_published_handle(table, metrics)])  # fmt: skip
    figure, body = page(table, sum(heights), _key(table, metrics, counts), legend)
    parts = body.subfigures(len(series), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, title, groups in zip(parts, titles, series.values(), strict=True):
        part_title(part, title)
        panels = part.subplots(1, len(metrics), squeeze=False)[0]
        for axes, metric in zip(panels, metrics, strict=True):
            _draw_panel(axes, table, metric, [g for g in groups if g in counts], counts)
    return figure


def _counts(table: ResultTable) -> Counts:
    counts = {}
    for g, group in enumerate(table.groups):
        number = table.seen_counts.get(g, int(group.n_seen) if group.n_seen.isdecimal() else None)
        if number is not None:
            counts[g] = (number, f"all ({number})" if _is_all(group) else str(number))
    return counts


def _is_all(group: GroupHeader) -> bool:
    return not group.n_seen.isdecimal()


def _draw_panel(
    axes: Axes, table: ResultTable, metric: str, groups: list[int], counts: Counts
) -> None:
    axes.set_title(metric)
    axes.set_xlabel("seen classes to learn from")
    axes.set_ylabel(f"{metric} (%)" if metric in ACCURACIES else metric)
    groups = sorted(groups, key=lambda g: counts[g][0])
    for r, row in enumerate(table.methods):
        _draw_method(axes, row, Look.of(r), metric, groups, counts)
    if not axes.lines:
        say(axes, "no result")
        return
    plain(axes, "both")
    places = {counts[g][0]: counts[g][1] for g in groups}
    if max(places) >= LOGARITHMIC * min(places):
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(list(places)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(list(places), list(places.values()))
    if len(places) > MOST_LEVEL:
        axes.tick_params(axis="x", labelrotation=90)
    if len(places) == 1:
        only = next(iter(places))
        axes.set_xlim(only - 1, only + 1)
    else:
        axes.margins(x=0.08)


def _draw_method(
    axes: Axes, row: Row, look: Look, metric: str, groups: list[int], counts: Counts
) -> None:
    there = [(counts[g][0], cell) for g in groups if (cell := row.cells[g, metric])]
    if there:
        axes.errorbar([x for x, _ in there], [cell.mean for _, cell in there],
                      yerr=_deviations([cell for _, cell in there]), color=look.colour,
                      marker=look.marker, markersize=SIZE, linestyle=look.dashes, linewidth=1.2,
                      elinewidth=0.7, capsize=2)  # fmt: skip
    known = row.published
    told = [(counts[g][0], known[g, metric].value) for g in groups if (g, metric) in known]
    if told:
        axes.plot([x for x, _ in told], [value for _, value in told], color=look.colour,
                  marker=look.marker, markersize=SIZE - 0.5, markerfacecolor="white",
                  linestyle=":", linewidth=0.8, zorder=3)  # fmt: skip


def _deviations(cells: list[Summary]) -> list[float] | None:
    """Return the whiskers' lengths, None where no cell has a deviation."""
    return [cell.std or 0 for cell in cells] if any(cell.std for cell in cells) else None


def _gone(table: ResultTable, metrics: list[str]) -> list[str]:
    wanted = [(g, metric) for g in range(len(table.groups)) for metric in metrics]
    return [row.stem for row in table.methods if not any(row.cells[key] for key in wanted)]


def _has_published(table: ResultTable, metrics: list[str]) -> bool:
    return any(key[1] in metrics for row in table.methods for key in row.published)


def _published_handle(table: ResultTable, metrics: list[str]) -> list[Line2D]:
    if not _has_published(table, metrics):
        return []
    return [Line2D([], [], color=GREY, marker="o", markersize=SIZE - 0.5, markerfacecolor="white",
                   linestyle=":", linewidth=0.8, label="published")]  # fmt: skip


def _key(table: ResultTable, metrics: list[str], counts: Counts) -> str:
    seeds = seeds_of(table, metrics)
    key = f"Lines: {averaged(seeds)}{several(seeds, ', whiskers: ± sample standard deviation')}"
    if _has_published(table, metrics):
        key += "; hollow markers, dotted: published numbers of the same method"
    key += "."
    if len(counts) < len(table.groups):
        key += " Left out: “all” seen classes, where their number is not known."
    return key
