"""An injected head in use: features or images in, class names and scores out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from icis.errors import IcisError
from icis.scorers import load_head

if TYPE_CHECKING:
    from icis.backbones import LoadedBackbone
    from icis.datasets.sources import Box

CHUNK = 8192
"""Rows scored at a time."""


@dataclass(frozen=True)
class GivenImages:
    """Images as paths or as their files' bytes: a source for extraction, by their position."""

    images: Sequence[str | bytes]

    def names(self) -> list[str]:
        """Return the positions."""
        return [str(number) for number in range(len(self.images))]

    def has(self, name: str) -> bool:
        """Tell whether there is such a position."""
        return name in self.names()

    def read(self, name: str) -> bytes:
        """Return an image's bytes."""
        image = self.images[int(name)]
        if isinstance(image, bytes):
            return image
        try:
            return Path(image).read_bytes()
        except OSError as error:
            raise IcisError(f"image {image} cannot be read: {error.strerror}") from error

    def box(self, name: str) -> Box | None:
        """Return None: the whole image is meant."""
        return None

    def fingerprint(self, names: list[str]) -> dict[str, str]:
        """Return nothing: nothing is recorded of them."""
        return {}


class Served:
    """A head with what is known of it (``about``) and, where there is one, its backbone.

    ``about``: ``backbone`` (its settings, None for features alone) and ``precision`` of its forward
    pass. ``folder`` holds the backbone's weights in timm's local-dir layout; None: they have a name
    on the hub.
    """

    def __init__(self, head: Path, about: Path, folder: Path | None = None) -> None:
        self.head, self.folder = head, folder
        self.about: dict[str, Any] = json.loads(about.read_text())
        self.device = "cuda" if torch.cuda.is_available() else "cpu"

    def predict(self, data: Any, *, role: str = "joint") -> pd.DataFrame:
        """Return a row an image: ``class``, its ``score``, and the ``scores`` of all classes.

        ``data``: features [N, D], as numpy or pandas, or N images: paths or the bytes of their
        files, in an array of objects or a column. ``role``: ``joint``, all classes compete, or
        ``unseen``, the unseen ones alone; the order of ``scores`` is that of the head's classes.
        """
        values = _values(data)
        images = values.dtype == object
        vectors = self._features(list(values)) if images else values.astype(np.float32)
        scorer = load_head(self.head, role=role).to(self.device)
        chunks = torch.split(torch.from_numpy(vectors), CHUNK)
        scores = torch.cat([scorer.scores(chunk.to(self.device)).cpu() for chunk in chunks])
        if not scores.isfinite().all():
            raise IcisError("some scores are NaN or infinite: the features hold such")
        best = scores.max(dim=1)
        return pd.DataFrame(
            {
                "class": [scorer.classes[column] for column in best.indices.tolist()],
                "score": best.values.numpy(),
                "scores": list(scores.numpy()),
            }
        )

    def _features(self, images: list[str | bytes]) -> NDArray[np.float32]:
        from icis.extraction.run import extract

        source = GivenImages(images)
        blocks = extract(
            self._backbone, source, source.names(), precision=self.about["precision"],
            device=self.device,
        )  # fmt: skip
        return np.concatenate(list(blocks))

    @cached_property
    def _backbone(self) -> LoadedBackbone:
        settings = self.about["backbone"]
        if settings is None:
            raise IcisError("this model takes features only: its backbone is not known")
        from icis.backbones import load_backbone
        from icis.config import Backbone

        return load_backbone(Backbone.model_validate(settings), self.folder)


def _values(data: Any) -> NDArray[Any]:
    """Return features [N, D] as numbers, or images [N] as objects."""
    if isinstance(data, pd.DataFrame) and data.shape[1] == 1:
        data = data.iloc[:, 0]
    if isinstance(data, pd.Series):
        data = data.to_list()
    elif isinstance(data, pd.DataFrame):
        data = data.to_numpy()
    first = data[0] if len(data) else None
    if isinstance(first, str | bytes):
        values = np.empty(len(data), dtype=object)
        values[:] = [each if isinstance(each, bytes) else str(each) for each in data]
        return values
    vectors = np.asarray(list(data) if isinstance(data, list) else data)
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        raise IcisError(
            "the model takes features [N, D], or N images as paths or bytes, not an array "
            f"{list(vectors.shape)} of {vectors.dtype}"
        )
    return vectors
