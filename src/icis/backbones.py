"""Backbones: timm models, where their weights come from, and how they see an image."""

from __future__ import annotations

import io
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
from icis.datasets.sources import Box, ImageSource
from icis.errors import IcisError
from icis.weights import (
    ModelFiles,
    cannot_be_had,
    check_model_name,
    mismatches,
    starting_files,
)

ImageTransform = Callable[[Image.Image], torch.Tensor]
PixelTransform = Callable[[Image.Image], NDArray[np.uint8]]


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
    """Create a timm model with starting weights as configured, or with those in ``folder``.

    Its classifier is new and has ``num_classes`` rows; None keeps the one that comes with the
    weights. Weights are loaded whole, with their own classifier, so that every tensor is checked:
    with another number of classes timm passes over missing ones.
    """
    files = _files(config, folder)
    if files is None and config.weights == "random":
        check_model_name(config.model, config.model)
        chosen = {} if num_classes is None else {"num_classes": num_classes}
        return _create(config.model, None, pretrained=False, **chosen)
    model = _create(f"local-dir:{files.folder}" if files else config.model, files, pretrained=True)
    if num_classes is not None:
        model.reset_classifier(num_classes)
    return model


def _create(source: str, files: ModelFiles | None = None, **settings: int) -> Any:
    try:
        return timm.create_model(source, **settings)
    except Exception as error:  # hub, file and architecture errors have no common type
        reason = f"{type(error).__name__}: {error}"
        if files is None:
            raise cannot_be_had(source, reason) from error
        unfit = mismatches(files, _create(source, pretrained=False))
        if not unfit:
            raise cannot_be_had(files.name, reason) from error
        raise IcisError(
            f"backbone {files.name}: its tensors do not fit the {files.architecture} that its "
            f"config.json describes: {unfit}; put config.json and weights of one model there"
        ) from error


def _files(config: Backbone, trained: Path | None) -> ModelFiles | None:
    if trained is None:
        return starting_files(config)
    files = ModelFiles(f"local-dir:{trained}", trained)
    files.check()
    return files


def weights_identity(config: Backbone, trained: Path | None = None) -> dict[str, str]:
    """Return the SHA-256 of the files that the weights are read from, by file.

    A file of the hub is named with its repository and commit. Random weights, and pretrained ones
    that timm fetches by itself, have no files to hash and say so instead.
    """
    files = _files(config, trained)
    if files is not None:
        return files.identity()
    if config.weights == "random":
        return {"random": "weights drawn from train.seed"}
    return {f"timm:{config.model}": "fetched by timm itself, not hashed"}


def starting_arguments(config: Backbone) -> dict[str, Any]:
    """Return the arguments by which a checkpoint changes its architecture.

    A model that is trained from it must be saved with them: timm does not keep them by itself
    (before 1.0.31), and without them loads the weights into another network.
    """
    files = starting_files(config)
    arguments = (files.config.get("model_args") or {}) if files else {}
    return {key: value for key, value in arguments.items() if key != "num_classes"}


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


def pixel_transform(data: dict[str, Any]) -> PixelTransform:
    """Return timm's evaluation transform up to its last step: an image as uint8 [H, W, 3].

    ``normalise`` does the last step for a whole batch.
    """
    steps = timm.data.create_transform(**data, is_training=False, normalize=False)

    def transform(image: Image.Image) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = steps(image).permute(1, 2, 0).numpy()
        return pixels

    return transform


def normalise(pixels: torch.Tensor, data: dict[str, Any]) -> torch.Tensor:
    """Return uint8 pixels [B, H, W, 3] as the model's input [B, 3, H, W], channels_last.

    Equals what timm's evaluation transform makes of each image.
    """
    batch, height, width, channels = pixels.shape
    # a whole line at a time: broadcasting over 3 channels alone is several times slower
    mean, std = (
        torch.tensor(data[key], dtype=torch.float32, device=pixels.device).repeat(width)
        for key in ("mean", "std")
    )
    lines = pixels.view(batch, height, width * channels).to(torch.float32)
    lines.div_(255).sub_(mean).div_(std)
    return lines.view(batch, height, width, channels).permute(0, 3, 1, 2)


def decode(source: ImageSource, name: str) -> Image.Image:
    """Return an image as RGB, upright, cut to its box; an unreadable one is named."""
    data = source.read(name)
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
        ImageOps.exif_transpose(image, in_place=True)  # otherwise it copies what is upright
        image = _to_rgb(image)
    except UnidentifiedImageError as error:
        what = "it is empty, damaged or of a format that Pillow does not know"
        raise IcisError(f"image {name!r} is unreadable: {what}") from error
    except Exception as error:  # each format's decoder has errors of its own
        raise IcisError(f"image {name!r} is unreadable: {error}") from error
    box = source.box(name)
    return image if box is None else _cut(image, box, name)


def _cut(image: Image.Image, box: Box, name: str) -> Image.Image:
    left, top = max(box[0], 0), max(box[1], 0)
    right, bottom = min(box[2], image.width), min(box[3], image.height)
    if left >= right or top >= bottom:
        size = f"{image.width} x {image.height}"
        raise IcisError(f"image {name!r}: its box {list(box)} is empty in an image of {size}")
    return image.crop((left, top, right, bottom))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    if image.mode.startswith("I"):  # 16 bits: convert() would cut off everything above 255
        image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "P":  # a palette with transparency: convert("RGB") would warn
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


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
