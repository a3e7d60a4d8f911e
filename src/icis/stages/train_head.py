"""Train the seen heads of a data set: one a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from icis import layout
from icis.artifacts import (
    column_vectors,
    file_sha256,
    provenance,
    read_metadata,
    read_table,
    vector_column,
    write_table,
)
from icis.base_classifier import TrainedHead, train_seen_head
from icis.errors import IcisError
from icis.evaluation import accuracy
from icis.features import Features, load_features
from icis.heads import Head
from icis.plan import Plan
from icis.schema import canonical_hash
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


def _is_done(part: Path, key: str) -> bool:
    try:
        return bool(read_metadata(part)["key"] == key and len(read_table(part)))
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
    test_seen = features.split("test_seen")
    with epochs_bar(f"seen head, seed {seed}", recipe.epochs) as progress:
        trained = train_seen_head(
            features.split("trainval"),
            recipe,
            classes=features.classes.seen,
            seed=seed,
            test_seen=test_seen if recipe.selection == "test_seen" else None,
            device=device,
            progress=progress,
        )
    training: dict[str, Any] = {
        "epoch": trained.epoch,
        "selection": describe_selection(trained, recipe.selection, recipe.epochs),
        "test_seen_accuracy": accuracy(trained.head, test_seen, device=device),
        "loss": trained.loss,
        "selection_accuracy": trained.selection_accuracy,
    }
    write_table(part, _table(trained.head, seed), {"key": key, "training": training})


def describe_selection(trained: TrainedHead, selection: str, epochs: int) -> str:
    """Say in words how the epoch was selected."""
    return {
        "last": f"last of {epochs} epochs",
        "holdout": f"best of {epochs} epochs on held-out trainval images",
        "test_seen": f"best of {epochs} epochs on test_seen (the paper's leak)",
    }[selection]


def _table(head: Head, seed: int) -> pa.Table:
    return pa.table(
        {
            "seed": pa.array([seed] * len(head.classes), pa.int64()),
            "class": pa.array(head.classes),
            "weight": vector_column(head.weight.numpy()),
            "bias": pa.array(head.bias.numpy(), pa.float32()),
        }
    )


def load_seen_head(path: Path, seed: int) -> Head:
    """Return one seed's head from the artifact."""
    table = read_table(path)
    table = table.filter(pc.equal(table["seed"], seed))
    if not len(table):
        raise IcisError(f"{path} has no head of seed {seed}")
    weight = torch.from_numpy(column_vectors(table["weight"]).copy())
    bias = torch.from_numpy(np.array(table["bias"], dtype=np.float32))
    return Head(weight, bias, tuple(table["class"].to_pylist()))
