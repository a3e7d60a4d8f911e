"""Train the seen heads of a data set: one a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from icis import layout
from icis.artifacts import (
    file_sha256,
    provenance,
    read_metadata,
    read_table,
    write_table,
)
from icis.base_classifier import TrainedHead, train_seen_head
from icis.config import SeenHead
from icis.errors import IcisError
from icis.features import Features, load_features
from icis.plan import Plan
from icis.schema import canonical_hash
from icis.seals import damaged, seal
from icis.seen_heads import head_table
from icis.stages.common import device_name, epochs_bar, pick_device


def run(plan: Plan, dataset: str, backbone: str, head: str, *, device: str = "auto") -> None:
    """Write all seeds' heads: a row a (seed, seen class).

    Each seed is also kept in a file of its own beside it: a seed that is there already, made from
    the same features by the same recipe and code, is not trained again.
    """
    device = pick_device(device)
    path = layout.features(dataset, backbone)
    fingerprint = plan.head_fingerprint(dataset, head)
    key = canonical_hash([fingerprint, file_sha256(path)])
    output = layout.seen_heads(dataset, backbone, head)
    features: Features | None = None
    tables, seeds = [], {}
    for seed in plan.head_seeds(dataset, backbone, head):
        part = output.with_suffix(".parts") / f"seed-{seed}.parquet"
        if not _is_done(part, key):
            features = features or load_features(path)
            _train(plan, features, dataset, head, seed, device, part, key)
        tables.append(read_table(part))
        seeds[str(seed)] = read_metadata(part)["training"]
    about = read_metadata(path)
    metadata = provenance(
        "seen heads",
        fingerprint=fingerprint,
        inputs={"features": path},
        sources=about["sources"],
        classes=about["classes"],
        split_version=about["split_version"],
        backbone_selection=about["backbone_selection"],
        device=device_name(device),
        head=head,
        training=seeds,
    )
    write_table(output, pa.concat_tables(tables), metadata)
    seal(output)


def _is_done(part: Path, key: str) -> bool:
    try:
        return bool(
            read_metadata(part)["key"] == key and len(read_table(part)) and not damaged(part)
        )
    except IcisError:  # absent or damaged: made again
        return False


def _train(
    plan: Plan,
    features: Features,
    dataset: str,
    head: str,
    seed: int,
    device: str,
    part: Path,
    key: str,
) -> None:
    recipe = plan.head(dataset, head)
    assert isinstance(recipe, SeenHead), "a given head is imported, not trained"
    leaks = recipe.selection == "test_seen"
    with epochs_bar(f"seen head, seed {seed}", recipe.epochs) as progress:
        trained = train_seen_head(
            features.split("trainval"),
            recipe,
            classes=features.classes.seen,
            seed=seed,
            test_seen=features.split("test_seen") if leaks else None,
            device=device,
            progress=progress,
        )
    training: dict[str, Any] = {
        "epoch": trained.epoch,
        "selection": describe_selection(trained, recipe.selection, recipe.epochs),
        "loss": trained.loss,
        "selection_accuracy": trained.selection_accuracy,
    }
    write_table(part, head_table(trained.head, seed), {"key": key, "training": training})
    seal(part)


def describe_selection(trained: TrainedHead, selection: str, epochs: int) -> str:
    """Say in words how the epoch was selected."""
    return {
        "last": f"last of {epochs} epochs",
        "holdout": f"best of {epochs} epochs on held-out trainval images",
        "test_seen": f"best of {epochs} epochs on test_seen (the paper's leak)",
    }[selection]
