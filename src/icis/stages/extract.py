"""Extract a backbone's features of every image, or take them from a file in xlsa17 layout."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tqdm import tqdm

from icis import layout
from icis.artifacts import atomic_path, provenance, require_finite, vector_column, with_metadata
from icis.config import Xlsa17Dataset
from icis.datasets.index import ImageIndex, load_index
from icis.datasets.paths import expand
from icis.datasets.xlsa17 import read_features
from icis.plan import Plan
from icis.stages.common import device_name, images_of, pick_device

Blocks = Iterable[NDArray[np.float32]]
ROW_GROUP = 4096
"""Images held in memory and written at a time."""


def run(plan: Plan, dataset: str, backbone: str, *, workers: int = 0, device: str = "auto") -> None:
    """Write the features: a row an image, in the order of the index."""
    data = plan.dataset(dataset)
    index, about = load_index(layout.index(dataset))
    inputs = {"index": layout.index(dataset)}
    facts: dict[str, Any] = {"dataset": dataset, "backbone": backbone}
    blocks: Blocks
    if isinstance(data, Xlsa17Dataset):
        inputs["features"] = expand(data.features[backbone])
        blocks = [read_features(data, backbone, index)]
        facts |= {"device": "none", "backbone_selection": "features as given"}
    else:
        blocks = _extracted(plan, dataset, backbone, index, inputs, facts, workers, device)
    metadata = provenance(
        "features",
        fingerprint=plan.features_fingerprint(dataset, backbone),
        inputs=inputs,
        sources=about["sources"],
        split_version=about["split_version"],
        classes=about["classes"],
        dtype="float32",
        **facts,
    )
    _write(layout.features(dataset, backbone), index.frame, blocks, metadata)


def _extracted(
    plan: Plan,
    dataset: str,
    backbone: str,
    index: ImageIndex,
    inputs: dict[str, Path],
    facts: dict[str, Any],
    workers: int,
    device: str,
) -> Iterator[NDArray[np.float32]]:
    from icis.backbones import decoder_identity, load_backbone
    from icis.extraction import extract

    config = plan.backbone(backbone)
    device = pick_device(device)
    trained = None
    facts["backbone_selection"] = f"{config.weights}, as it is"
    if config.train is not None:
        trained = layout.backbone(dataset, backbone)
        finished = json.loads((trained / "trained.json").read_text())
        facts["backbone_selection"] = finished["selection"]
        inputs["backbone"] = trained / "model.safetensors"
    elif config.weights.startswith("local-dir:"):
        inputs["backbone"] = expand(config.weights.removeprefix("local-dir:")) / "model.safetensors"
    loaded = load_backbone(config, trained)
    facts |= {
        "architecture": loaded.architecture,
        "weights": config.weights,
        "transform": {key: str(value) for key, value in loaded.data.items()},
        "decoder": decoder_identity(),
        "precision": config.precision,
        "device": device_name(device),
    }
    return extract(
        loaded,
        images_of(plan, dataset)[1],
        index.frame["image"].to_list(),
        batch_size=config.batch_size,
        precision=config.precision,
        workers=workers,
        device=device,
    )


def _regrouped(blocks: Blocks) -> Blocks:
    """Join batches into blocks of the size of a row group."""
    waiting: list[NDArray[np.float32]] = []
    for block in blocks:
        waiting.append(block)
        if sum(map(len, waiting)) >= ROW_GROUP:
            yield np.concatenate(waiting)
            waiting = []
    if waiting:
        yield np.concatenate(waiting)


def _write(path: Path, rows: pl.DataFrame, blocks: Blocks, metadata: dict[str, Any]) -> None:
    """Write block after block, so that memory does not grow with the number of images."""
    names = rows["image"].to_list()
    columns = rows.select("image", "class", "split").to_arrow()
    columns = columns.cast(pa.schema([(each, pa.string()) for each in columns.column_names]))
    done, writer = 0, None
    with (
        atomic_path(path) as temporary,
        tqdm(total=len(rows), desc=f"features {path.stem}", unit="image", disable=None) as bar,
    ):
        try:
            for block in _regrouped(blocks):
                require_finite(block, f"{path}: features", names[done : done + len(block)])
                part = columns.slice(done, len(block))
                table = part.append_column("vector", vector_column(block))
                if writer is None:
                    about = {**metadata, "dim": block.shape[1]}
                    schema = with_metadata(table.schema, about)
                    writer = pq.ParquetWriter(
                        temporary, schema, compression="none", write_page_checksum=True
                    )
                writer.write_table(table.cast(writer.schema))
                done += len(block)
                bar.update(len(block))
        finally:
            if writer is not None:
                writer.close()
