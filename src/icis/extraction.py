"""Images → features: a backbone's pooled output for every row of an index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from icis.backbones import ImageTransform, LoadedBackbone, decode, evaluation_transform
from icis.datasets.sources import ImageSource


class IndexedImages(Dataset[torch.Tensor]):
    """The images of an index, in its order, ready for the model."""

    def __init__(self, source: ImageSource, names: list[str], transform: ImageTransform) -> None:
        self.source, self.names, self.transform = source, names, transform

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def __getitem__(self, row: int) -> torch.Tensor:
        """Return one image [3, H, W]."""
        return self.transform(decode(self.source, self.names[row]))


def extract(
    backbone: LoadedBackbone,
    source: ImageSource,
    names: list[str],
    *,
    batch_size: int,
    precision: str,
    workers: int,
    device: str,
) -> Iterator[NDArray[np.float32]]:
    """Yield features [B, D] batch after batch, in the order of ``names``."""
    model = backbone.model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images: DataLoader[Any] = DataLoader(
        IndexedImages(source, names, evaluation_transform(backbone.data)),
        batch_size=batch_size,
        num_workers=workers,
    )
    low = precision == "bfloat16"
    with torch.inference_mode(), torch.autocast(device, dtype=torch.bfloat16, enabled=low):
        for pixels in images:
            pixels = pixels.to(device, memory_format=torch.channels_last)
            yield model(pixels).float().cpu().numpy()
