"""Checks that every name in an experiment leads somewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from icis.config import Experiment, GivenHead, Table, Xlsa17Dataset
from icis.errors import IcisError
from icis.published import blocks, no_such_block
from icis.schema import suggest
from icis.slugs import head_slug, variant_slug

Entry = TypeVar("Entry")


def lookup(entries: Mapping[str, Entry], name: str, what: str) -> Entry:
    """Return an entry, or say that there is none of that name."""
    if name not in entries:
        raise IcisError(no_such(what, name, entries))
    return entries[name]


def no_such(what: str, name: str, known: Iterable[str]) -> str:
    """Say that a name leads nowhere, with the nearest that does."""
    return f"there is no {what} {name!r}; {suggest(name, known)}"


def check_references(experiment: Experiment) -> Iterable[str]:
    """Yield every name in a table that leads nowhere, and combinations that cannot be."""
    methods = {
        key: f"{method.method}-{variant_slug(method, ignore=('method',))}"
        for key, method in experiment.methods.items()
    }
    heads = {key: head_slug(key, recipe) for key, recipe in experiment.heads.items()}
    for axis, slugs in (("methods", methods), ("heads", heads)):
        first = {slug: key for key, slug in reversed(slugs.items())}
        for key, slug in slugs.items():
            if first[slug] != key:
                yield f"{axis}.{key}: it is the same configuration as {axis}.{first[slug]}"
    if not experiment.tables:
        yield "tables: there is none, so there is nothing to compute"
    for name, table in experiment.tables.items():
        where = f"tables.{name}"
        for axis in ("datasets", "heads", "methods"):
            known = getattr(experiment, axis)
            for each in getattr(table, axis):
                if each not in known:
                    yield f"{where}.{axis}: {no_such(axis[:-1], each, known)}"
        if table.published is not None and table.published not in blocks():
            yield f"{where}.published: {no_such_block(table.published)}"
        if table.reference is not None and table.reference not in table.methods:
            what = f"method of {where}"
            yield f"{where}.reference: {no_such(what, table.reference, table.methods)}"
        for dataset in table.datasets:
            if dataset in experiment.datasets:
                yield from _dataset_references(experiment, table, where, dataset)
        for head in table.heads:
            if head in experiment.heads:
                yield from _head_references(experiment, table, where, head)


def _head_references(experiment: Experiment, table: Table, where: str, key: str) -> Iterable[str]:
    head = experiment.heads[key]
    if not isinstance(head, GivenHead):
        return
    for descriptor in table.descriptors if head.classes is not None else ():
        if descriptor not in head.descriptors:
            what = f"descriptor of heads.{key}"
            yield f"{where}.descriptors: {no_such(what, descriptor, head.descriptors)}"
    if head.test_seen is not None and head.test_seen not in experiment.datasets:
        what = "data set"
        yield f"heads.{key}.test_seen: {no_such(what, head.test_seen, experiment.datasets)}"
    for backbone in table.backbones if head.test_seen is not None else ():
        trained = experiment.backbones.get(backbone)
        if trained is not None and trained.train is not None:
            yield (
                f"{where}: the backbone {backbone!r} is trained on each data set, so the head "
                f"{key!r} cannot be tested on images of {head.test_seen!r}"
            )
    if head.file is None:
        for backbone in table.backbones:
            if backbone not in experiment.backbones:
                yield (
                    f"heads.{key}: it has no file, so it is the classifier of the backbone, but "
                    f"{backbone!r} in {where} is no entry of backbones; name the head's file"
                )


def _dataset_references(
    experiment: Experiment, table: Table, where: str, dataset: str
) -> Iterable[str]:
    data = experiment.datasets[dataset]
    if getattr(data, "test_only", False):
        yield f"{where}.datasets: {dataset!r} has test images only; name it as a head's test_seen"
        return
    for descriptor in table.descriptors:
        if descriptor not in data.descriptors:
            what = f"descriptor of datasets.{dataset}"
            yield f"{where}.descriptors: {no_such(what, descriptor, data.descriptors)}"
    backbones: Iterable[str] = experiment.backbones
    what = "backbone"
    if isinstance(data, Xlsa17Dataset):
        backbones, what = data.features, f"features file of datasets.{dataset}"
        if data.images is not None:
            backbones, what = {**data.features, **experiment.backbones}, "backbone"
    for backbone in table.backbones:
        if backbone not in backbones:
            yield f"{where}.backbones: {no_such(what, backbone, backbones)}"
