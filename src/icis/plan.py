"""From an experiment to its cells, and to what Snakemake asks of a file: inputs, fingerprints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

from icis import layout
from icis.codeprint import code_hash
from icis.config import (
    AnyDataset,
    Backbone,
    DrawnDataset,
    Experiment,
    ImagesDataset,
    SeenHead,
    Table,
    Xlsa17Dataset,
)
from icis.datasets.files import GivenFile, descriptor_files, index_files, weight_files
from icis.errors import ConfigError, IcisError
from icis.methods import Method
from icis.schema import Strict, canonical_hash, suggest

LONGEST_VARIANT = 100
Entry = TypeVar("Entry")


def variant_slug(settings: Strict, *, ignore: Sequence[str] = ()) -> str:
    """Return an ASCII slug of the settings that differ from the defaults."""
    found = {key: value for key, value in settings.differences().items() if key not in ignore}
    parts = [f"{key.rsplit('.', 1)[-1]}-{value}" for key, value in found.items()]
    slug = "_".join(re.sub(r"[^a-z0-9.-]+", "-", part.lower().replace("e+", "e")) for part in parts)
    if len(slug) > LONGEST_VARIANT:
        slug = f"{slug[:LONGEST_VARIANT]}-{canonical_hash(found)[:8]}"
    return slug or "default"


def head_slug(recipe: SeenHead) -> str:
    """Name a seen head by recipe and selection, for paths and the column ``head``."""
    variant = variant_slug(recipe, ignore=("selection",))
    return f"linear-{recipe.selection}" + ("" if variant == "default" else f"_{variant}")


@dataclass(frozen=True)
class Cell:
    """One combination of data set, backbone, seen head, descriptor and method.

    ``method`` and ``head`` are resolved: the data set's batch size is filled in.
    """

    dataset: str
    backbone: str
    head: str
    descriptor: str
    method: Method
    variant: str
    recipe: SeenHead
    identity: dict[str, Any] = field(hash=False, compare=False)

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """Return the names that make up the cell's path."""
        return (self.dataset, self.backbone, self.head, self.descriptor, self.stem)

    @property
    def stem(self) -> str:
        """Return ``<method>-<variant>``."""
        return f"{self.method.method}-{self.variant}"

    @cached_property
    def id(self) -> str:
        """Return the hash of the canonical configuration, display names left out."""
        return canonical_hash(self.identity)


class Plan:
    """An experiment with its cells; the stages and the Snakefile read everything from here."""

    def __init__(self, experiment: Experiment, *, source: str = "the experiment") -> None:
        self.experiment = experiment
        problems = list(_references(experiment))
        if problems:
            raise ConfigError(source, problems)
        self.source = source
        self.cells: dict[tuple[str, str, str, str, str], Cell] = {}
        self.seeds: dict[tuple[str, str, str, str, str], tuple[int, ...]] = {}
        self.table_cells: dict[str, list[Cell]] = {}
        for name, table in experiment.tables.items():
            self.table_cells[name] = [self._add(cell, table) for cell in self._product(table)]

    def _product(self, table: Table) -> Iterable[Cell]:
        axes = (table.datasets, table.backbones, table.heads, table.descriptors, table.methods)
        for dataset, backbone, head, descriptor, method in product(*axes):
            data = self.experiment.datasets[dataset]
            recipe = self.experiment.heads[head]
            settings = self.experiment.methods[method]
            variant = variant_slug(settings, ignore=("method",))
            recipe_slug = head_slug(recipe)
            resolved = settings.resolve(batch_size=data.batch_size)
            head_resolved = recipe.resolve(batch_size=data.batch_size)
            identity = {
                "dataset": [dataset, _images_identity(data)],
                "backbone": [backbone, self._backbone_identity(dataset, backbone)],
                "head": head_resolved.identity(),
                "descriptor": [descriptor, data.descriptors[descriptor].identity()],
                "n_seen": "all",
                "method": resolved.identity(),
            }
            yield Cell(
                dataset, backbone, recipe_slug, descriptor, resolved, variant, head_resolved,
                identity,
            )  # fmt: skip

    def _add(self, cell: Cell, table: Table) -> Cell:
        seeds = self.table_seeds(table)
        known = self.seeds.get(cell.key, ())
        self.seeds[cell.key] = tuple(sorted({*known, *seeds}))
        return self.cells.setdefault(cell.key, cell)

    def table_seeds(self, table: Table) -> list[int]:
        """Return the seeds of a table."""
        seeds = self.experiment.seeds if table.seeds is None else table.seeds
        return list(range(seeds)) if isinstance(seeds, int) else seeds

    def _backbone_identity(self, dataset: str, backbone: str) -> Any:
        data = self.experiment.datasets[dataset]
        if isinstance(data, Xlsa17Dataset):
            return {"features": data.features[backbone]}
        return self.experiment.backbones[backbone].identity()

    def cell(self, dataset: str, backbone: str, head: str, descriptor: str, stem: str) -> Cell:
        """Return a cell by the names in its path."""
        key = (dataset, backbone, head, descriptor, stem)
        if key not in self.cells:
            raise IcisError(_no_such("cell", "/".join(key), ["/".join(k) for k in self.cells]))
        return self.cells[key]

    def dataset(self, name: str) -> AnyDataset:
        """Return a data set's configuration."""
        return _lookup(self.experiment.datasets, name, "data set")

    def backbone(self, name: str) -> Backbone:
        """Return a backbone's configuration."""
        return _lookup(self.experiment.backbones, name, "backbone")

    def head(self, dataset: str, slug: str) -> SeenHead:
        """Return a seen head's recipe by its slug, with the data set's batch size filled in."""
        for recipe in self.experiment.heads.values():
            if head_slug(recipe) == slug:
                return recipe.resolve(batch_size=self.dataset(dataset).batch_size)
        raise IcisError(_no_such("head", slug, map(head_slug, self.experiment.heads.values())))

    def head_seeds(self, dataset: str, backbone: str, head: str) -> list[int]:
        """Return the seeds that the cells on a seen head need."""
        chosen = {
            seed for key, seeds in self.seeds.items() if key[:3] == (dataset, backbone, head)
            for seed in seeds
        }  # fmt: skip
        return sorted(chosen)

    # what makes a file stale: the settings that it depends on, and the code

    def fingerprint(self, stage: str, settings: Any, *modules: str) -> str:
        """Return a hash of a stage's settings and of the code that it runs."""
        code = code_hash(f"icis.stages.{stage}", *modules)
        return canonical_hash({"stage": stage, "settings": settings, "code": code})

    def index_fingerprint(self, dataset: str) -> str:
        """Return the fingerprint of an index."""
        data = self.dataset(dataset)
        settings = _images_identity(data)
        if isinstance(data, Xlsa17Dataset):
            settings["labels"] = next(iter(data.features.values()))
        return self.fingerprint("index", settings)

    def descriptor_fingerprint(self, dataset: str, descriptor: str) -> str:
        """Return the fingerprint of a descriptor table."""
        source = _lookup(self.dataset(dataset).descriptors, descriptor, "descriptor")
        return self.fingerprint("describe", source.identity())

    def draw_fingerprint(self, dataset: str) -> str:
        """Return the fingerprint of a drawn data set."""
        return self.fingerprint("draw", _images_identity(self.dataset(dataset)))

    def training_fingerprint(self, backbone: str) -> str:
        """Return the fingerprint of a trained backbone."""
        config = self.backbone(backbone)
        keys = ("model", "weights", "transform", "train")
        return self.fingerprint("finetune", {key: config.identity()[key] for key in keys})

    def features_fingerprint(self, dataset: str, backbone: str) -> str:
        """Return the fingerprint of a features file."""
        return self.fingerprint("extract", self._backbone_identity(dataset, backbone))

    def head_fingerprint(self, dataset: str, head: str) -> str:
        """Return the fingerprint of seen heads, whatever their seeds."""
        return self.fingerprint("train_head", self.head(dataset, head).identity())

    def injection_fingerprint(self, cell: Cell) -> str:
        """Return the fingerprint of injected heads, whatever their seeds."""
        module = type(cell.method).__module__
        return self.fingerprint("inject", cell.method.identity(), module)

    def evaluation_fingerprint(self, cell: Cell) -> str:
        """Return the fingerprint of a cell's metrics."""
        return self.fingerprint("evaluate", {"id": cell.id, "name": cell.method.name})

    # files that exist before the first stage

    def source_files(self, dataset: str) -> list[Path]:
        """Return the files that an index is read from."""
        data = self.dataset(dataset)
        if isinstance(data, DrawnDataset):
            return [layout.raw(dataset) / "splits.csv"]
        return list(dict.fromkeys(file.path() for file in index_files(dataset, data)))

    def descriptor_file(self, dataset: str, descriptor: str) -> Path:
        """Return the file that a descriptor is read from; for one inside a tar, the tar."""
        data = self.dataset(dataset)
        source = _lookup(data.descriptors, descriptor, "descriptor")
        root = data.root if isinstance(data, ImagesDataset) else None
        path = GivenFile("file", source.file, root).path()
        if isinstance(data, DrawnDataset) and not path.exists():
            return layout.raw(dataset) / path
        return path

    def feature_files(self, dataset: str, backbone: str) -> list[Path]:
        """Return the files that features are taken from, besides images."""
        return [file.path() for file in self._feature_files(dataset, backbone)]

    def _feature_files(self, dataset: str, backbone: str) -> list[GivenFile]:
        data = self.dataset(dataset)
        if isinstance(data, Xlsa17Dataset):
            key = f"datasets.{dataset}.features.{backbone}"
            return [GivenFile(key, _lookup(data.features, backbone, "features file"))]
        return list(weight_files(backbone, self.backbone(backbone)))

    def missing_files(self) -> list[str]:
        """Return a line for every file that is still to be read and that is not there.

        What was made into an artifact already may be gone.
        """
        needed: dict[GivenFile, None] = {}
        for dataset, backbone, _, descriptor, _ in self.cells:
            data = self.dataset(dataset)
            if not layout.index(dataset).exists():
                needed |= dict.fromkeys(index_files(dataset, data))
            if not layout.descriptors(dataset, descriptor).exists():
                needed |= dict.fromkeys(descriptor_files(dataset, data, descriptor))
            if not layout.features(dataset, backbone).exists():
                needed |= dict.fromkeys(self._feature_files(dataset, backbone))
        return [problem for file in needed if (problem := file.problem()) is not None]


def _images_identity(data: AnyDataset) -> dict[str, Any]:
    """Return what images, classes and splits depend on."""
    others = {"descriptors", "batch_size", "features"}
    return {key: value for key, value in data.identity().items() if key not in others}


def _lookup(entries: Mapping[str, Entry], name: str, what: str) -> Entry:
    if name not in entries:
        raise IcisError(_no_such(what, name, entries))
    return entries[name]


def _no_such(what: str, name: str, known: Iterable[str]) -> str:
    return f"there is no {what} {name!r}; {suggest(name, known)}"


def _references(experiment: Experiment) -> Iterable[str]:
    """Yield every name in a table that leads nowhere, and combinations that cannot be."""
    methods = {
        key: f"{method.method}-{variant_slug(method, ignore=('method',))}"
        for key, method in experiment.methods.items()
    }
    heads = {key: head_slug(recipe) for key, recipe in experiment.heads.items()}
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
                    yield f"{where}.{axis}: {_no_such(axis[:-1], each, known)}"
        for dataset in table.datasets:
            if dataset in experiment.datasets:
                yield from _dataset_references(experiment, table, where, dataset)


def _dataset_references(
    experiment: Experiment, table: Table, where: str, dataset: str
) -> Iterable[str]:
    data = experiment.datasets[dataset]
    for descriptor in table.descriptors:
        if descriptor not in data.descriptors:
            what = f"descriptor of datasets.{dataset}"
            yield f"{where}.descriptors: {_no_such(what, descriptor, data.descriptors)}"
    backbones: Iterable[str] = experiment.backbones
    what = "backbone"
    if isinstance(data, Xlsa17Dataset):
        backbones, what = data.features, f"features file of datasets.{dataset}"
    for backbone in table.backbones:
        if backbone not in backbones:
            yield f"{where}.backbones: {_no_such(what, backbone, backbones)}"
