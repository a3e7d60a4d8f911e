"""Tables, curves and classes made up directly, for the tests of figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from icis.figures import CLASSES, CURVES
from icis.results import GroupHeader, Published, ResultTable, Row, Summary

NO_CURVES = pl.DataFrame(schema=CURVES)
NO_CLASSES = pl.DataFrame(schema=CLASSES)
LONG = [
    "+ single-modal reconstruction of descriptors and weights",
    "ICIS with unseen descriptors, full method",
    "costs $5 \\nonsense{ or $6 in x_1^2, no formula",
    "a name of nearly a hundred characters, which nobody should give to a method but somebody will",
    "AnUnbrokenWordOfMoreThanFortyCharactersWithoutAnySpaceInIt",
]
CHANCE = {"T1": 2.0, "U": 0.5, "S": 0.5, "H": 0.5}


def summary(*values: float) -> Summary:
    """Return the summary of some seeds."""
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Summary(float(np.mean(values)), std, values)


def example_table(
    names: Sequence[str] = ("ConSE", "MLP", "ICIS"),
    *,
    groups: Sequence[str | GroupHeader] = ("CUB",),
    metrics: Sequence[str] = ("T1", "U", "S", "H"),
    seeds: int = 3,
    missing: Sequence[tuple[int, int]] = (),
    told: Mapping[tuple[int, int, str], Published] | None = None,
    title: str = "Main results",
    caution: str | None = None,
    seen_counts: Mapping[int, int] | None = None,
    seed: int = 0,
) -> ResultTable:
    """Return a table of random numbers; ``missing`` are (group, method), ``told`` is published."""
    rng = np.random.default_rng(seed)
    headers = [
        each if isinstance(each, GroupHeader) else GroupHeader(each, "r101", "last", "att", "all",
                                                               each)
        for each in groups
    ]  # fmt: skip
    rows = [Row("Chance", "chance",
                   cells={(g, m): summary(CHANCE[m]) if m in CHANCE else None
                          for g in range(len(headers)) for m in metrics})]  # fmt: skip
    for r, name in enumerate(names):
        cells: dict[tuple[int, str], Summary | None] = {}
        for g in range(len(headers)):
            level = 25 + 20 * r / len(names) + 8 * g / len(headers)
            levels = {"T1": level + 20, "S": level + 25, "AUSUC": level - 10, "U_cal": level + 12,
                      "S_cal": level + 15, "H_cal": level + 13}  # fmt: skip
            for metric in metrics:
                values = rng.normal(levels.get(metric, level) + rng.normal(0, 2), 1.2, seeds)
                cells[g, metric] = None if (g, r) in missing else summary(*map(float, values))
        known = {(g, metric): what for (g, at, metric), what in (told or {}).items() if at == r}
        rows.append(Row(name, f"m{r}", cells, published=known))
    return ResultTable(
        name="main", title=title, groups=tuple(headers), metrics=tuple(metrics), rows=tuple(rows),
        notes=(caution,) if caution else (), caution=caution, seen_counts=seen_counts or {},
        reference=len(names) - 1,
    )  # fmt: skip


def by_size(datasets: Sequence[str], sizes: Sequence[int | str]) -> list[GroupHeader]:
    """Return groups that differ in data set and number of seen classes."""
    return [
        GroupHeader(name, "r101", "last", "att", str(size), f"{name} / {size}")
        for name in datasets
        for size in sizes
    ]


def example_curves(table: ResultTable, *, seeds: int = 3, points: int = 200) -> pl.DataFrame:
    """Return curves through every method's (U, S) of the table, one a seed."""
    rows = []
    for g in range(len(table.groups)):
        for r, row in enumerate(table.methods):
            if not any(row.cells[g, metric] for metric in table.metrics):
                continue
            rng = np.random.default_rng([g, r])
            for seed in range(seeds):
                bend = 2 + 0.1 * r
                along = np.linspace(0, 1, points)
                u = (45 + 25 * r / len(table.methods) + rng.normal(0, 1)) * along
                s = 75 * (1 - along**bend) + rng.normal(0, 1) * (1 - along)
                rows += [{"group": g, "stem": row.stem, "seed": seed, "seen": float(y),
                          "unseen": float(x)} for x, y in zip(u, s, strict=True)]  # fmt: skip
    return pl.DataFrame(rows, schema=CURVES)


def example_classes(
    table: ResultTable, *, unseen: int = 50, seeds: int = 3, zsl: bool = True, name: str = "species"
) -> pl.DataFrame:
    """Return accuracies of some unseen classes and as many seen ones."""
    rows = []
    for g in range(len(table.groups)):
        hard = np.random.default_rng(g).beta(1.2, 1.0, 2 * unseen)
        for r, row in enumerate(table.methods):
            if not any(row.cells[g, metric] for metric in table.metrics):
                continue
            rng = np.random.default_rng([g, r])
            for seed in range(seeds):
                values = np.clip(100 * hard * (0.5 + 0.4 * r / len(table.methods))
                                 + rng.normal(0, 6, 2 * unseen), 0, 100)  # fmt: skip
                rows += [
                    {"group": g, "stem": row.stem, "seed": seed, "class": f"{c:03d}.{name} {c}",
                     "seen": c >= unseen, "accuracy": float(value),
                     "zsl": min(100.0, 1.3 * float(value)) if zsl and c < unseen else None}
                    for c, value in enumerate(values)
                ]  # fmt: skip
    return pl.DataFrame(rows, schema=CLASSES)


def panels(part: Figure | SubFigure) -> list[Axes]:
    """Return all axes of a figure in the order in which they were made."""
    own = [each for each in part.axes if each.get_subplotspec().get_gridspec().figure is part]
    nested = [axes for each in part.subfigs for axes in panels(each)]
    return own + nested


def legend_texts(figure: Figure) -> list[str]:
    """Return the entries of the legend below the panels."""
    legend = figure.subfigs[1].legends[0]
    return [text.get_text() for text in legend.get_texts()]
