"""Log an experiment's cells, tables and figures to MLflow, and read its metrics back."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import polars as pl
from tqdm import tqdm

from icis import layout
from icis.artifacts import write_json
from icis.config import read_experiment
from icis.errors import IcisError
from icis.mlflow_store import StoreError, public_uri, tracking_uri
from icis.plan import Plan
from icis.stages.common import only_one
from icis.tracked import pending, waiting, write_logged, write_pending
from icis.tracking import Heads, Receipt, log_experiment, metrics_from_store


def run(plan: Plan, *, heads: Heads = "first-seed", may_wait: bool = False) -> Receipt | None:
    """Log what the store does not hold yet, then write the receipt.

    A store that fails is an error; with ``may_wait``, as the pipeline calls it, a warning: the
    receipt says *pending* and why, and None is returned. The records then wait on disk, in the
    cells' files; the next run of the pipeline tries again, and so does ``icis track sync``.
    """
    name = plan.experiment.name
    with only_one(
        layout.tracked(name)
    ):  # two at once would take each other's unfinished runs for leftovers
        write_json(layout.tracked_experiment(name), plan.experiment.identity())
        try:
            receipt = log_experiment(plan, heads=heads)
        except StoreError as error:
            if not may_wait:
                raise
            tqdm.write(f"warning: {waiting(name, str(error))}", file=sys.stderr)
            write_pending(name, str(error), public_uri(tracking_uri()))
            return None
        write_logged(name, asdict(receipt))
    return receipt


def sync(*, every: bool = False, heads: Heads = "first-seed") -> dict[str, Receipt]:
    """Log the experiments whose receipts are pending; with ``every`` all that have results.

    All are tried; IcisError then names those that failed.
    """
    done: dict[str, Receipt] = {}
    failed: list[str] = []
    for file in sorted(Path().glob(str(layout.tracked_experiment("*")))):
        if not every and pending(layout.tracked(file.parent.name)) is None:
            continue
        plan = Plan(read_experiment(file), source=str(file))
        try:
            receipt = run(plan, heads=heads)
        except IcisError as error:
            failed.append(f"{plan.experiment.name}: {error}")
        else:
            assert receipt is not None
            done[plan.experiment.name] = receipt
    if failed:
        raise IcisError("not logged:\n" + "\n".join(failed))
    return done


def rebuild(experiment: str) -> pl.DataFrame:
    """Return the frame of ``metrics.parquet``, rebuilt from the MLflow store alone."""
    return metrics_from_store(experiment)
