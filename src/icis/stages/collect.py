"""Collect all cells' metrics into one long table."""

from __future__ import annotations

import polars as pl

from icis import layout
from icis.artifacts import write_json, write_table
from icis.cell_results import cell_rows
from icis.plan import Plan
from icis.results import headline
from icis.rows import ORDER
from icis.seals import seal
from icis.versions.record import record


def run(plan: Plan) -> None:
    """Write ``metrics.parquet`` and the headline numbers as ``metrics.json``."""
    name = plan.experiment.name
    frames, cells = [], {}
    for cell in plan.cells.values():
        frame, about = cell_rows(plan, cell)
        frames.append(frame)
        keys = ("display", "selection", "inputs", "sources", "versions", "device", "git_commit")
        cells[cell.id] = {key: about[key] for key in (*keys, "split_version", "configuration")}
    metrics = pl.concat(frames).sort(ORDER)
    sources: dict[str, str] = {}
    for about in cells.values():
        sources |= about["sources"]
    metadata = {"artifact": "metrics", "experiment": name, "sources": sources, "cells": cells}
    metadata |= record(plan)
    write_table(layout.metrics(name), metrics, metadata)
    write_json(layout.headline(name), headline(metrics, plan))
    seal(layout.metrics(name), layout.headline(name))
