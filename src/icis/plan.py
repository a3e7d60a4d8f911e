"""From an experiment to its cells, and to what Snakemake asks for each file: inputs, fingerprints."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

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
from icis.datasets.paths import expand
from icis.datasets.xlsa17 import split_files
from icis.errors import ConfigError, IcisError
from icis.methods import Method
from icis.schema import Strict, canonical_hash

LONGEST_VARIANT = 100


def variant_slug(settings: Strict, *, ignore: Sequence[str] = ()) -> str:
    """Return an ASCII slug of the settings that differ from the defaults."""
    found = {key: value for key, value in settings.differences().items() if key not in ignore}
    parts = [f"{key.rsplit('.', 1)[-1]}-{value}" for key, value in found.items()]
    slug = "_".join(re.sub(r"[^a-z0-9.-]+", "-", part.lower()) for part in parts)
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
                "dataset": [dataset, _without_descriptors(data)],
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
        return self.fingerprint("index", _without_descriptors(data))

    def descriptor_fingerprint(self, dataset: str, descriptor: str) -> str:
        """Return the fingerprint of a descriptor table."""
        source = _lookup(self.dataset(dataset).descriptors, descriptor, "descriptor")
        return self.fingerprint("describe", source.identity())

    def draw_fingerprint(self, dataset: str) -> str:
        """Return the fingerprint of a drawn data set."""
        return self.fingerprint("draw", _without_descriptors(self.dataset(dataset)))

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
        if isinstance(data, Xlsa17Dataset):
            return split_files(data)
        root = expand(data.root)
        beside = [expand(name) for name in (data.splits, data.class_list) if name]
        return [root, *(path for path in beside if path.is_file())]

    def descriptor_file(self, dataset: str, descriptor: str) -> Path:
        """Return the file that a descriptor is read from; for one inside a tar, the tar."""
        data = self.dataset(dataset)
        source = _lookup(data.descriptors, descriptor, "descriptor")
        path = expand(source.file)
        if path.is_absolute() or path.exists():
            return path
        if isinstance(data, DrawnDataset):
            return layout.raw(dataset) / path
        if isinstance(data, ImagesDataset):
            root = expand(data.root)
            return root / path if root.is_dir() else root
        return path

    def missing_files(self) -> list[str]:
        """Return a line for every file that the experiment reads and that is not there."""
        found: dict[str, None] = {}

        def need(path: Path, where: str) -> None:
            if not path.exists():
                found[f"{where}: {path} does not exist"] = None

        for cell in self.cells.values():
            where = f"datasets.{cell.dataset}"
            data = self.dataset(cell.dataset)
            if not isinstance(data, DrawnDataset):
                for path in self.source_files(cell.dataset):
                    need(path, where)
                described = f"{where}.descriptors.{cell.descriptor}"
                need(self.descriptor_file(cell.dataset, cell.descriptor), described)
            if isinstance(data, Xlsa17Dataset):
                name = data.features[cell.backbone]
                need(expand(name), f"{where}.features.{cell.backbone}")
            elif (weights := self.backbone(cell.backbone).weights).startswith("local-dir:"):
                folder = expand(weights.removeprefix("local-dir:"))
                need(folder / "config.json", f"backbones.{cell.backbone}.weights")
        return list(found)


def _without_descriptors(data: AnyDataset) -> dict[str, Any]:
    return {key: value for key, value in data.identity().items() if key != "descriptors"}


def _lookup(entries: dict[str, Any], name: str, what: str) -> Any:
    if name not in entries:
        raise IcisError(_no_such(what, name, entries))
    return entries[name]


def _no_such(what: str, name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names) or 'none'}"
    return f"there is no {what} {name!r}; {hint}"


def _references(experiment: Experiment) -> Iterable[str]:
    """Yield every name in a table that leads nowhere, and combinations that cannot be."""
    slugs: dict[str, str] = {}
    for key, method in experiment.methods.items():
        slug = f"{method.method}-{variant_slug(method, ignore=('method',))}"
        if slug in slugs:
            yield f"methods.{key}: it is the same configuration as methods.{slugs[slug]}"
        slugs.setdefault(slug, key)
    if not experiment.tables:
        yield "tables: there is none, so there is nothing to compute"
    for name, table in experiment.tables.items():
        where = f"tables.{name}"
        sources = {
            "datasets": experiment.datasets, "heads": experiment.heads,
            "methods": experiment.methods,
        }  # fmt: skip
        broken = False
        for axis, known in sources.items():
            for each in getattr(table, axis):
                if each not in known:
                    broken = True
                    yield f"{where}.{axis}: {_no_such(axis[:-1], each, known)}"
        for dataset in table.datasets if not broken else ():
            data = experiment.datasets[dataset]
            for descriptor in table.descriptors:
                if descriptor not in data.descriptors:
                    what = f"descriptor of datasets.{dataset}"
                    yield f"{where}.descriptors: {_no_such(what, descriptor, data.descriptors)}"
            given = isinstance(data, Xlsa17Dataset)
            backbones: Iterable[str] = data.features if given else experiment.backbones  # type: ignore[union-attr]
            for backbone in table.backbones:
                if backbone not in backbones:
                    what = f"features file of datasets.{dataset}" if given else "backbone"
                    yield f"{where}.backbones: {_no_such(what, backbone, backbones)}"
