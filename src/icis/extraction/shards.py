"""Features on their way: a Parquet file a shard, so that a killed run loses no more than one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from icis.artifacts import (
    column_vectors,
    read_metadata,
    read_table,
    require_finite,
    vector_column,
    write_table,
)
from icis.errors import IcisError


@dataclass(frozen=True)
class Shards:
    """The rows [k · size, (k + 1) · size) of an index as files in a folder.

    ``key`` stands for everything that the vectors depend on besides the images' names.
    """

    folder: Path
    names: Sequence[str]
    key: str
    size: int

    def __len__(self) -> int:
        """Return the number of shards."""
        return math.ceil(len(self.names) / self.size)

    def rows(self, shard: int) -> range:
        """Return a shard's rows of the index."""
        return range(len(self.names))[shard * self.size : (shard + 1) * self.size]

    def path(self, shard: int) -> Path:
        """Return a shard's file."""
        return self.folder / f"part-{shard:05d}.parquet"

    def finished(self) -> list[int]:
        """Return the shards that are there, whole and of the right rows; delete what is not."""
        found = []
        for shard in range(len(self)):
            try:
                self.read(shard)
            except IcisError:
                self.path(shard).unlink(missing_ok=True)
            else:
                found.append(shard)
        return found

    def write(self, shard: int, vectors: NDArray[np.float32], about: dict[str, Any]) -> None:
        """Write a shard's vectors [rows, D] and what is to be remembered of them, atomically."""
        names = self._names(shard)
        require_finite(vectors, "features", names)
        table = pa.table({"image": names, "vector": vector_column(vectors)})
        write_table(self.path(shard), table, {"key": self.key, **about})

    def read(self, shard: int) -> NDArray[np.float32]:
        """Return a shard's vectors [rows, D]; IcisError where it is damaged or another's."""
        path = self.path(shard)
        table, about = read_table(path), self.about(shard)
        whole = table.column_names == ["image", "vector"] and about.get("key") == self.key
        if not whole or table["image"].to_pylist() != self._names(shard):
            raise IcisError(f"{path} holds other images than it should; delete it and run again")
        return column_vectors(table["vector"])

    def about(self, shard: int) -> dict[str, Any]:
        """Return what is remembered of a shard."""
        return read_metadata(self.path(shard))

    def _names(self, shard: int) -> list[str]:
        rows = self.rows(shard)
        return list(self.names[rows.start : rows.stop])


def model_hash(model: torch.nn.Module) -> str:
    """Return the SHA-256 of a model's structure and of all its weights and statistics.

    The structure counts too: with another padding the same weights are another network.
    """
    state = hashlib.sha256(str(model).encode())
    for name, value in model.state_dict().items():
        array = value.detach().cpu().contiguous()
        state.update(f"{name} {tuple(array.shape)} {array.dtype}".encode())
        state.update(array.reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()
