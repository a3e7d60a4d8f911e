"""Training a backbone on the seen classes' trainval images, from any starting weights."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import polars as pl
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from icis.backbones import (
    ImageTransform,
    architecture_of,
    create_model,
    data_config,
    decode,
    evaluation_transform,
    starting_arguments,
)
from icis.base_classifier import stratified_holdout
from icis.compat import timm
from icis.config import Backbone, Training
from icis.course import Course
from icis.datasets.sources import ImageSource
from icis.errors import IcisError
from icis.extraction import collate
from icis.memory import freed_memory_kept
from icis.resuming import load_state, save_state, say
from icis.seeding import derive_seed

if TYPE_CHECKING:
    from icis.methods.base import Progress


class LabelledImages(Dataset[tuple[torch.Tensor, int] | IcisError]):
    """Images with class numbers; a random transform is seeded by (epoch, image).

    An unreadable image is an error that ``extraction.batches`` raises.
    """

    def __init__(
        self, source: ImageSource, names: list[str], labels: list[int], transform: ImageTransform
    ) -> None:
        self.source, self.names, self.labels, self.transform = source, names, labels, transform

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int] | IcisError:
        """Return image and label; ``key`` is (row, random seed)."""
        row, seed = key
        try:
            image = decode(self.source, self.names[row])
        except IcisError as error:
            return error
        with _seeded(seed):
            return self.transform(image), self.labels[row]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators that timm's transforms draw from, and put them back after.

    Without workers the model draws from the same generators, for dropout.
    """
    state = random.getstate()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(state)


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
    arguments: dict[str, Any] = field(default_factory=dict)
    """timm's model arguments of the checkpoint that training started from."""


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
    partial: Path | None = None,
) -> TrainedBackbone:
    """Train by cross-entropy with AdamW on a one-cycle schedule; keep the epoch selected.

    ``labels`` are class numbers below ``classes``. The result does not depend on the number of
    workers. After each epoch the state is saved in the folder ``partial``; a run that finds it
    there goes on from it and ends, on the CPU, with the same bits as one that was not interrupted.
    The folder must be used for one configuration and one set of images only.
    """
    recipe = config.train
    assert recipe is not None
    torch.manual_seed(derive_seed("backbone weights", recipe.seed))
    model = create_model(config, num_classes=classes).to(device, memory_format=torch.channels_last)
    data = data_config(model, config)
    rows = torch.arange(len(images))
    held = torch.empty(0, dtype=torch.long)
    if recipe.selection == "holdout":
        rows, held = stratified_holdout(torch.tensor(labels), recipe.holdout, recipe.seed)

    def loader(chosen: torch.Tensor, *, training: bool) -> DataLoader[Any]:
        transform = _augmentation(data, recipe) if training else evaluation_transform(data)
        picked = chosen.tolist()
        dataset = LabelledImages(
            source, [images[row] for row in picked], [labels[row] for row in picked], transform
        )
        return DataLoader(
            dataset,
            batch_size=recipe.batch_size,
            sampler=SeededOrder(len(picked), recipe.seed, shuffle=training),
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            pin_memory=device.startswith("cuda"),
            drop_last=training and len(picked) > recipe.batch_size,
            generator=torch.Generator(),  # or it would draw from the global one, as dropout does
        )

    train = loader(rows, training=True)
    holdout = loader(held, training=False) if len(held) else None
    course = Course(model, recipe, len(train), device)
    if partial is not None and (found := load_state(partial)) is not None:
        course.resume(*found)
        say(f"training goes on after epoch {len(course.history)} of {recipe.epochs}")
    with freed_memory_kept():
        _epochs(course, train, holdout, progress, partial)
    epoch = course.keep_selected()
    history = pl.DataFrame(course.history).select("epoch", "loss", "holdout_accuracy")
    return TrainedBackbone(model, data, epoch, history, starting_arguments(config))


def _epochs(
    course: Course,
    train: DataLoader[Any],
    holdout: DataLoader[Any] | None,
    progress: Progress | None,
    partial: Path | None,
) -> None:
    recipe = course.recipe
    for epoch in range(len(course.history) + 1, recipe.epochs + 1):
        for images in (train, holdout):
            if images is not None:
                cast(SeededOrder, images.sampler).epoch = epoch - 1
        # dropout draws from these; seeded anew, they need not be saved
        torch.manual_seed(derive_seed("dropout", recipe.seed, epoch))
        loss = course.train_epoch(train, frozen=epoch <= recipe.frozen_epochs)
        if not math.isfinite(loss):
            raise IcisError(
                f"training the backbone: the loss became {loss} in epoch {epoch}; "
                "lower train.learning_rate"
            )
        course.record(loss, course.accuracy(holdout) if holdout else None)
        if partial is not None:
            save_state(partial, epoch, course.tensors(), course.facts())
        if progress:
            progress(epoch, loss)


def _augmentation(data: dict[str, Any], recipe: Training) -> ImageTransform:
    transform: ImageTransform = timm.data.create_transform(
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


def save_backbone(trained: TrainedBackbone, folder: Path) -> None:
    """Write the model in timm's local-dir layout; config.json comes last."""
    keys = ("input_size", "interpolation", "crop_pct", "mean", "std", "crop_mode")
    changed = {key: trained.data[key] for key in keys}
    trained.model.pretrained_cfg.update(changed)
    timm.models.save_for_hf(
        trained.model.to("cpu", memory_format=torch.contiguous_format),
        folder,
        model_config={"architecture": architecture_of(trained.model)},
        model_args=trained.arguments,
        safe_serialization=True,
    )
