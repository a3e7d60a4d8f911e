"""Training a backbone on the seen classes' trainval images, from any starting weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from timm.data import create_transform
from timm.models import save_for_hf
from torch.utils.data import DataLoader, Dataset, Sampler

from icis.backbones import (
    ImageTransform,
    architecture_of,
    create_model,
    data_config,
    decode,
    evaluation_transform,
)
from icis.base_classifier import stratified_holdout
from icis.config import Backbone, Training
from icis.datasets.sources import ImageSource
from icis.evaluation import per_class_accuracy
from icis.methods.base import Progress
from icis.seeding import derive_seed


class LabelledImages(Dataset[tuple[torch.Tensor, int]]):
    """Images with class numbers; a random transform is seeded by (epoch, image)."""

    def __init__(
        self, source: ImageSource, names: list[str], labels: list[int], transform: ImageTransform
    ) -> None:
        self.source, self.names, self.labels, self.transform = source, names, labels, transform

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int]:
        """Return image and label; ``key`` is (row, random seed)."""
        row, seed = key
        # timm's transforms draw from Python's and torch's global generators
        import random

        random.seed(seed)
        torch.manual_seed(seed)
        return self.transform(decode(self.source, self.names[row])), self.labels[row]


class SeededOrder(Sampler[tuple[int, int]]):
    """A new order every epoch, with a seed for each image's augmentation: no worker's own state."""

    def __init__(self, rows: int, seed: int, *, shuffle: bool) -> None:
        self.rows, self.seed, self.shuffle, self.epoch = rows, seed, shuffle, 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (row, seed) of one epoch."""
        self.epoch += 1
        generator = torch.Generator().manual_seed(derive_seed("images", self.seed, self.epoch))
        order = torch.randperm(self.rows, generator=generator).tolist()
        for row in order if self.shuffle else range(self.rows):
            yield row, derive_seed("augmentation", self.seed, self.epoch, row)

    def __len__(self) -> int:
        """Return the number of images."""
        return self.rows


@dataclass(frozen=True)
class TrainedBackbone:
    """A trained model with the epoch kept and the course of training."""

    model: Any
    data: dict[str, Any]
    epoch: int
    history: pl.DataFrame


def train_backbone(
    config: Backbone,
    source: ImageSource,
    images: list[str],
    labels: list[int],
    *,
    classes: int,
    workers: int,
    device: str,
    progress: Progress | None = None,
) -> TrainedBackbone:
    """Train by cross-entropy with AdamW on a one-cycle schedule; keep the epoch selected."""
    recipe = config.train
    assert recipe is not None
    torch.manual_seed(derive_seed("backbone weights", recipe.seed))
    model = create_model(config, num_classes=classes).to(device, memory_format=torch.channels_last)
    data = data_config(model, config)
    rows = torch.arange(len(images))
    held = torch.empty(0, dtype=torch.long)
    if recipe.selection == "holdout":
        rows, held = stratified_holdout(torch.tensor(labels), recipe.holdout, recipe.seed)

    def loader(chosen: torch.Tensor, *, training: bool) -> DataLoader[tuple[torch.Tensor, int]]:
        transform = _augmentation(data, recipe) if training else evaluation_transform(data)
        picked = chosen.tolist()
        dataset = LabelledImages(
            source, [images[row] for row in picked], [labels[row] for row in picked], transform
        )
        return DataLoader(
            dataset,
            batch_size=recipe.batch_size,
            sampler=SeededOrder(len(picked), recipe.seed, shuffle=training),  # type: ignore[arg-type]
            num_workers=workers,
            persistent_workers=workers > 0,
            drop_last=training and len(picked) > recipe.batch_size,
        )

    return _epochs(model, data, recipe, loader(rows, training=True),
                   loader(held, training=False) if len(held) else None, device, progress)  # fmt: skip


def _epochs(
    model: Any,
    data: dict[str, Any],
    recipe: Training,
    train: DataLoader[tuple[torch.Tensor, int]],
    holdout: DataLoader[tuple[torch.Tensor, int]] | None,
    device: str,
    progress: Progress | None,
) -> TrainedBackbone:
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    steps = recipe.epochs * len(train)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=steps
    )
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    history: list[dict[str, float | None]] = []
    best, best_state, kept = -math.inf, None, recipe.epochs
    for epoch in range(1, recipe.epochs + 1):
        model.train()
        total = 0.0
        for pixels, target in train:
            optimizer.zero_grad(set_to_none=True)
            pixels = pixels.to(device, memory_format=torch.channels_last)
            loss = criterion(model(pixels), target.to(device))
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        accuracy = _accuracy(model, holdout, device) if holdout else None
        history.append({"epoch": epoch, "loss": total / len(train), "holdout_accuracy": accuracy})
        if accuracy is not None and accuracy > best:
            best, kept = accuracy, epoch
            best_state = {key: value.clone() for key, value in model.state_dict().items()}
        if progress:
            progress(epoch, total / len(train))
    if best_state is not None:
        model.load_state_dict(best_state)
    return TrainedBackbone(model, data, kept, pl.DataFrame(history))


def _augmentation(data: dict[str, Any], recipe: Training) -> ImageTransform:
    transform: ImageTransform = create_transform(
        data["input_size"],
        is_training=True,
        scale=(recipe.crop_scale, 1.0),
        hflip=0.5 if recipe.flip else 0.0,
        color_jitter=None,
        interpolation=data["interpolation"],
        mean=data["mean"],
        std=data["std"],
    )
    return transform


def _accuracy(
    model: torch.nn.Module, images: DataLoader[tuple[torch.Tensor, int]], device: str
) -> float:
    model.eval()
    predicted, target = [], []
    with torch.inference_mode():
        for pixels, labels in images:
            predicted.append(model(pixels.to(device)).argmax(1).cpu())
            target.append(torch.as_tensor(labels))
    return per_class_accuracy(torch.cat(predicted), torch.cat(target))


def save_backbone(trained: TrainedBackbone, folder: Path) -> None:
    """Write the model in timm's local-dir layout; config.json comes last."""
    keys = ("input_size", "interpolation", "crop_pct", "mean", "std", "crop_mode")
    changed = {key: trained.data[key] for key in keys}
    trained.model.pretrained_cfg.update(changed)
    save_for_hf(
        trained.model.to("cpu", memory_format=torch.contiguous_format),
        folder,
        model_config={"architecture": architecture_of(trained.model)},
        safe_serialization=True,
    )
