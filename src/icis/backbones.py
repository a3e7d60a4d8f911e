"""Backbones: timm models, where their weights come from, and how they see an image."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps, features

from icis.compat import import_timm
from icis.config import Backbone
from icis.datasets.paths import expand
from icis.datasets.sources import ImageSource
from icis.errors import IcisError

import_timm()
import timm  # noqa: E402
from timm.data import create_transform, resolve_model_data_config  # noqa: E402

ImageTransform = Callable[[Image.Image], torch.Tensor]


@dataclass(frozen=True)
class LoadedBackbone:
    """A timm model without classifier (its output is the pooled feature) and its data settings."""

    model: torch.nn.Module
    data: dict[str, Any]
    architecture: str


def load_backbone(config: Backbone, trained: Path | None = None) -> LoadedBackbone:
    """Create the model: from ``trained`` (a folder that the finetune stage wrote) if given."""
    model = create_model(config, num_classes=0, folder=trained)
    return LoadedBackbone(model.eval(), data_config(model, config), architecture_of(model))


def create_model(config: Backbone, *, num_classes: int, folder: Path | None = None) -> Any:
    """Create a timm model with starting weights as configured, and a classifier of that size."""
    source = f"local-dir:{folder}" if folder else config.weights
    if source.startswith("local-dir:"):
        directory = folder or expand(source.removeprefix("local-dir:"))
        if not (directory / "config.json").is_file():
            raise IcisError(f"{directory} has no config.json: it is no timm local-dir checkpoint")
        source = f"local-dir:{directory}"
    elif source == "random":
        source = config.model
    else:
        source = config.model
    try:
        return timm.create_model(
            source, pretrained=config.weights != "random" or folder is not None,
            num_classes=num_classes,
        )  # fmt: skip
    except Exception as error:  # hub, file and architecture errors have no common type
        what = f"backbone {config.model or source}: the model or its weights cannot be had"
        raise IcisError(f"{what}: {type(error).__name__}: {error}") from error


def architecture_of(model: Any) -> str:
    """Return timm's name of the architecture."""
    return str(model.pretrained_cfg.get("architecture", type(model).__name__))


def data_config(model: Any, config: Backbone) -> dict[str, Any]:
    """Return how timm prepares images for the model, with the configured changes."""
    data: dict[str, Any] = dict(resolve_model_data_config(model))
    changes = config.transform
    if changes.crop_pct is not None:
        data["crop_pct"] = changes.crop_pct
    if changes.interpolation is not None:
        data["interpolation"] = changes.interpolation
    if changes.image_size is not None:
        data["input_size"] = (3, changes.image_size, changes.image_size)
    return data


def evaluation_transform(data: dict[str, Any]) -> ImageTransform:
    """Return timm's evaluation transform: resize, centre crop, normalise."""
    transform: ImageTransform = create_transform(**data, is_training=False)
    return transform


def decode(source: ImageSource, name: str) -> Image.Image:
    """Return an image as RGB, upright; an unreadable one is named."""
    data = source.read(name)
    try:
        return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise IcisError(f"image {name!r} is unreadable: {error}") from error


def decoder_identity() -> str:
    """Name the decoder: another one gives other pixels."""
    jpeg = features.version("jpg")
    turbo = "libjpeg-turbo" if features.check_feature("libjpeg_turbo") else "libjpeg"
    return f"Pillow {Image.__version__}, {turbo} {jpeg}"
