"""Say whether all of a table is there, once everything that could be computed is."""

from __future__ import annotations

import polars as pl

from icis import layout
from icis.artifacts import write_text
from icis.cell_results import table_metrics
from icis.errors import IcisError
from icis.plan import Plan
from icis.stages.evaluate import FAILED


def run(plan: Plan, name: str) -> None:
    """Leave the mark of a complete table, or raise IcisError naming what failed in it."""
    metrics = table_metrics(plan, name)
    failed = metrics.filter(pl.col("metric") == FAILED)
    if len(failed):
        where = ["dataset", "backbone", "head", "descriptor", "method", "variant"]
        lines = {
            f"  {'/'.join(row[key] for key in where)}: {row['problem']}"
            for row in failed.iter_rows(named=True)
        }
        raise IcisError(
            f"{len(lines)} rows of table {name!r} failed, the rest of it is complete; the same "
            "command tries them again\n" + "\n".join(sorted(lines))
        )
    write_text(layout.complete(plan.experiment.name, name), "")
