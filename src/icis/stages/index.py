"""Index the images of a data set."""

from __future__ import annotations

from icis import layout
from icis.artifacts import provenance, write_table
from icis.config import Xlsa17Dataset
from icis.datasets.images import read_images
from icis.datasets.xlsa17 import read_xlsa17
from icis.plan import Plan
from icis.stages.common import images_of


def run(plan: Plan, dataset: str) -> None:
    """Write the index: a row an image, the classes in the metadata."""
    config = plan.dataset(dataset)
    if isinstance(config, Xlsa17Dataset):
        index, sources = read_xlsa17(config)
    else:
        index, sources = read_images(images_of(plan, dataset)[0])
    metadata = provenance(
        "index",
        fingerprint=plan.index_fingerprint(dataset),
        inputs={},
        sources=sources,
        dataset=dataset,
        split_version=config.split_version,
        classes=index.classes.as_metadata(),
    )
    write_table(layout.index(dataset), index.frame, metadata)
