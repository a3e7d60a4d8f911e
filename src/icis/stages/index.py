"""Index the images of a data set."""

from __future__ import annotations

from typing import Any

from icis import layout
from icis.artifacts import provenance, write_table
from icis.config import ImageNetDataset, Xlsa17Dataset
from icis.datasets.imagenet import read_imagenet
from icis.datasets.images import read_images
from icis.datasets.xlsa17 import read_xlsa17
from icis.plan import Plan
from icis.seals import seal
from icis.stages.common import images_config


def run(plan: Plan, dataset: str) -> None:
    """Write the index: a row an image, the classes in the metadata."""
    config = plan.dataset(dataset)
    facts: dict[str, Any] = {"split_version": config.split_version}
    if isinstance(config, Xlsa17Dataset):
        index, sources, facts = read_xlsa17(config)
    elif isinstance(config, ImageNetDataset):
        index, sources = read_imagenet(config)
    else:
        index, sources = read_images(images_config(plan, dataset))
    metadata = provenance(
        "index",
        fingerprint=plan.index_fingerprint(dataset),
        inputs={},
        sources=sources,
        dataset=dataset,
        classes=index.classes.as_metadata(),
        **facts,
    )
    write_table(layout.index(dataset), index.frame, metadata)
    seal(layout.index(dataset))
