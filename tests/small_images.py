"""Small noisy images of four classes, and what tests of backbones do with them."""

import numpy as np
import torch
from PIL import Image

from icis.config import Backbone, Training, Transform
from icis.datasets.sources import open_source
from icis.extraction.run import extract
from icis.finetuning import train_backbone
from tests.hub import tiny_checkpoint

COUNT, CLASSES = 40, 4
SMALL = Transform(image_size=32, crop_pct=1.0, interpolation="bilinear")
BROKEN = "image21.png"


def tiny(*, model="test_resnet", weights="random", transform=SMALL, **training):
    """Return a tiny backbone that is trained."""
    recipe = Training(**{"epochs": 1, "batch_size": 8, "crop_scale": 0.5, **training})
    return Backbone(model=model, weights=weights, transform=transform, train=recipe)


def write_images(folder):
    """Return a source of 40 noisy 32 x 32 images, their names and labels."""
    folder.mkdir(exist_ok=True, parents=True)
    generator = np.random.default_rng(0)
    names, labels = [], []
    for number in range(COUNT):
        label = number % CLASSES
        pixels = generator.integers(0, 120, (32, 32, 3))
        pixels[:, :, label % 3] += 60 + 30 * (label // 3)
        name = f"image{number:02d}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
        names.append(name)
        labels.append(label)
    return open_source(folder), names, labels


def break_one(images, folder):
    """Return a copy of the images in which BROKEN is cut off."""
    source, names, labels = images
    for name in names:
        data = source.read(name)
        (folder / name).write_bytes(data[: len(data) // 2] if name == BROKEN else data)
    return open_source(folder), names, labels


def trained_on(images, config, *, workers=0, **settings):
    """Return the backbone trained on the images."""
    source, names, labels = images
    return train_backbone(
        config, source, names, labels, classes=CLASSES, workers=workers, device="cpu", **settings
    )


def with_dropout(folder):
    """Return starting weights whose training draws random numbers in the model too."""
    return f"local-dir:{tiny_checkpoint(folder, 'test_resnet', 'a/b', drop_rate=0.5)}"


def assert_same_weights(one, other):
    """Compare two trained backbones bit by bit."""
    one, other = one.model.state_dict(), other.model.state_dict()
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key


def features_of(backbone, images, **settings):
    """Return the images' features [N, D]."""
    source, names, _ = images
    how = {"batch_size": 16, "precision": "float32", "threads": 1, "device": "cpu", **settings}
    return np.concatenate(list(extract(backbone, source, names, **how)))
