"""Backbones: timm models, where their weights come from, and how they see an image."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features

from icis.compat import timm
from icis.config import Backbone
from icis.datasets.paths import expand
from icis.datasets.sources import ImageSource
from icis.errors import IcisError

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


def create_model(
    config: Backbone, *, num_classes: int | None = None, folder: Path | None = None
) -> Any:
    """Create a timm model with starting weights as configured.

    Its classifier has ``num_classes`` rows; None keeps the one that comes with the weights.
    """
    directory = folder or _starting_folder(config)
    source = f"local-dir:{directory}" if directory else config.model
    if directory and not (directory / "config.json").is_file():
        raise IcisError(f"{directory} has no config.json: it is no timm local-dir checkpoint")
    try:
        return timm.create_model(
            source,
            pretrained=directory is not None or config.weights == "pretrained",
            **({} if num_classes is None else {"num_classes": num_classes}),
        )
    except Exception as error:  # hub, file and architecture errors have no common type
        what = f"backbone {source}: the model or its weights cannot be had"
        raise IcisError(f"{what}: {type(error).__name__}: {error}") from error


def starting_arguments(config: Backbone) -> dict[str, Any]:
    """Return the arguments by which a local-dir checkpoint changes its architecture.

    A model that is trained from it must be saved with them: timm does not keep them by itself
    (before 1.0.31), and without them loads the weights into another network.
    """
    directory = _starting_folder(config)
    if directory is None:
        return {}
    arguments = json.loads((directory / "config.json").read_text()).get("model_args") or {}
    return {key: value for key, value in arguments.items() if key != "num_classes"}


def _starting_folder(config: Backbone) -> Path | None:
    if not config.weights.startswith("local-dir:"):
        return None
    return expand(config.weights.removeprefix("local-dir:"))


def architecture_of(model: Any) -> str:
    """Return timm's name of the architecture."""
    return str(model.pretrained_cfg.get("architecture", type(model).__name__))


def data_config(model: Any, config: Backbone) -> dict[str, Any]:
    """Return how timm prepares images for the model, with the configured changes."""
    found = timm.data.resolve_model_data_config(model).items()
    data: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in found}
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
    transform: ImageTransform = timm.data.create_transform(**data, is_training=False)
    return transform


def decode(source: ImageSource, name: str) -> Image.Image:
    """Return an image as RGB, upright; an unreadable one is named."""
    data = source.read(name)
    try:
        return _to_rgb(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    except UnidentifiedImageError as error:
        what = "it is empty, damaged or of a format that Pillow does not know"
        raise IcisError(f"image {name!r} is unreadable: {what}") from error
    except Exception as error:  # each format's decoder has errors of its own
        raise IcisError(f"image {name!r} is unreadable: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits: convert() would cut off everything above 255
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "P":  # a palette with transparency: convert("RGB") would warn
        image = image.convert("RGBA")
    return image.convert("RGB")


def decoder_identity() -> str:
    """Name the decoder: another one gives other pixels."""
    jpeg = features.version("jpg")
    turbo = "libjpeg-turbo" if features.check_feature("libjpeg_turbo") else "libjpeg"
    return f"Pillow {PIL.__version__}, {turbo} {jpeg}"


def own_classifier(
    config: Backbone, trained: Path | None = None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weight [C, D] and bias [C] of the classifier that a checkpoint brings with it."""
    layer = create_model(config, folder=trained).get_classifier()
    if not isinstance(layer, torch.nn.Linear) or layer.bias is None:
        raise IcisError(f"{config.model or config.weights}: its classifier is no linear layer")
    return layer.weight.detach().numpy(), layer.bias.detach().numpy()
