"""What ``metrics.parquet`` says of itself, so that it can be compared with another version."""

from __future__ import annotations

from typing import Any

from icis.codeprint import module_hashes
from icis.plan import Plan
from icis.slugs import head_slug

SCHEMA = 1
"""Raised when the columns or the metadata of ``metrics.parquet`` change their meaning."""
STAGES = (
    "draw", "index", "describe", "describe_head", "finetune", "extract", "train_head",
    "import_head", "inject", "evaluate",
)  # fmt: skip
"""The stages that numbers come from."""


def record(plan: Plan) -> dict[str, Any]:
    """Return schema, fingerprint, settings, every cell's place and the code's hashes.

    A place is what a reader calls the cell by: keys of the experiment file, not slugs of settings,
    so that a changed setting leaves it where it was.
    """
    heads = {head_slug(key, recipe): key for key, recipe in plan.experiment.heads.items()}
    places = [
        {
            "cell": cell.id,
            "dataset": cell.dataset,
            "backbone": cell.backbone,
            "head": heads[cell.head],
            "descriptor": cell.descriptor,
            "n_seen": str(cell.n_seen or "all"),
            "method": cell.method_key,
            "display": cell.method.name or cell.method_key,
        }
        for cell in plan.cells.values()
    ]
    methods = {type(cell.method).__module__ for cell in plan.cells.values()}
    stages = [f"icis.stages.{stage}" for stage in STAGES]
    return {
        "schema": SCHEMA,
        "fingerprint": plan.collect_fingerprint(),
        "settings": plan.experiment.identity(),
        "places": places,
        "code": module_hashes(*stages, *methods),
    }
