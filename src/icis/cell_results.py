"""What the cells of an experiment left on disk, as frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from icis import layout
from icis.artifacts import read_frame, read_metadata
from icis.errors import IcisError
from icis.plan import Cell, Plan
from icis.results import ResultTable, row_key
from icis.rows import COLUMNS, ORDER, with_problem

DETAIL = {"group": pl.Int64, "stem": pl.String, "seed": pl.Int64}


def cell_rows(plan: Plan, cell: Cell) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Return a cell's rows with the columns of ``metrics.parquet``, and the file's metadata."""
    path = layout.cell_metrics(plan.experiment.name, *cell.key)
    about = read_metadata(path)
    frame = read_frame(path)
    seeds = tuple(sorted(frame["seed"].unique()))
    if about["cell"] != cell.id or seeds != plan.seeds[cell.key]:
        raise IcisError(
            f"{path} is of another configuration than the experiment asks for: delete it and run "
            "again"
        )
    facts = {
        "dataset": cell.dataset,
        "backbone": cell.backbone,
        "head": cell.head,
        "descriptor": cell.descriptor,
        "n_seen": about["n_seen"],
        "method": cell.method.method,
        "variant": cell.variant,
        "display": about["display"],
        "cell": cell.id,
        "selection": about["selection"],
        "split_version": about["split_version"],
    }
    types = {key: pl.Int64 if key == "n_seen" else pl.String for key in facts}
    literals = [pl.lit(value, dtype=types[key]).alias(key) for key, value in facts.items()]
    return with_problem(frame).with_columns(literals).select(COLUMNS), about


def table_metrics(plan: Plan, table: str) -> pl.DataFrame:
    """Return the metrics of the cells of one table, as far as they can be computed."""
    plan.table(table)  # or say that there is none
    cells = {cell.key: cell for cell in plan.table_cells[table] if cell.key in plan.cells}
    frames = [cell_rows(plan, cell)[0] for cell in cells.values()]
    return pl.concat(frames).sort(ORDER) if frames else _nothing()


def _nothing() -> pl.DataFrame:
    types: dict[str, Any] = {"n_seen": pl.Int64, "seed": pl.Int64, "value": pl.Float64}
    return pl.DataFrame(schema={name: types.get(name, pl.String) for name in COLUMNS})


def curves(plan: Plan, table: ResultTable) -> pl.DataFrame:
    """Return the seen-unseen curves of a table's cells: group, stem, seed, seen, unseen."""
    return _details(plan, table, layout.curves, {"seen": pl.Float64, "unseen": pl.Float64})


def classes(plan: Plan, table: ResultTable) -> pl.DataFrame:
    """Return the accuracies of single classes in a table.

    Columns: group, stem, seed, class, seen, accuracy, zsl.
    """
    types: dict[str, Any] = {"class": pl.String, "seen": pl.Boolean}
    return _details(
        plan, table, layout.classes, {**types, "accuracy": pl.Float64, "zsl": pl.Float64}
    )


def _details(
    plan: Plan, table: ResultTable, where: Callable[..., Path], columns: dict[str, Any]
) -> pl.DataFrame:
    number = {group.parts: g for g, group in enumerate(table.groups)}
    frames = [pl.DataFrame(schema={**DETAIL, **columns})]
    for cell in plan.table_cells[table.name]:
        if cell.key in plan.cells:
            frame = read_frame(where(plan.experiment.name, *cell.key))
            of_cell = {"group": number[cell.group], "stem": row_key(cell)}
            labels = [pl.lit(value, dtype=DETAIL[key]).alias(key) for key, value in of_cell.items()]
            seeds = plan.table_seeds(plan.experiment.tables[table.name])
            frame = frame.with_columns(labels).filter(pl.col("seed").is_in(seeds))
            frames.append(frame.select(*DETAIL, *columns))
    return pl.concat(frames)
