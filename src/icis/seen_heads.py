"""Seen heads in Parquet: a row a (seed, seen class)."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import torch

from icis.artifacts import column_vectors, read_table, vector_column
from icis.errors import IcisError
from icis.heads import Head
from icis.shelf import Shelf

ANY_SEED = "any"
"""The seed of a head without randomness, in metadata; null in the column."""


def head_table(head: Head, seed: int | None) -> pa.Table:
    """Return one seed's head as rows; ``None`` is a head that serves every seed."""
    return pa.table(
        {
            "seed": pa.array([seed] * len(head.classes), pa.int64()),
            "class": pa.array(head.classes),
            "weight": vector_column(head.weight.numpy()),
            "bias": pa.array(head.bias.numpy(), pa.float32()),
        }
    )


def load_seen_head(path: Path, seed: int, *, shelf: Shelf | None = None) -> Head:
    """Return one seed's head from the artifact, a copy of its own."""
    table = (shelf or Shelf()).get(read_table, path)
    # polars, since pyarrow imports pandas to look at a number or to make an array of a column
    seeds = pl.Series("seed", table["seed"])
    table = table.filter(seeds.eq(seed).fill_null(value=True).to_arrow())
    if not len(table):
        raise IcisError(f"{path} has no head of seed {seed}")
    weight = torch.from_numpy(column_vectors(table["weight"]).copy())
    bias = torch.from_numpy(pl.Series("bias", table["bias"], pl.Float32).to_numpy().copy())
    return Head(weight, bias, tuple(table["class"].to_pylist()))
