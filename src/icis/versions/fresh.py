"""Artifacts that are of other settings or other code than the experiment asks for.

Each artifact says so itself: its metadata hold the fingerprint that it was made with. Snakemake's
own records do not travel with DVC, so after a pull they cannot tell.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from icis import layout
from icis.artifacts import read_metadata
from icis.batches import Batches
from icis.errors import IcisError
from icis.inputs import input_files
from icis.plan import Cell, Plan

FEATURES = ("data/index", "data/descriptors", "data/backbones", "data/features")


def to_force(batches: Batches, targets: Iterable[str]) -> set[str]:
    """Return the stale artifacts that a run of Snakemake for these targets should make anew.

    Forced files become targets themselves, so a run for single files is left alone; there the
    table step refuses what is of another configuration.
    """
    name = batches.plan.experiment.name
    places = {
        "features": FEATURES,
        "heads": ("data",),
        "all_cells": ("data", f"results/{name}/batches"),
        "all": ("data", "results"),
    }
    names = set(targets) or {"all"}
    if not names <= set(places):
        return set()
    folders = [folder for name in names for folder in places[name]]
    found = stale(batches)
    if not layout.metrics(name).exists():  # else a missing cell would go unnoticed
        found = [path for path in found if path.exists()]
    return {str(path) for path in found if any(path.is_relative_to(f) for f in folders)}


def stale(batches: Batches) -> list[Path]:
    """Return the artifacts that were made by other settings, code or seeds, and missing results.

    Of cells, the records of their batches. What features and heads are made of may be absent, they
    outlive it. Raw and fetched files are not looked at: their receipts and the index speak for
    them.
    """
    plan = batches.plan
    found: dict[Path, bool] = {}
    for cell in {cell.key[:4]: cell for cell in plan.cells.values()}.values():
        for path, fingerprint in _wanted(plan, cell).items():
            if path not in found and path.exists():
                found[path] = _about(path).get("fingerprint") != fingerprint
    for names in dict.fromkeys(key[:3] for key in plan.cells):
        heads = layout.seen_heads(*names)
        if heads.exists() and plan.head(names[0], names[2]).kind != "given":
            trained = _about(heads).get("training", {})
            found[heads] |= not {*map(str, plan.head_seeds(*names))} <= {*trained}
    metrics = layout.metrics(plan.experiment.name)
    found[metrics] = _about(metrics).get("fingerprint") != plan.collect_fingerprint()
    old = batches.of(cell for cell in plan.cells.values() if _is_old(plan, cell))
    records = [batches.record(batch) for batch in old]
    return [*(path for path, differs in found.items() if differs), *records]


def _wanted(plan: Plan, cell: Cell) -> dict[Path, str]:
    """Return the fingerprint that each artifact should have that a cell is made of."""
    inputs = input_files(cell)
    wanted: dict[Path, str] = {}
    for dataset in dict.fromkeys((cell.dataset, plan.test_dataset(cell) or cell.dataset)):
        wanted[layout.index(dataset)] = plan.index_fingerprint(dataset)
        if plan.is_trained(dataset, cell.backbone):
            trained = layout.backbone(dataset, cell.backbone) / "trained.json"
            wanted[trained] = plan.training_fingerprint(cell.backbone)
        features = layout.features(dataset, cell.backbone)
        wanted[features] = plan.features_fingerprint(dataset, cell.backbone)
    described = plan.descriptor_fingerprint(cell.dataset, cell.descriptor)
    wanted[inputs["descriptors"]] = described
    if "head descriptors" in inputs:
        own = plan.head_descriptor_fingerprint(cell.head, cell.descriptor)
        wanted[inputs["head descriptors"]] = own
    wanted[inputs["seen heads"]] = plan.head_fingerprint(cell.dataset, cell.head)
    return wanted


def _is_old(plan: Plan, cell: Cell) -> bool:
    """Say whether a cell's results are missing or of other settings, code or seeds."""
    name = plan.experiment.name
    manifest = _about(layout.injection(name, *cell.key))
    seeds = {*manifest.get("seeds", {}), *manifest.get("failed", {})}
    return (
        manifest.get("fingerprint") != plan.injection_fingerprint(cell)
        or seeds != {*map(str, plan.seeds[cell.key])}
        or _about(layout.cell_metrics(name, *cell.key)).get("fingerprint")
        != plan.evaluation_fingerprint(cell)
    )


def _about(path: Path) -> dict[str, Any]:
    """Return what an artifact says of itself; nothing where it is absent or damaged."""
    try:
        if path.suffix == ".json":
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return found
        return read_metadata(path)
    except (IcisError, OSError, ValueError):
        return {}
