"""Apply an injected head to features."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import torch

from icis.artifacts import atomic_path
from icis.errors import IcisError
from icis.evaluation import predict
from icis.features import load_features
from icis.scorers import load_head
from icis.stages.common import pick_device


def run(head: Path, features: Path, output: Path, *, role: str, device: str = "auto") -> None:
    """Write image, true class where known, and predicted class."""
    if output.suffix not in (".csv", ".parquet"):
        raise IcisError(f"{output}: the output should end in .csv or .parquet")
    scorer = load_head(head, role=role)
    given = load_features(features)
    vectors = torch.from_numpy(given.vectors.copy())
    columns = predict(scorer, vectors, device=pick_device(device)).columns
    predicted = [scorer.classes[column] for column in columns.tolist()]
    frame = given.rows.with_columns(pl.Series("predicted", predicted, dtype=pl.String))
    with atomic_path(output) as temporary:
        if output.suffix == ".csv":
            frame.write_csv(temporary)
        else:
            frame.write_parquet(temporary)
