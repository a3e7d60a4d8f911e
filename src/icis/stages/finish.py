"""Say whether all of a table is there, once everything that could be computed is."""

from __future__ import annotations

import polars as pl

from icis import layout
from icis.artifacts import write_text
from icis.cell_results import table_metrics
from icis.errors import FAILED, IcisError
from icis.plan import Plan

PLACE = ("dataset", "backbone", "head", "descriptor", "method", "variant")


def run(plan: Plan, name: str) -> None:
    """Leave the mark of a complete table, or raise IcisError naming what failed in it."""
    metrics = table_metrics(plan, name)
    failed = metrics.filter(pl.col("metric") == FAILED)
    lines = []
    for place, rows in failed.group_by(*PLACE, maintain_order=True):
        lines.append(f"  {'/'.join(map(str, place))}, {len(rows)} seeds: {rows['problem'][0]}")
    if lines:
        raise IcisError(
            f"{len(lines)} of the rows of table {name!r} failed, all else is complete; the same "
            "command tries them again\n" + "\n".join(lines)
        )
    write_text(layout.complete(plan.experiment.name, name), "")
