"""Metrics read back from the store."""

from __future__ import annotations

from typing import Any

import polars as pl

from icis.errors import IcisError
from icis.mlflow_store import (
    MlflowClient,
    Run,
    decode,
    list_runs,
    open_store,
    public_uri,
    tracking_uri,
)
from icis.rows import COLUMNS, ORDER
from icis.tracking.encoding import COMPLETE, CURVE, KEY, SUPERSEDED, fact_tag, read_long_tag
from icis.tracking.records import FACTS

LARGEST = 1.7976931348623157e308  # what MLflow's SQL store makes of infinity


def counting_runs(client: MlflowClient, uri: str, experiment: str) -> list[Run]:
    """Return the runs of (cell, seed)s that count, the newest first."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        known = ", ".join(sorted(each.name for each in client.search_experiments()))
        raise IcisError(
            f"the MLflow store {public_uri(uri)} has no experiment {experiment!r}; "
            f"there are: {known}"
        )
    runs = list_runs(client, found.experiment_id, f"tags.`{COMPLETE}` = 'true'")
    return [run for run in runs if KEY in run.data.tags and SUPERSEDED not in run.data.tags]


def metrics_from_store(experiment: str, *, uri: str | None = None) -> pl.DataFrame:
    """Rebuild ``metrics.parquet`` of an experiment from the store alone."""
    uri = uri or tracking_uri()
    with open_store(uri, create=False) as client:
        runs = counting_runs(client, uri, experiment)
    rows, found_cells = [], set[tuple[str, ...]]()
    for run in runs:
        tags = run.data.tags
        facts: dict[str, Any] = {column: tags[fact_tag(column)] for column in FACTS}
        # with the path: "all" and a number may be the same count of seen classes
        place = (*(facts[column] for column in COLUMNS[:8]), run.info.run_name)
        if place in found_cells:  # twice: logging was killed halfway
            continue
        found_cells.add(place)
        facts |= {"seed": int(facts["seed"]), "n_seen": int(facts["n_seen"])}
        problems = read_long_tag(tags, "problem")
        for name, value in run.data.metrics.items():
            if not name.startswith(CURVE):
                value = value * float("inf") if abs(value) == LARGEST else value
                metric = decode(name)
                more = {"metric": metric, "value": value, "problem": problems.get(metric)}
                rows.append({**facts, **more})
    types: dict[str, Any] = dict.fromkeys(COLUMNS, pl.String)
    types |= {"seed": pl.Int64, "n_seen": pl.Int64, "value": pl.Float64}
    return pl.DataFrame(rows, schema=types).sort(ORDER)
