"""Train the seen heads of a data set: one a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from icis import layout
from icis.artifacts import (
    file_sha256,
    provenance,
    read_metadata,
    read_table,
    write_table,
)
from icis.base_classifier import TrainedHead, train_seen_head
from icis.config import GivenHead
from icis.datasets.index import Classes
from icis.errors import IcisError
from icis.features import Features, load_features
from icis.given_heads import head_classes, read_arrays, to_head, without
from icis.heads import check_dim
from icis.plan import Plan
from icis.schema import canonical_hash
from icis.seen_heads import ANY_SEED, head_table
from icis.stages.common import device_name, epochs_bar, pick_device


def run(plan: Plan, dataset: str, backbone: str, head: str, *, device: str = "auto") -> None:
    """Write all seeds' heads: a row a (seed, seen class).

    Each seed is also kept in a file of its own beside it: a seed that is there already, made from
    the same features by the same recipe and code, is not trained again.
    """
    if isinstance(plan.head(dataset, head), GivenHead):
        return _import(plan, dataset, backbone, head)
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


def _import(plan: Plan, dataset: str, backbone: str, head: str) -> None:
    """Write a given head without the rows of the data set's unseen classes, for every seed."""
    recipe = plan.given_head(head)
    path = layout.features(dataset, backbone)
    about = read_metadata(path)
    classes = Classes.from_metadata(about)
    names, sources = classes.seen, dict[str, str]()
    if recipe.classes is not None:
        names, sources = head_classes(recipe)
    if recipe.file is not None:
        weight, bias, hashes = read_arrays(recipe)
        sources |= hashes
    else:
        weight, bias = _classifier(plan, dataset, backbone)
    given = to_head(weight, bias, names, recipe.file or f"the classifier of {backbone}")
    kept = without(given, classes.unseen)
    check_dim(torch.empty(0, about["dim"]), kept.dim)
    left_out = len(given.classes) - len(kept.classes)
    selection = "given, not trained here"
    if left_out:
        selection += f", {left_out} rows of unseen classes left out"
    metadata = provenance(
        "seen heads",
        fingerprint=plan.head_fingerprint(dataset, head),
        inputs={"features": path},
        sources={**about["sources"], **sources},
        classes=about["classes"],
        split_version=about["split_version"],
        backbone_selection=about["backbone_selection"],
        device="none",
        head=head,
        training={ANY_SEED: {"selection": selection}},
    )
    write_table(layout.seen_heads(dataset, backbone, head), head_table(kept, None), metadata)


def _classifier(plan: Plan, dataset: str, backbone: str) -> tuple[Any, Any]:
    from icis.backbones import own_classifier

    config = plan.backbone(backbone)
    folder = layout.backbone(dataset, backbone) if config.train is not None else None
    return own_classifier(config, folder)


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
    assert not isinstance(recipe, GivenHead)
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


def describe_selection(trained: TrainedHead, selection: str, epochs: int) -> str:
    """Say in words how the epoch was selected."""
    return {
        "last": f"last of {epochs} epochs",
        "holdout": f"best of {epochs} epochs on held-out trainval images",
        "test_seen": f"best of {epochs} epochs on test_seen (the paper's leak)",
    }[selection]
