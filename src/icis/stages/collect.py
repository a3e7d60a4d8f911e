"""Collect all cells' metrics into one long table."""

from __future__ import annotations

from typing import Any

import polars as pl

from icis import layout
from icis.artifacts import read_frame, read_metadata, write_json, write_table
from icis.errors import IcisError
from icis.plan import Cell, Plan
from icis.results import COLUMNS, headline


def run(plan: Plan) -> None:
    """Write ``metrics.parquet`` and the headline numbers as ``metrics.json``."""
    name = plan.experiment.name
    frames, cells = [], {}
    for cell in plan.cells.values():
        frame, about = _cell_rows(plan, cell)
        frames.append(frame)
        keys = ("display", "selection", "inputs", "sources", "versions", "device", "git_commit")
        cells[cell.id] = {key: about[key] for key in (*keys, "split_version", "configuration")}
    metrics = pl.concat(frames).sort(COLUMNS[:9])
    sources: dict[str, str] = {}
    for about in cells.values():
        sources |= about["sources"]
    metadata = {"artifact": "metrics", "experiment": name, "sources": sources, "cells": cells}
    write_table(layout.metrics(name), metrics, metadata)
    write_json(layout.headline(name), headline(metrics, plan))


def _cell_rows(plan: Plan, cell: Cell) -> tuple[pl.DataFrame, dict[str, Any]]:
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
    return frame.with_columns(literals).select(COLUMNS), about
