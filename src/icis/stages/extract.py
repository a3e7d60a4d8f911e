"""Extract a backbone's features of every image, or take them from a file in xlsa17 layout."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from icis import layout
from icis.artifacts import (
    TableWriter,
    atomic_path,
    file_sha256,
    provenance,
    require_finite,
    vector_column,
    with_metadata,
)
from icis.config import Experiment, Xlsa17Dataset
from icis.datasets.index import ImageIndex, load_index
from icis.datasets.paths import expand
from icis.datasets.xlsa17 import read_features
from icis.plan import Plan
from icis.schema import canonical_hash
from icis.seals import seal
from icis.stages.common import device_name, image_source, only_one

if TYPE_CHECKING:
    from icis.backbones import LoadedBackbone
    from icis.datasets.sources import ImageSource
    from icis.extraction.shards import Shards

SHA256 = re.compile("[0-9a-f]{64}")
Blocks = Iterable[NDArray[np.float32]]
SHARD = 2048
"""Images held in memory, written, and lost to a kill, at a time."""


def run(
    plan: Plan,
    dataset: str,
    backbone: str,
    *,
    threads: int = 1,
    device: str = "auto",
    shard: int = SHARD,
) -> None:
    """Write the features: a row an image, in the order of the index.

    ``device`` may name several (``cuda:0,cuda:1``). What a killed run had done is taken over.
    """
    data = plan.dataset(dataset)
    index, about = load_index(layout.index(dataset))
    inputs = {"index": layout.index(dataset)}
    facts: dict[str, Any] = {"dataset": dataset, "backbone": backbone}
    weights: dict[str, str] = {}

    def write(blocks: Blocks) -> None:
        metadata = provenance(
            "features",
            fingerprint=plan.features_fingerprint(dataset, backbone),
            inputs=inputs,
            sources={**about["sources"], **weights},
            split_version=about["split_version"],
            classes=about["classes"],
            dtype="float32",
            **facts,
        )
        _write(layout.features(dataset, backbone), index.frame, blocks, metadata)
        seal(layout.features(dataset, backbone))

    if isinstance(data, Xlsa17Dataset) and backbone in data.features:
        inputs["features"] = expand(data.features[backbone])
        facts |= {"device": "none", "backbone_selection": "features as given"}
        write([read_features(data, backbone, index)])
        return
    partials = layout.partial_features(dataset, backbone)
    with only_one(partials):
        weights |= _weights(plan, dataset, backbone)
        shards = _extracted(plan, dataset, backbone, index, inputs, facts, threads, device, shard)
        write(shards.read(each) for each in range(len(shards)))
        shutil.rmtree(partials)  # with what other settings may have left


def _extracted(
    plan: Plan,
    dataset: str,
    backbone: str,
    index: ImageIndex,
    inputs: dict[str, Path],
    facts: dict[str, Any],
    threads: int,
    device: str,
    shard: int,
) -> Shards:
    """Compute all shards; add to ``inputs`` and ``facts`` what the vectors come from."""
    from icis.backbones import decoder_identity
    from icis.extraction.forward import pick_devices, pick_precision
    from icis.extraction.run import Settings, run_shards
    from icis.extraction.shards import Shards, model_hash

    config = plan.backbone(backbone)
    devices = pick_devices(device)
    settings = Settings(
        config.batch_size, pick_precision(config.precision, devices), config.unreadable
    )
    _add_weights(plan, dataset, backbone, inputs, facts)
    loaded, source = _open(plan.experiment, dataset, backbone)
    facts |= {
        "architecture": loaded.architecture,
        "weights": config.weights,
        "transform": {key: str(value) for key, value in loaded.data.items()},
        "decoder": decoder_identity(),
        "precision": settings.precision,
        "device": ", ".join(sorted({device_name(each) for each in devices})),
    }
    depends = [facts[key] for key in ("transform", "decoder", "precision")]
    depends += [plan.features_fingerprint(dataset, backbone), model_hash(loaded.model)]
    key = canonical_hash([*depends, file_sha256(inputs["index"])])
    folder = layout.partial_features(dataset, backbone) / key[:16]
    shards = Shards(folder, index.frame["image"].to_list(), key, shard)
    opener = partial(_open, plan.experiment, dataset, backbone)
    run_shards(
        shards, opener if len(devices) > 1 else lambda: (loaded, source), settings,
        devices=devices, threads=threads, label=f"{dataset}/{backbone}",
    )  # fmt: skip
    facts |= {k: v for k, v in shards.about(0).items() if k != "key"}
    return shards


def _add_weights(
    plan: Plan, dataset: str, backbone: str, inputs: dict[str, Path], facts: dict[str, Any]
) -> None:
    config = plan.backbone(backbone)
    facts["backbone_selection"] = f"{config.weights}, as it is"
    if config.train is not None:
        trained = layout.backbone(dataset, backbone)
        finished = json.loads((trained / "trained.json").read_text())
        facts["backbone_selection"] = finished["selection"]
        inputs["backbone"] = trained / "model.safetensors"
    elif config.weights.startswith("local-dir:"):
        inputs["backbone"] = expand(config.weights.removeprefix("local-dir:")) / "model.safetensors"


def _weights(plan: Plan, dataset: str, backbone: str) -> dict[str, str]:
    """Return the hashes of the weights, those that training started from included.

    Random ones, and those that timm fetches by itself, have no file to hash.
    """
    from icis.backbones import weights_identity

    config = plan.backbone(backbone)
    found = weights_identity(config)
    if config.train is not None:
        found |= weights_identity(config, layout.backbone(dataset, backbone))
    return {file: digest for file, digest in found.items() if SHA256.fullmatch(digest)}


def _open(
    experiment: Experiment, dataset: str, backbone: str
) -> tuple[LoadedBackbone, ImageSource]:
    """Load the backbone and open the images; also in the process of each device."""
    from icis.backbones import load_backbone

    plan = Plan(experiment)
    config = plan.backbone(backbone)
    trained = layout.backbone(dataset, backbone) if config.train is not None else None
    index, _ = load_index(layout.index(dataset))
    return load_backbone(config, trained), image_source(plan, dataset, index.frame)


def _write(path: Path, rows: pl.DataFrame, blocks: Blocks, metadata: dict[str, Any]) -> None:
    """Write block after block, so that memory does not grow with the number of images."""
    names = rows["image"].to_list()
    columns = rows.select("image", "class", "split").to_arrow()
    columns = columns.cast(pa.schema([(each, pa.string()) for each in columns.column_names]))
    done, writer = 0, None
    with atomic_path(path) as temporary, ExitStack() as stack:
        for block in blocks:
            require_finite(block, f"{path}: features", names[done : done + len(block)])
            part = columns.slice(done, len(block))
            table = part.append_column("vector", vector_column(block))
            if writer is None:
                about = {**metadata, "dim": block.shape[1]}
                schema = with_metadata(table.schema, about)
                writer = stack.enter_context(TableWriter(temporary, schema))
            writer.write(table)
            done += len(block)
