"""From all metrics to tables of means over seeds, whatever format they are shown in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import compress
from typing import Any

import polars as pl

from icis.config import Table
from icis.errors import FAILED, IcisError
from icis.notes import caution_of, gap_notes, notes_of, published_notes
from icis.plan import Cell, Plan
from icis.published import Block, block
from icis.rows import (
    ACCURACIES,
    CHANCE,
    COLUMNS,
    ORDER,
    Column,
    Difference,
    GroupHeader,
    Place,
    Published,
    ResultTable,
    Row,
    Summary,
    difference,
    with_problem,
)

__all__ = [
    "ACCURACIES", "CHANCE", "COLUMNS", "ORDER", "Difference", "GroupHeader", "Place",
    "Published", "ResultTable", "Row", "Summary", "build_table", "difference", "headline",
    "row_key", "with_problem",
]  # fmt: skip

IDENTITY = ["cell", "dataset", "backbone", "head", "descriptor", "method", "variant"]
"""What a cell's rows are found by: id and path, since two paths may share an id."""

Groups = Mapping[tuple[str, str, str, str, str], Mapping[str, Cell]]
"""The cells of a table by group, then by row."""


def build_table(metrics: pl.DataFrame, plan: Plan, name: str) -> ResultTable:
    """Return a table of the experiment from its metrics (see ``COLUMNS``).

    Only results whose cell has the experiment's present configuration count. Raises IcisError if
    a (cell, seed, metric) is there twice, or if a group has two chance levels.
    """
    table = plan.experiment.tables[name]
    seeds = sorted(plan.table_seeds(table))
    cells: dict[tuple[str, str, str, str, str], dict[str, Cell]] = {}
    for cell in plan.table_cells[name]:
        cells.setdefault(cell.group, {})[row_key(cell)] = cell
    groups = headers(list(cells))
    found = _of_table(metrics, cells, seeds)
    numbers = block(table.published) if table.published else None
    methods, elsewhere = _rows(found, table, cells, groups, numbers)
    selections = _selections(found)
    failures = _failures(found)
    caution = caution_of(selections, groups, methods)
    notes = notes_of(
        groups, methods, metrics=table.metrics, seeds=seeds, selections=selections,
        splits=_splits(found, table),
    )  # fmt: skip
    if numbers is not None:
        shown = any(row.published for row in (*methods, *elsewhere))
        ours = _head_selections(cells, groups)
        notes += published_notes(str(table.published), numbers, ours=ours, found=shown)
    left_out = _left_out(cells, plan)
    notes += gap_notes(len(seeds), groups, methods, failures=failures, left_out=left_out)
    chance: dict[Column, Summary | None] = {
        (g, metric): _chance(found, groups, g, metric)
        for g in range(len(groups)) for metric in table.metrics
    }  # fmt: skip
    return ResultTable(
        name=name,
        title=table.title or name,
        groups=groups,
        metrics=tuple(table.metrics),
        rows=(Row("Chance", "chance", chance), *methods),
        notes=tuple([caution, *notes] if caution else notes),
        caution=caution,
        seen_counts=_seen_counts(found, groups),
        failures={place: problem for place, (problem, _) in failures.items()},
        elsewhere=tuple(elsewhere),
        reference=_reference(methods, table),
        seeds=tuple(seeds),
    )


def headline(metrics: pl.DataFrame, plan: Plan) -> dict[str, Any]:
    """Return {table: {group: {method's key: {metric: mean}}}}, two decimals.

    Keys stay when a setting changes, so that ``dvc metrics diff`` and ``dvc exp show`` find it.
    """
    numbers: dict[str, Any] = {}
    for name in plan.experiment.tables:
        table = build_table(metrics, plan, name)
        numbers[name] = {
            group.label: {
                row.key: {
                    metric: round(summary.mean, 2)
                    for metric in table.metrics
                    if metric in ACCURACIES and (summary := row.cells[g, metric])
                }
                for row in table.methods
            }
            for g, group in enumerate(table.groups)
        }
    return numbers


def row_key(cell: Cell) -> str:
    """Return what tells a cell's row from others, the same for any number of seen classes."""
    return f"{cell.method.method}-{cell.variant}"


def _of_table(metrics: pl.DataFrame, cells: Groups, seeds: list[int]) -> pl.DataFrame:
    """Return the rows of a table's cells, with the columns ``g`` and ``r`` of their places."""
    places = [
        (cell.id, *cell.key[:4], cell.method.method, cell.variant, g, r)
        for g, members in enumerate(cells.values())
        for r, cell in enumerate(members.values())
    ]
    types: dict[str, Any] = dict.fromkeys(IDENTITY, pl.String) | {"g": pl.Int64, "r": pl.Int64}
    wanted = pl.DataFrame(places, schema=types, orient="row")
    metrics = with_problem(metrics)
    found = metrics.filter(pl.col("seed").is_in(seeds), pl.col("value").is_not_null())
    found = found.join(wanted, on=IDENTITY, how="inner").sort("g", "r", "seed", "metric")
    twice = found.filter(pl.struct("g", "r", "seed", "metric").is_duplicated())
    if len(twice):
        first = twice.row(0, named=True)
        raise IcisError(
            f"the metrics hold {first['metric']} of seed {first['seed']} twice for "
            f"{'/'.join(first[key] for key in IDENTITY[1:])}: run 'icis collect' again"
        )
    return found


def _rows(
    found: pl.DataFrame,
    table: Table,
    cells: Groups,
    groups: Sequence[GroupHeader],
    numbers: Block | None,
) -> tuple[list[Row], list[Row]]:
    """Return the rows of methods, and those with published numbers alone."""
    summaries = _summaries(found)
    columns: list[Column] = [(g, metric) for g in range(len(groups)) for metric in table.metrics]
    first = next(iter(cells.values()))
    methods = []
    for r, (stem, display) in enumerate(_displays(first).items()):
        key = first[stem].method_key
        values = {(g, metric): summaries.get((g, r, metric)) for g, metric in columns}
        published = _published(numbers, key, columns, groups)
        methods.append(Row(display, stem, values, key, published))
    elsewhere = []
    if numbers is not None:
        ours = {numbers.row(row.key) for row in methods}
        for key in numbers.keys:
            published = _published(numbers, key, columns, groups)
            if key not in ours and published:
                elsewhere.append(Row(numbers.names.get(key, key), key, {}, key, published))
    return methods, elsewhere


def _published(
    numbers: Block | None, key: str, columns: Sequence[Column], groups: Sequence[GroupHeader]
) -> dict[Column, Published]:
    if numbers is None:
        return {}
    found = {}
    for g, metric in columns:
        group = groups[g]
        number = numbers.find(
            key, metric, dataset=group.dataset, descriptor=group.descriptor, n_seen=group.n_seen
        )
        if number is not None:
            found[g, metric] = number
    return found


def _summaries(found: pl.DataFrame) -> dict[tuple[int, int, str], Summary]:
    """Return the summaries by group, row and metric."""
    keys = ["g", "r", "metric"]
    value = pl.col("value")
    grouped = found.sort("seed").group_by(keys).agg(
        value, "seed", mean=value.mean(), std=value.std(ddof=1)
    )  # fmt: skip
    summaries = {}
    for row in grouped.iter_rows(named=True):
        values, std = tuple(row["value"]), row["std"]
        summary = Summary(row["mean"], std, values, tuple(row["seed"]))
        if summary.constant:  # rounding would leave a tiny deviation
            summary = Summary(values[0], 0.0, values, summary.seeds)
        summaries[row["g"], row["r"], row["metric"]] = summary
    return summaries


def headers(groups: list[tuple[str, str, str, str, str]]) -> tuple[GroupHeader, ...]:
    """Return groups with labels that name the data set and whatever else varies."""
    varying = [
        len(set(names)) > 1 or not axis for axis, names in enumerate(zip(*groups, strict=True))
    ]
    labels = [" / ".join(compress((*group[:4], f"{group[4]} seen"), varying)) for group in groups]
    return tuple(GroupHeader(*group, label) for group, label in zip(groups, labels, strict=True))


def _displays(cells: Mapping[str, Cell]) -> dict[str, str]:
    """Return every row's name, the stem behind it where two would read the same."""
    names = {stem: cell.method.name or stem for stem, cell in cells.items()}
    count = Counter([*names.values(), "Chance"])
    return {
        stem: name if count[name] == 1 or name == stem else f"{name} ({stem})"
        for stem, name in names.items()
    }


def _reference(methods: Sequence[Row], table: Table) -> int:
    """Return the position of the method that the others are compared with."""
    keys = [row.key for row in methods]
    return keys.index(table.reference) if table.reference else len(keys) - 1


def _chance(
    found: pl.DataFrame, groups: Sequence[GroupHeader], g: int, metric: str
) -> Summary | None:
    if metric not in CHANCE:
        return None
    rows = found.filter(pl.col("g") == g, pl.col("metric") == CHANCE[metric])
    levels = rows["value"].unique().to_list()
    if len(levels) > 1:
        raise IcisError(
            f"{groups[g].label}: the cells have different chance levels ({CHANCE[metric]} is "
            f"{', '.join(map(str, sorted(levels)))}), so they were evaluated on different classes"
        )
    return Summary(levels[0], None, (levels[0],)) if levels else None


def _seen_counts(found: pl.DataFrame, groups: Sequence[GroupHeader]) -> dict[int, int]:
    """Return how many seen classes the methods of each group learnt from."""
    counts: dict[int, int] = {}
    for g, n_seen in found.select("g", "n_seen").unique().sort("g", "n_seen").iter_rows():
        if g in counts:
            raise IcisError(
                f"{groups[g].label}: some methods learnt from {counts[g]} seen classes and some "
                f"from {n_seen}, so they cannot stand in one table"
            )
        counts[g] = n_seen
    return counts


def _failures(found: pl.DataFrame) -> dict[Place, tuple[str, int]]:
    """Return why the first failing seed of a place failed, and how many did."""
    failed = found.filter(pl.col("metric") == FAILED).sort("g", "r", "seed")
    failures: dict[Place, tuple[str, int]] = {}
    for g, r, problem in failed.select("g", "r", "problem").iter_rows():
        first, count = failures.get((g, r), (problem or "no reason is on record", 0))
        failures[g, r] = (first, count + 1)
    return failures


def _left_out(cells: Groups, plan: Plan) -> dict[Place, str]:
    """Return which optional file is absent, by its key, for cells that cannot be computed."""
    return {
        (g, r): plan.left_out[cell.key].partition(":")[0]  # its path differs between machines
        for g, members in enumerate(cells.values())
        for r, cell in enumerate(members.values())
        if cell.key in plan.left_out
    }


def _selections(found: pl.DataFrame) -> dict[str, set[Place]]:
    """Return how epochs and models were selected, each wording with the places where it holds."""
    texts: dict[str, set[Place]] = {}
    told = found.select("g", "r", "selection").unique().sort("g", "r", "selection")
    for g, r, text in told.iter_rows():
        texts.setdefault(text, set()).add((g, r))
    return texts


def _head_selections(cells: Groups, groups: Sequence[GroupHeader]) -> dict[str, list[GroupHeader]]:
    """Return what our seen heads are selected on, with the groups where it is so."""
    found: dict[str, list[GroupHeader]] = {}
    for group, members in zip(groups, cells.values(), strict=True):
        found.setdefault(next(iter(members.values())).recipe.selection, []).append(group)
    return found


def _splits(found: pl.DataFrame, table: Table) -> dict[str, list[str]]:
    versions = found.group_by("dataset").agg(pl.col("split_version").unique().sort())
    known = dict(versions.iter_rows())
    return {name: known[name] for name in table.datasets if name in known}
