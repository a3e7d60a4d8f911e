"""From all metrics to tables of means over seeds, whatever format they are shown in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import compress
from typing import Any

import polars as pl

from icis.config import Table
from icis.errors import IcisError
from icis.notes import Place, caution_of, notes_of
from icis.plan import Cell, Plan

COLUMNS: list[str] = [
    "dataset", "backbone", "head", "descriptor", "n_seen", "method", "variant", "seed", "metric",
    "value", "display", "cell", "selection", "split_version",
]  # fmt: skip
"""The columns of ``metrics.parquet``: a row is a (cell, seed, metric)."""

ACCURACIES = ("T1", "U", "S", "H")
CHANCE = {"T1": "chance_T1", "U": "chance_all", "S": "chance_all", "H": "chance_all"}

IDENTITY = ["cell", "dataset", "backbone", "head", "descriptor", "method", "variant"]
Identity = tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """One metric of a cell over the seeds; ``std`` (ddof=1) is None for a single value."""

    mean: float
    std: float | None
    values: tuple[float, ...]

    @property
    def n(self) -> int:
        """Return the number of seeds."""
        return len(self.values)


@dataclass(frozen=True)
class GroupHeader:
    """A group of columns; ``label`` names the data set and whatever else varies in the table."""

    dataset: str
    backbone: str
    head: str
    descriptor: str
    label: str

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """Return the four names that tell groups apart."""
        return (self.dataset, self.backbone, self.head, self.descriptor)


@dataclass(frozen=True)
class Row:
    """A method, or chance; ``cells`` by (group's position, metric), None where there is nothing."""

    display: str
    stem: str
    cells: Mapping[tuple[int, str], Summary | None]


@dataclass(frozen=True)
class ResultTable:
    """A table ready to be shown; the first row is chance, the first note the caution if any."""

    name: str
    title: str
    groups: tuple[GroupHeader, ...]
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    caution: str | None = None

    @property
    def columns(self) -> list[tuple[int, str]]:
        """Return the (group's position, metric) of every column from left to right."""
        return [(g, metric) for g in range(len(self.groups)) for metric in self.metrics]

    @property
    def chance(self) -> Row:
        """Return the row of chance levels."""
        return self.rows[0]

    @property
    def methods(self) -> tuple[Row, ...]:
        """Return the rows of methods."""
        return self.rows[1:]


def build_table(metrics: pl.DataFrame, plan: Plan, name: str) -> ResultTable:
    """Return a table of the experiment from its metrics (see ``COLUMNS``).

    Only results whose cell has the experiment's present configuration count. Raises IcisError if
    a (cell, seed, metric) is there twice, or if a group has two chance levels.
    """
    table = plan.experiment.tables[name]
    seeds = sorted(plan.table_seeds(table))
    cells: dict[tuple[str, str, str, str], dict[str, Cell]] = {}
    for cell in plan.table_cells[name]:
        cells.setdefault(cell.key[:4], {})[cell.stem] = cell
    groups = _headers(list(cells))
    found = _of_table(metrics, plan.table_cells[name], seeds)
    summaries = _summaries(found)
    chance: dict[tuple[int, str], Summary | None] = {}
    rows: dict[str, dict[tuple[int, str], Summary | None]] = {}
    for g, members in enumerate(cells.values()):
        for metric in table.metrics:
            for stem, cell in members.items():
                value = summaries.get((*_identity(cell), metric))
                rows.setdefault(stem, {})[g, metric] = value
            chance[g, metric] = _chance(found, groups[g], metric)
    displays = _displays(next(iter(cells.values())).values())
    methods = [Row(displays[stem], stem, values) for stem, values in rows.items()]
    selections = _selections(found, list(cells.values()))
    caution = caution_of(selections, groups, methods)
    notes = notes_of(
        groups, methods, metrics=table.metrics, seeds=seeds, selections=selections,
        splits=_splits(found, table),
    )  # fmt: skip
    return ResultTable(
        name=name,
        title=table.title or name,
        groups=groups,
        metrics=tuple(table.metrics),
        rows=(Row("Chance", "chance", chance), *methods),
        notes=tuple([caution, *notes] if caution else notes),
        caution=caution,
    )


def headline(metrics: pl.DataFrame, plan: Plan) -> dict[str, Any]:
    """Return {table: {group: {<method>-<variant>: {metric: mean}}}}, two decimals."""
    numbers: dict[str, Any] = {}
    for name in plan.experiment.tables:
        table = build_table(metrics, plan, name)
        numbers[name] = {
            group.label: {
                row.stem: {
                    metric: round(summary.mean, 2)
                    for metric in table.metrics
                    if metric in ACCURACIES and (summary := row.cells[g, metric])
                }
                for row in table.methods
            }
            for g, group in enumerate(table.groups)
        }
    return numbers


def _identity(cell: Cell) -> Identity:
    """Return what a cell's rows are found by: id and path, since two paths may share an id."""
    return (cell.id, *cell.key[:4], cell.method.method, cell.variant)


def _of_table(metrics: pl.DataFrame, cells: list[Cell], seeds: list[int]) -> pl.DataFrame:
    wanted = pl.DataFrame(
        sorted({_identity(cell) for cell in cells}),
        schema=dict.fromkeys(IDENTITY, pl.String),
        orient="row",
    )
    found = metrics.filter(pl.col("seed").is_in(seeds), pl.col("value").is_not_null())
    found = found.join(wanted, on=IDENTITY, how="semi")
    twice = found.filter(pl.struct(*IDENTITY, "seed", "metric").is_duplicated())
    if len(twice):
        first = twice.row(0, named=True)
        raise IcisError(
            f"the metrics hold {first['metric']} of seed {first['seed']} twice for "
            f"{'/'.join(first[key] for key in IDENTITY[1:])}: run 'icis collect' again"
        )
    return found


def _summaries(found: pl.DataFrame) -> dict[Identity, Summary]:
    """Return the summaries by (identity of the cell, metric)."""
    keys = [*IDENTITY, "metric"]
    value = pl.col("value")
    grouped = found.sort("seed").group_by(keys).agg(value, mean=value.mean(), std=value.std(ddof=1))
    return {
        tuple(row[key] for key in keys): Summary(row["mean"], row["std"], tuple(row["value"]))
        for row in grouped.iter_rows(named=True)
    }


def _headers(groups: list[tuple[str, str, str, str]]) -> tuple[GroupHeader, ...]:
    varying = [
        len(set(names)) > 1 or not axis for axis, names in enumerate(zip(*groups, strict=True))
    ]
    labels = [" / ".join(compress(group, varying)) for group in groups]
    return tuple(GroupHeader(*group, label) for group, label in zip(groups, labels, strict=True))


def _displays(cells: Iterable[Cell]) -> dict[str, str]:
    """Return every row's name, the stem behind it where two would read the same."""
    names = {cell.stem: cell.method.name or cell.stem for cell in cells}
    count = Counter([*names.values(), "Chance"])
    return {
        stem: name if count[name] == 1 or name == stem else f"{name} ({stem})"
        for stem, name in names.items()
    }


def _chance(found: pl.DataFrame, group: GroupHeader, metric: str) -> Summary | None:
    if metric not in CHANCE:
        return None
    axes = zip(("dataset", "backbone", "head", "descriptor"), group.parts, strict=True)
    of_group = [pl.col(axis) == name for axis, name in axes]
    levels = found.filter(*of_group, pl.col("metric") == CHANCE[metric])["value"].unique().to_list()
    if len(levels) > 1:
        raise IcisError(
            f"{group.label}: the cells have different chance levels ({CHANCE[metric]} is "
            f"{', '.join(map(str, sorted(levels)))}), so they were evaluated on different classes"
        )
    return Summary(levels[0], None, (levels[0],)) if levels else None


def _selections(found: pl.DataFrame, groups: list[dict[str, Cell]]) -> dict[str, set[Place]]:
    """Return how epochs and models were selected, each wording with the places where it holds."""
    places = {
        _identity(cell): (g, r)
        for g, members in enumerate(groups)
        for r, cell in enumerate(members.values())
    }
    texts: dict[str, set[Place]] = {}
    told = {(places[row[:-1]], row[-1]) for row in found.select(*IDENTITY, "selection").iter_rows()}
    for place, text in sorted(told):
        texts.setdefault(text, set()).add(place)
    return texts


def _splits(found: pl.DataFrame, table: Table) -> dict[str, list[str]]:
    versions = found.group_by("dataset").agg(pl.col("split_version").unique().sort())
    known = dict(versions.iter_rows())
    return {name: known[name] for name in table.datasets if name in known}
