"""Read the class descriptors of a data set."""

from __future__ import annotations

import hashlib

import pyarrow as pa

from icis import layout
from icis.artifacts import file_sha256, provenance, vector_column, write_table
from icis.config import Xlsa17Dataset
from icis.datasets.descriptors import Descriptors, read_descriptors
from icis.datasets.images import read_beside
from icis.datasets.index import load_index
from icis.datasets.paths import expand
from icis.errors import IcisError
from icis.plan import Plan
from icis.stages.common import images_of


def run(plan: Plan, dataset: str, descriptor: str) -> None:
    """Write the descriptors: a row a class, in the order of the index's classes."""
    config = plan.dataset(dataset)
    if descriptor not in config.descriptors:
        known = ", ".join(config.descriptors)
        raise IcisError(f"datasets.{dataset} has no descriptor {descriptor!r}, only: {known}")
    source = config.descriptors[descriptor]
    path = expand(source.file)
    if path.is_file() or isinstance(config, Xlsa17Dataset):
        if not path.is_file():
            raise IcisError(f"datasets.{dataset}.descriptors.{descriptor}: {path} does not exist")
        data = path.read_bytes()
    else:
        images, files = images_of(plan, dataset)
        data = read_beside(source.file, files, expand(images.root))
    sources = {source.file: hashlib.sha256(data).hexdigest()}
    if source.classes is not None:
        sources[source.classes] = file_sha256(expand(source.classes))
    classes = load_index(layout.index(dataset))[0].classes
    found = read_descriptors(source, path, data, classes)
    metadata = provenance(
        "descriptors",
        fingerprint=plan.descriptor_fingerprint(dataset, descriptor),
        inputs={"index": layout.index(dataset)},
        sources=sources,
        dataset=dataset,
        descriptor=descriptor,
        dim=found.vectors.shape[1],
        classes=classes.as_metadata(),
    )
    write_table(layout.descriptors(dataset, descriptor), descriptor_table(found), metadata)


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
