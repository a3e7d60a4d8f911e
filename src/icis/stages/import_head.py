"""Take a head that exists already as the seen head of a data set."""

from __future__ import annotations

from typing import Any

import torch

from icis import layout
from icis.artifacts import provenance, read_metadata, write_table
from icis.backbones import own_classifier
from icis.datasets.index import Classes
from icis.given_heads import head_classes, read_arrays, to_head, without
from icis.heads import check_dim
from icis.plan import Plan
from icis.seals import seal
from icis.seen_heads import ANY_SEED, head_table


def run(plan: Plan, dataset: str, backbone: str, head: str) -> None:
    """Write a given head without the rows of the data set's unseen classes, for every seed."""
    recipe = plan.given_head(head)
    path = layout.features(dataset, backbone)
    about = read_metadata(path)
    classes = Classes.from_metadata(about)
    names, sources = classes.seen, dict[str, str]()
    if recipe.classes is not None:
        names, sources = head_classes(recipe)
    if recipe.file is not None:
        weight, bias, hashes = read_arrays(recipe)
        sources |= hashes
    else:
        weight, bias = _classifier(plan, dataset, backbone)
    given = to_head(weight, bias, names, recipe.file or f"the classifier of {backbone}")
    kept = without(given, classes.unseen)
    check_dim(torch.empty(0, about["dim"]), kept.dim)
    left_out = len(given.classes) - len(kept.classes)
    selection = "given, not trained here"
    if left_out:
        selection += f", {left_out} rows of unseen classes left out"
    metadata = provenance(
        "seen heads",
        fingerprint=plan.head_fingerprint(dataset, head),
        inputs={"features": path},
        sources={**about["sources"], **sources},
        classes=about["classes"],
        split_version=about["split_version"],
        backbone_selection=about["backbone_selection"],
        device="none",
        head=head,
        training={ANY_SEED: {"selection": selection}},
    )
    write_table(layout.seen_heads(dataset, backbone, head), head_table(kept, None), metadata)
    seal(layout.seen_heads(dataset, backbone, head))


def _classifier(plan: Plan, dataset: str, backbone: str) -> tuple[Any, Any]:
    config = plan.backbone(backbone)
    folder = layout.backbone(dataset, backbone) if config.train is not None else None
    return own_classifier(config, folder)
