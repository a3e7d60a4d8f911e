"""Small experiments with metrics, for the tests of tables and figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl

from icis.config import parse_experiment
from icis.plan import Cell, Plan
from icis.results import COLUMNS


def example_plan(
    names: Iterable[str | dict[str, Any]] | Mapping[str, str | dict[str, Any]], **table: Any
) -> Plan:
    """Return the plan of one table, ``main``, with an ICIS variant for each display name.

    A method may also be given by its settings, and under its key in the experiment file.
    """
    keyed = names if isinstance(names, Mapping) else {f"m{i}": n for i, n in enumerate(names)}
    methods = {
        key: each if isinstance(each, dict) else _variant(i, each)
        for i, (key, each) in enumerate(keyed.items())
    }
    axes = {
        "datasets": ["CUB"], "backbones": ["r101"], "heads": ["last"], "descriptors": ["att"],
        "methods": list(methods), "seeds": 3, "title": "Main results",
    } | table  # fmt: skip
    features = {name: f"{name}.mat" for name in axes["backbones"]}
    data = {"kind": "xlsa17", "splits": "att_splits.mat", "features": features,
            "split_version": "xlsa17-2.0",
            "descriptors": {each: {"file": "att_splits.mat"} for each in axes["descriptors"]},
            }  # fmt: skip
    given = {
        "name": "example",
        "datasets": dict.fromkeys(axes["datasets"], data),
        "heads": {"last": {}, "leak": {"selection": "test_seen"}},
        "methods": methods,
        "tables": {"main": axes},
    }
    return Plan(parse_experiment(given, source="test"))


def _variant(number: int, name: str) -> dict[str, Any]:
    return {"method": "icis", "name": name, "hidden": 8 + number}


def cell_rows(cell: Cell, seed: int, values: dict[str, float]) -> list[dict[str, Any]]:
    """Return the rows of one cell and seed, as ``metrics.parquet`` holds them."""
    selection = f"seen head: {cell.recipe.selection}; method: {cell.method.selection}"
    facts = {
        "dataset": cell.dataset, "backbone": cell.backbone, "head": cell.head,
        "descriptor": cell.descriptor, "n_seen": cell.n_seen or 150, "method": cell.method.method,
        "variant": cell.variant, "seed": seed, "display": cell.method.name, "cell": cell.id,
        "selection": selection, "split_version": "xlsa17-2.0",
    }  # fmt: skip
    return [facts | {"metric": metric, "value": value} for metric, value in values.items()]


def fail(metrics: pl.DataFrame, cell: Cell, problems: dict[int, str]) -> pl.DataFrame:
    """Return the metrics as they are when some seeds of a cell failed, for the reasons given."""
    gone = (pl.col("cell") == cell.id) & pl.col("seed").is_in(list(problems))
    rows = [
        row | {"problem": problem}
        for seed, problem in problems.items()
        for row in cell_rows(cell, seed, {"failed": 1.0})
    ]
    return pl.concat([metrics.filter(~gone), frame(rows)])


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Return rows as the frame of ``metrics.parquet``."""
    types = {"n_seen": pl.Int64, "seed": pl.Int64, "value": pl.Float64}
    return pl.DataFrame(rows, schema={name: types.get(name, pl.String) for name in COLUMNS})


def example_metrics(plan: Plan, *, seed: int = 0) -> pl.DataFrame:
    """Return plausible random metrics of every (cell, seed)."""
    rng = np.random.default_rng(seed)
    rows = []
    for key, cell in plan.cells.items():
        t1, u, s = rng.uniform((30, 10, 40), (70, 50, 75))
        for each in plan.seeds[key]:
            found = np.clip(rng.normal((t1, u, s), 1.5), 0.5, 100)
            values = {
                "T1": found[0], "U": found[1], "S": found[2],
                "H": 2 * found[1] * found[2] / (found[1] + found[2]),
                "entropy": rng.uniform(1, 5), "epochs": float(rng.integers(20, 400)),
                "seen_accuracy": rng.uniform(60, 90), "seen_epoch": 100.0,
                "chance_T1": 2.0, "chance_all": 0.5,
            }  # fmt: skip
            rows += cell_rows(cell, each, values)
    return frame(rows)
