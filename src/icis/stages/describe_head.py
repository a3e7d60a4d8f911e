"""Read the descriptors of a given head's classes."""

from __future__ import annotations

import hashlib

from icis import layout
from icis.artifacts import file_sha256, provenance, write_table
from icis.datasets.descriptors import read_descriptors
from icis.datasets.index import Classes
from icis.datasets.paths import expand
from icis.given_heads import head_classes
from icis.plan import Plan
from icis.stages.describe import descriptor_table


def run(plan: Plan, head: str, descriptor: str) -> None:
    """Write the descriptors of a given head's classes, in the order of its rows."""
    recipe = plan.given_head(head)
    source = recipe.descriptors[descriptor]
    names, sources = head_classes(recipe)
    path = expand(source.file)
    data = path.read_bytes()
    sources[source.file] = hashlib.sha256(data).hexdigest()
    if source.classes is not None:
        sources[source.classes] = file_sha256(expand(source.classes))
    found = read_descriptors(source, path, data, Classes(names, (True,) * len(names)))
    metadata = provenance(
        "descriptors",
        fingerprint=plan.head_descriptor_fingerprint(head, descriptor),
        inputs={},
        sources=sources,
        head=head,
        descriptor=descriptor,
        dim=found.vectors.shape[1],
        classes=found.classes.as_metadata(),
    )
    write_table(layout.head_descriptors(head, descriptor), descriptor_table(found), metadata)
