"""Log an experiment's cells, tables and figures to MLflow, and read its metrics back."""

from __future__ import annotations

from dataclasses import asdict

import polars as pl

from icis import layout
from icis.artifacts import write_json
from icis.plan import Plan
from icis.stages.common import only_one
from icis.tracking import log_experiment, log_outputs, metrics_from_store


def run(plan: Plan) -> None:
    """Log what the store does not hold yet, then write the receipt."""
    path = layout.tracked(plan.experiment.name)
    with only_one(path):  # two at once would take each other's unfinished runs for leftovers
        receipt = log_experiment(plan)
        log_outputs(plan)
        write_json(path, asdict(receipt))


def rebuild(experiment: str) -> pl.DataFrame:
    """Return the frame of ``metrics.parquet``, rebuilt from the MLflow store alone."""
    return metrics_from_store(experiment)
