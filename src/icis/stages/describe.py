"""Read or make the class descriptors of a data set."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from icis import layout
from icis.artifacts import provenance, vector_column, write_table
from icis.config import Xlsa17Dataset
from icis.datasets.descriptors import Descriptors
from icis.datasets.images import read_beside
from icis.datasets.index import load_index
from icis.datasets.paths import expand
from icis.describing.sources import read_source
from icis.errors import IcisError
from icis.plan import Plan
from icis.seals import seal
from icis.stages.common import image_source, images_config


def run(plan: Plan, dataset: str, descriptor: str, *, device: str = "cpu") -> None:
    """Write the descriptors: a row a class, in the order of the index's classes."""
    config = plan.dataset(dataset)
    if descriptor not in config.descriptors:
        known = ", ".join(config.descriptors)
        raise IcisError(f"datasets.{dataset} has no descriptor {descriptor!r}, only: {known}")

    def read(name: str) -> tuple[Path, bytes]:
        path = expand(name)
        if path.is_file():
            return path, path.read_bytes()
        if isinstance(config, Xlsa17Dataset):
            raise IcisError(f"datasets.{dataset}.descriptors.{descriptor}: {path} does not exist")
        images, files = images_config(plan, dataset), image_source(plan, dataset)
        return path, read_beside(name, files, expand(images.root))

    found, sources, facts = read_source(
        config.descriptors[descriptor],
        load_index(layout.index(dataset))[0].classes,
        read=read,
        device=device,
    )
    metadata = provenance(
        "descriptors",
        fingerprint=plan.descriptor_fingerprint(dataset, descriptor),
        inputs={"index": layout.index(dataset)},
        sources=sources,
        dataset=dataset,
        descriptor=descriptor,
        dim=found.vectors.shape[1],
        classes=found.classes.as_metadata(),
        **facts,
    )
    write_table(layout.descriptors(dataset, descriptor), descriptor_table(found), metadata)
    seal(layout.descriptors(dataset, descriptor))


def descriptor_table(found: Descriptors) -> pa.Table:
    """Return descriptors as rows: id, class, seen, vector."""
    names = found.classes.names
    return pa.table(
        {
            "id": pa.array(range(len(names)), pa.int32()),
            "class": pa.array(names),
            "seen": pa.array(found.classes.is_seen),
            "vector": vector_column(found.vectors),
        }
    )
