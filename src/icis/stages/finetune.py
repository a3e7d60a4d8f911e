"""Train a backbone on the seen classes of a data set."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl

from icis import layout
from icis.artifacts import file_sha256, provenance, write_json, write_table
from icis.backbones import weights_identity
from icis.config import Training
from icis.course import forward_precision
from icis.datasets.index import load_index
from icis.errors import IcisError
from icis.finetuning import TrainedBackbone, save_backbone, train_backbone
from icis.plan import Plan
from icis.schema import canonical_hash
from icis.seals import seal
from icis.stages.common import device_name, epochs_bar, image_source, only_one, pick_device

FILES = ("config.json", "model.safetensors", "history.parquet")


def run(plan: Plan, dataset: str, backbone: str, *, workers: int = 0, device: str = "auto") -> None:
    """Write the trained model in timm's local-dir layout; ``trained.json`` comes last.

    After each epoch the state of training is saved outside of the outputs; a run that was killed
    goes on from there.
    """
    config = plan.backbone(backbone)
    recipe = config.train
    if recipe is None:
        raise IcisError(f"backbones.{backbone} has no 'train': it is used as it is")
    device = pick_device(device)
    folder, partial = layout.backbone(dataset, backbone), layout.partial_backbone(dataset, backbone)
    with only_one(folder):
        start = weights_identity(config)
        about = {
            "fingerprint": plan.training_fingerprint(backbone),
            "start": config.weights,
            "precision": forward_precision(recipe.precision, device),
        }
        kind = device.partition(":")[0]
        key = canonical_hash([about, start, file_sha256(layout.index(dataset)), kind])
        if not _is_done(folder, key):
            trained = _train(plan, dataset, backbone, recipe, workers, device, partial / key)
            about |= {"key": key, "device": device_name(device)}
            _write(trained, folder, layout.index(dataset), recipe, start, about)
        seal(folder / "trained.json", *(folder / name for name in FILES))
        shutil.rmtree(partial, ignore_errors=True)  # of other configurations too


def _is_done(folder: Path, key: str) -> bool:
    """Say whether a run that held the lock before this one has made the same model."""
    try:
        finished = json.loads((folder / "trained.json").read_text(encoding="utf-8"))
        hashes = finished["files"]
        whole = all(file_sha256(folder / name) == hashes[name] for name in hashes)
        return bool(finished["key"] == key and whole)
    except (OSError, ValueError, KeyError, TypeError, IcisError):
        return False


def _train(
    plan: Plan,
    dataset: str,
    backbone: str,
    recipe: Training,
    workers: int,
    device: str,
    partial: Path,
) -> TrainedBackbone:
    index, _ = load_index(layout.index(dataset))
    rows = index.frame.filter(pl.col("split") == "trainval")
    number = {name: label for label, name in enumerate(index.classes.seen)}
    with epochs_bar(f"train {backbone}", recipe.epochs) as progress:
        return train_backbone(
            plan.backbone(backbone),
            image_source(plan, dataset, index.frame),
            rows["image"].to_list(),
            [number[name] for name in rows["class"]],
            classes=len(number),
            workers=workers,
            device=device,
            progress=progress,
            partial=partial,
        )


def _write(
    trained: TrainedBackbone,
    folder: Path,
    index: Path,
    recipe: Training,
    start: dict[str, str],
    about: dict[str, Any],
) -> None:
    metadata = provenance(
        "backbone history",
        fingerprint=about["fingerprint"],
        inputs={"index": index},
        sources=start,
        device=about["device"],
        precision=about["precision"],
    )
    write_table(folder / "history.parquet", trained.history, metadata)
    save_backbone(trained, folder)
    finished = {
        **about,
        "selection": f"{recipe.selection} (epoch {trained.epoch} of {recipe.epochs})",
        "sources": metadata["sources"],
        "files": {name: file_sha256(folder / name) for name in FILES},
    }
    write_json(folder / "trained.json", finished)
