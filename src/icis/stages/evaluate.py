"""Evaluate a cell's injected heads on the test images."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from icis import layout
from icis.artifacts import git_commit, provenance, read_metadata, write_table
from icis.errors import IcisError
from icis.evaluation import accuracy, evaluate
from icis.features import load_features
from icis.plan import Cell, Plan
from icis.scorers import load_scorers
from icis.seen_heads import load_seen_head
from icis.stages.common import pick_device
from icis.stages.inject import load_manifest


def run(plan: Plan, cell: Cell, *, device: str = "auto") -> None:
    """Write the cell's metrics: a row a (seed, metric)."""
    device = pick_device(device)
    manifest_path = layout.injection(plan.experiment.name, *cell.key)
    features_path = layout.features(cell.dataset, cell.backbone)
    try:
        manifest = load_manifest(manifest_path)
    except IcisError:
        manifest_path.unlink(missing_ok=True)  # the next run makes the damaged heads anew
        raise
    features = load_features(features_path)
    heads_path = layout.seen_heads(*cell.key[:3])
    training = read_metadata(heads_path)["training"]
    test_seen, test_unseen = features.split("test_seen"), features.split("test_unseen")
    rows = []
    for seed, entry in manifest["seeds"].items():
        scorers, about = load_scorers(manifest_path.parent / entry["file"])
        joint = scorers["joint"]
        unseen = scorers.get("unseen") or joint.restrict(tuple(about["unseen_classes"]))
        metrics = evaluate(
            joint, unseen, test_seen=test_seen, test_unseen=test_unseen, device=device
        )
        metrics["epochs"] = float(about["epochs"])
        seen_head = load_seen_head(heads_path, int(seed))
        metrics["seen_accuracy"] = accuracy(seen_head, test_seen, device=device)
        metrics["seen_epoch"] = float(training[seed]["epoch"])
        rows += [(int(seed), name, value) for name, value in metrics.items()]
    frame = pl.DataFrame(rows, schema=["seed", "metric", "value"], orient="row")
    metadata = provenance(
        "cell",
        fingerprint=plan.evaluation_fingerprint(cell),
        inputs={"features": features_path, "seen heads": heads_path, "injection": manifest_path},
        sources={**features.metadata["sources"], **manifest["sources"]},
        split_version=features.metadata["split_version"],
        device=manifest["device"],
        git_commit=git_commit(Path()),
        cell=cell.id,
        configuration=cell.identity,
        display=cell.method.name or cell.stem,
        selection=manifest["selection"],
        n_seen=len(features.classes.seen),
        heads={seed: entry["sha256"] for seed, entry in manifest["seeds"].items()},
    )
    write_table(layout.cell_metrics(plan.experiment.name, *cell.key), frame, metadata)
