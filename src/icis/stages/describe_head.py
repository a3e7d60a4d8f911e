"""Read or make the descriptors of a given head's classes."""

from __future__ import annotations

from icis import layout
from icis.artifacts import provenance, write_table
from icis.datasets.index import Classes
from icis.describing.sources import read_source
from icis.given_heads import head_classes
from icis.plan import Plan
from icis.seals import seal
from icis.stages.describe import descriptor_table


def run(plan: Plan, head: str, descriptor: str, *, device: str = "cpu") -> None:
    """Write the descriptors of a given head's classes, in the order of its rows."""
    recipe = plan.given_head(head)
    names, sources = head_classes(recipe)
    classes = Classes(names, (True,) * len(names))
    found, read, facts = read_source(recipe.descriptors[descriptor], classes, device=device)
    metadata = provenance(
        "descriptors",
        fingerprint=plan.head_descriptor_fingerprint(head, descriptor),
        inputs={},
        sources=sources | read,
        head=head,
        descriptor=descriptor,
        dim=found.vectors.shape[1],
        classes=found.classes.as_metadata(),
        **facts,
    )
    write_table(layout.head_descriptors(head, descriptor), descriptor_table(found), metadata)
    seal(layout.head_descriptors(head, descriptor))
