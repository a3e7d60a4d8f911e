"""Features in Parquet: a row an image, the vector as fixed-size binary."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from icis.artifacts import read_metadata, read_table, read_vectors, require_finite
from icis.datasets.index import Classes
from icis.errors import IcisError
from icis.metrics import LabelledFeatures


@dataclass(frozen=True)
class Features:
    """Vectors [N, D] with image, class and split of every row."""

    vectors: NDArray[np.float32]
    rows: pl.DataFrame
    classes: Classes
    metadata: dict[str, Any]
    _splits: dict[str, LabelledFeatures] = field(default_factory=dict, repr=False, compare=False)

    def split(self, name: str) -> LabelledFeatures:
        """Return the rows of one split; they are taken out once, not once a cell."""
        if name not in self._splits:
            self._splits[name] = self._rows_of(name)
        return self._splits[name]

    def _rows_of(self, name: str) -> LabelledFeatures:
        chosen = (self.rows["split"] == name).to_numpy()
        if not chosen.any():
            raise IcisError(f"the features have no row of the split {name}")
        names = self.rows["class"].filter(pl.Series(chosen)).to_list()
        return LabelledFeatures(torch.from_numpy(self.vectors[chosen]), names)


def load_features(path: Path | str) -> Features:
    """Read a features file and check that its vectors are finite."""
    path = Path(path)
    metadata = read_metadata(path)
    vectors = read_vectors(path)
    rows = pl.from_arrow(read_table(path, ["image", "class", "split"]))
    assert isinstance(rows, pl.DataFrame)
    if not torch.from_numpy(vectors).sum().isfinite():  # else every one of them is
        require_finite(vectors, str(path), rows["image"].to_list())
    return Features(vectors, rows, Classes.from_metadata(metadata), metadata)


def as_lists(features: Features) -> pl.DataFrame:
    """Return the features with vectors as a list column, for other tools."""
    width = features.vectors.shape[1]
    column = pl.Series("vector", features.vectors, dtype=pl.Array(pl.Float32, width))
    return features.rows.with_columns(column)
