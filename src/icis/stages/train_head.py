"""Train the seen heads of a data set: one a seed."""

from __future__ import annotations

from collections.abc import Mapping
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
from icis.metrics import LabelledFeatures
from icis.plan import Plan
from icis.schema import canonical_hash
from icis.seals import damaged, seal
from icis.seen_heads import head_table
from icis.seen_programs import train_seen_heads
from icis.stages.common import (
    denormals_flushed,
    device_name,
    epochs_bar,
    pick_device,
    trains_together,
)
from icis.threads import in_threads


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
    folder = output.with_suffix(".parts")
    parts = {seed: folder / f"seed-{seed}.parquet"
             for seed in plan.head_seeds(dataset, backbone, head)}  # fmt: skip
    waiting = {seed: part for seed, part in parts.items() if not _is_done(part, key)}
    if waiting:
        recipe = plan.head(dataset, head)
        assert isinstance(recipe, SeenHead), "a given head is imported, not trained"
        train = _train_together if trains_together(device) else _train_side_by_side
        with denormals_flushed():
            train(load_features(path), recipe, waiting, device, key)
    tables = [read_table(part) for part in parts.values()]
    seeds = {str(seed): read_metadata(part)["training"] for seed, part in parts.items()}
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


def _train_side_by_side(
    features: Features, recipe: SeenHead, parts: Mapping[int, Path], device: str, key: str
) -> None:
    trainval, test_seen = features.split("trainval"), _leak(features, recipe)

    def train(seed: int) -> None:
        with epochs_bar(f"seen head, seed {seed}", recipe.epochs) as progress:
            trained = train_seen_head(
                trainval,
                recipe,
                classes=features.classes.seen,
                seed=seed,
                test_seen=test_seen,
                device=device,
                progress=progress,
            )
        _write(parts[seed], trained, recipe, seed, key)

    in_threads(train, parts, device=device)


def _train_together(
    features: Features, recipe: SeenHead, parts: Mapping[int, Path], device: str, key: str
) -> None:
    with epochs_bar(f"seen heads, {len(parts)} seeds", recipe.epochs) as progress:
        found = train_seen_heads(
            features.split("trainval"),
            recipe,
            classes=features.classes.seen,
            seeds=list(parts),
            test_seen=_leak(features, recipe),
            device=device,
            progress=progress,
        )
    errors = []
    for seed, trained in found.items():
        if isinstance(trained, IcisError):
            errors.append(f"seed {seed}: {trained}")
        else:
            _write(parts[seed], trained, recipe, seed, key)
    if errors:  # the others are there when the same command is run again
        raise IcisError("; ".join(errors))


def _leak(features: Features, recipe: SeenHead) -> LabelledFeatures | None:
    return features.split("test_seen") if recipe.selection == "test_seen" else None


def _write(part: Path, trained: TrainedHead, recipe: SeenHead, seed: int, key: str) -> None:
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
