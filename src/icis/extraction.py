"""Images → features: a backbone's pooled output for every row of an index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, default_collate

from icis.backbones import ImageTransform, LoadedBackbone, decode, evaluation_transform
from icis.datasets.sources import ImageSource
from icis.errors import IcisError


class IndexedImages(Dataset[torch.Tensor | IcisError]):
    """The images of an index, in its order, ready for the model; see ``batches`` for errors."""

    def __init__(self, source: ImageSource, names: list[str], transform: ImageTransform) -> None:
        self.source, self.names, self.transform = source, names, transform

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.names)

    def __getitem__(self, row: int) -> torch.Tensor | IcisError:
        """Return one image [3, H, W]."""
        try:
            return self.transform(decode(self.source, self.names[row]))
        except IcisError as error:
            return error


def collate(items: list[Any]) -> Any:
    """Join items into a batch; the first error among them is all there is of theirs."""
    errors = (item for item in items if isinstance(item, IcisError))
    return next(errors, None) or default_collate(items)


def batches(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield a loader's batches; raise an error that one of its items is.

    An error raised in a loader's worker would arrive as the text of its traceback.
    """
    for batch in loader:
        if isinstance(batch, IcisError):
            try:
                raise batch
            finally:
                del batch  # its traceback holds this frame: a cycle would keep the workers alive
        yield batch


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
        collate_fn=collate,
        generator=torch.Generator(),  # or it would draw a seed from the global one
    )
    low = precision == "bfloat16"
    kind = torch.device(device).type
    for pixels in batches(images):
        # entered anew for each batch: a generator's open context would reach its caller
        with torch.inference_mode(), torch.autocast(kind, dtype=torch.bfloat16, enabled=low):
            features = model(pixels.to(device, memory_format=torch.channels_last))
        yield features.float().cpu().numpy()
