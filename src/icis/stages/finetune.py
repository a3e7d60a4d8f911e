"""Train a backbone on the seen classes of a data set."""

from __future__ import annotations

import polars as pl

from icis import layout
from icis.artifacts import provenance, write_json, write_table
from icis.datasets.index import load_index
from icis.errors import IcisError
from icis.finetuning import save_backbone, train_backbone
from icis.plan import Plan
from icis.stages.common import device_name, epochs_bar, images_of, pick_device


def run(plan: Plan, dataset: str, backbone: str, *, workers: int = 0, device: str = "auto") -> None:
    """Write the trained model in timm's local-dir layout; ``trained.json`` comes last."""
    config = plan.backbone(backbone)
    if config.train is None:
        raise IcisError(f"backbones.{backbone} has no 'train': it is used as it is")
    device = pick_device(device)
    index, _ = load_index(layout.index(dataset))
    rows = index.frame.filter(pl.col("split") == "trainval")
    number = {name: label for label, name in enumerate(index.classes.seen)}
    with epochs_bar(f"train {backbone}", config.train.epochs) as progress:
        trained = train_backbone(
            config,
            images_of(plan, dataset)[1],
            rows["image"].to_list(),
            [number[name] for name in rows["class"]],
            classes=len(number),
            workers=workers,
            device=device,
            progress=progress,
        )
    folder = layout.backbone(dataset, backbone)
    metadata = provenance(
        "backbone history",
        fingerprint=plan.training_fingerprint(backbone),
        inputs={"index": layout.index(dataset)},
        device=device_name(device),
    )
    write_table(folder / "history.parquet", trained.history, metadata)
    save_backbone(trained, folder)
    selection = f"{config.train.selection} (epoch {trained.epoch} of {config.train.epochs})"
    finished = {
        "fingerprint": plan.training_fingerprint(backbone),
        "selection": selection,
        "start": config.weights,
        "device": device_name(device),
    }
    write_json(folder / "trained.json", finished)
