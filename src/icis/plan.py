"""From an experiment to its cells, and to what Snakemake asks of a file: inputs, fingerprints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import Any

from icis import layout
from icis.codeprint import code_hash
from icis.config import (
    NEED_HELD_OUT,
    AnyDataset,
    AnyHead,
    Backbone,
    Experiment,
    GivenHead,
    Table,
    Xlsa17Dataset,
)
from icis.datasets.files import GivenFile
from icis.errors import ConfigError, IcisError
from icis.experiment_files import ExperimentFiles
from icis.fetching.benchmarks import catalogue
from icis.methods import Method
from icis.references import check_references, lookup, no_such
from icis.schema import canonical_hash
from icis.slugs import head_slug, variant_slug


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
    recipe: AnyHead
    identity: dict[str, Any] = field(hash=False, compare=False)
    n_seen: int | None = None
    """How many seen classes the method learns from; None means all."""
    method_key: str = ""
    """The method's key in the experiment file."""

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """Return the names that make up the cell's path."""
        return (self.dataset, self.backbone, self.head, self.descriptor, self.stem)

    @property
    def stem(self) -> str:
        """Return ``<method>-<variant>``, and how many seen classes it learns from if not all."""
        few = "" if self.n_seen is None else f"@{self.n_seen}-seen"
        return f"{self.method.method}-{self.variant}{few}"

    @property
    def group(self) -> tuple[str, str, str, str, str]:
        """Return what the cell shares with all methods of its column group in a table."""
        return (*self.key[:4], str(self.n_seen or "all"))

    @cached_property
    def id(self) -> str:
        """Return the hash of the canonical configuration, display names left out."""
        return canonical_hash(self.identity)


class Plan:
    """An experiment with its cells; the stages and the Snakefile read everything from here."""

    def __init__(self, experiment: Experiment, *, source: str = "the experiment") -> None:
        self.experiment = experiment
        problems = list(check_references(experiment))
        if problems:
            raise ConfigError(source, problems)
        self.source = source
        self.heads = {head_slug(key, each): each for key, each in experiment.heads.items()}
        self.left_out: dict[tuple[str, str, str, str, str], str] = {}
        """Cells that cannot be computed because an optional file is absent, and which."""
        self.files = ExperimentFiles(experiment, self.heads)
        self._with_held_out = set[tuple[str, str, str, str, str]]()
        self._head_seeds: dict[tuple[str, str, str], set[int]] = {}
        self.cells: dict[tuple[str, str, str, str, str], Cell] = {}
        self.seeds: dict[tuple[str, str, str, str, str], tuple[int, ...]] = {}
        self.table_cells: dict[str, list[Cell]] = {}
        for name, table in experiment.tables.items():
            self.table_cells[name] = [self._add(cell, table) for cell in self._product(table)]

    def _product(self, table: Table) -> Iterator[Cell]:
        methods = {key: self._method(key, table) for key in table.methods}
        axes = (table.datasets, table.backbones, table.heads, table.descriptors)
        for dataset, backbone, head, descriptor in product(*axes):
            data, recipe = self.experiment.datasets[dataset], self.experiment.heads[head]
            head_resolved = recipe.resolve(batch_size=data.batch_size)
            recipe_slug = head_slug(head, recipe)
            shared = {
                "dataset": [dataset, _images_identity(data)],
                "backbone": [backbone, self._backbone_identity(dataset, backbone)],
                "head": _head_identity(head_resolved, descriptor),
                "descriptor": [descriptor, data.descriptors[descriptor].identity()],
            }
            for n_seen, (method, (settings, variant)) in product(table.n_seen, methods.items()):
                resolved = settings.resolve(batch_size=data.batch_size)
                identity = {**shared, "n_seen": n_seen, "method": resolved.identity()}
                yield Cell(
                    dataset, backbone, recipe_slug, descriptor, resolved, variant, head_resolved,
                    identity, None if n_seen == "all" else n_seen, method,
                )  # fmt: skip

    def _method(self, key: str, table: Table) -> tuple[Method, str]:
        """Return a method's settings in a table, and their slug."""
        settings = self.experiment.methods[key]
        if table.rescale is not None and settings.linear:
            settings = settings.model_copy(update={"rescale": table.rescale})
        return settings, variant_slug(settings, ignore=("method",))

    def _add(self, cell: Cell, table: Table) -> Cell:
        absent = next(self._absent_options(cell), None)
        if absent is not None:
            self.left_out[cell.key] = absent
            return cell
        seeds = self.table_seeds(table)
        known = self.seeds.get(cell.key, ())
        self.seeds[cell.key] = tuple(sorted({*known, *seeds}))
        self.cells.setdefault(cell.key, cell)
        self._head_seeds.setdefault(cell.key[:3], set()).update(seeds)
        if NEED_HELD_OUT & {*table.metrics}:
            self._with_held_out.add(cell.key)
        return cell

    def _absent_options(self, cell: Cell) -> Iterator[str]:
        """Yield what is wrong with files of a cell that the experiment calls optional."""
        data = self.dataset(cell.dataset)
        files: list[GivenFile] = []
        if data.optional:
            files += self.files.unread_dataset(cell.dataset, cell.backbone)
        if data.descriptors[cell.descriptor].optional:
            files += self.files.unread_descriptor(cell.dataset, cell.descriptor)
        recipe = cell.recipe
        if isinstance(recipe, GivenHead) and recipe.optional:
            files += self.files.head(cell.head, cell.backbone)
        own = getattr(recipe, "descriptors", {}).get(cell.descriptor)
        if own is not None and own.optional:
            files += self.files.unread_head_descriptor(cell.head, cell.descriptor)
        for file in files:
            problem = file.problem()
            if problem is not None:
                yield problem

    def test_dataset(self, cell: Cell) -> str | None:
        """Return the data set whose test_seen images measure S, None where there is none."""
        if not isinstance(cell.recipe, GivenHead) or cell.recipe.classes is None:
            return cell.dataset
        name = cell.recipe.test_seen
        if name is None or not self.dataset(name).optional:
            return name
        files = self.files.unread_dataset(name, cell.backbone)
        return None if any(file.problem() for file in files) else name

    @cached_property
    def _trainings(self) -> tuple[Counter[Any], set[Any]]:
        """Return how many cells begin with a training, and which ones some cell refines."""
        counts: Counter[Any] = Counter()
        refined = set()
        for cell in self.cells.values():
            key = (cell.group, canonical_hash(_training(cell).identity()))
            counts[key] += 1
            if cell.method.base_method is not None:
                refined.add(key)
        return counts, refined

    def shared_training(self, cell: Cell) -> Method | None:
        """Return the method that a cell begins with where others begin with it, too.

        That is one which some cell refines: what this one or the others train serves all of them.
        """
        counts, refined = self._trainings
        method = _training(cell)
        key = (cell.group, canonical_hash(method.identity()))
        return method if key in refined and counts[key] > 1 else None

    def table_seeds(self, table: Table) -> list[int]:
        """Return the seeds of a table."""
        seeds = self.experiment.seeds if table.seeds is None else table.seeds
        return list(range(seeds)) if isinstance(seeds, int) else seeds

    def _backbone_identity(self, dataset: str, backbone: str) -> Any:
        data = self.experiment.datasets[dataset]
        if isinstance(data, Xlsa17Dataset) and backbone in data.features:
            return {"features": data.features[backbone]}
        return self.backbone(backbone).identity()

    def cell(self, dataset: str, backbone: str, head: str, descriptor: str, stem: str) -> Cell:
        """Return a cell by the names in its path."""
        key = (dataset, backbone, head, descriptor, stem)
        if key not in self.cells:
            raise IcisError(no_such("cell", "/".join(key), ["/".join(k) for k in self.cells]))
        return self.cells[key]

    def table(self, name: str) -> Table:
        """Return a table's configuration."""
        return lookup(self.experiment.tables, name, "table")

    def dataset(self, name: str) -> AnyDataset:
        """Return a data set's configuration."""
        return lookup(self.experiment.datasets, name, "data set")

    def backbone(self, name: str) -> Backbone:
        """Return a backbone's configuration."""
        return lookup(self.experiment.backbones, name, "backbone")

    def head(self, dataset: str, slug: str) -> AnyHead:
        """Return a seen head's recipe by its slug, with the data set's batch size filled in."""
        found = lookup(self.heads, slug, "head")
        return found.resolve(batch_size=self.dataset(dataset).batch_size)

    def is_trained(self, dataset: str, backbone: str) -> bool:
        """Say whether a backbone is trained on the data set before features are extracted."""
        data = self.dataset(dataset)
        if isinstance(data, Xlsa17Dataset) and backbone in data.features:
            return False
        return self.backbone(backbone).train is not None

    def given_head(self, slug: str) -> GivenHead:
        """Return a given head by its slug."""
        found = lookup(self.heads, slug, "head")
        if not isinstance(found, GivenHead):
            raise IcisError(f"the head {slug!r} is trained here, not given")
        return found

    def head_seeds(self, dataset: str, backbone: str, head: str) -> list[int]:
        """Return the seeds that the cells on a seen head need."""
        return sorted(self._head_seeds.get((dataset, backbone, head), ()))

    # what makes a file stale: the settings that it depends on, and the code

    def fingerprint(self, stage: str, settings: Any, *modules: str) -> str:
        """Return a hash of a stage's settings and of the code that it runs."""
        code = code_hash(f"icis.stages.{stage}", *modules)
        return canonical_hash({"stage": stage, "settings": settings, "code": code})

    def fetch_fingerprint(self, source: str) -> str:
        """Return the fingerprint of a fetched source: its files and their published checksums."""
        entry = lookup(catalogue().sources, source, "source")
        return canonical_hash([file.model_dump() for file in entry.files])

    def index_fingerprint(self, dataset: str) -> str:
        """Return the fingerprint of an index."""
        data = self.dataset(dataset)
        settings = _images_identity(data)
        if isinstance(data, Xlsa17Dataset):
            settings["labels"] = data.labels_file
        return self.fingerprint("index", settings)

    def descriptor_fingerprint(self, dataset: str, descriptor: str) -> str:
        """Return the fingerprint of a descriptor table."""
        source = lookup(self.dataset(dataset).descriptors, descriptor, "descriptor")
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
        recipe = self.head(dataset, head)
        settings = recipe.identity()
        for key in ("descriptors", "test_seen", "optional"):
            settings.pop(key, None)
        stage = "import_head" if isinstance(recipe, GivenHead) else "train_head"
        return self.fingerprint(stage, settings)

    def head_descriptor_fingerprint(self, head: str, descriptor: str) -> str:
        """Return the fingerprint of the descriptors of a given head's classes."""
        recipe = self.given_head(head)
        source = lookup(recipe.descriptors, descriptor, "descriptor").identity()
        return self.fingerprint("describe_head", [source, recipe.file, recipe.classes])

    def held_out_seeds(self, cell: Cell) -> dict[int, float]:
        """Return the seeds that run once more with classes held out, and which part of these."""
        setting = self.experiment.held_out
        if not setting.part or cell.key not in self._with_held_out:
            return {}
        return dict.fromkeys(self.seeds[cell.key][: setting.seeds], setting.part)

    def seed_fingerprint(self, cell: Cell, method: Method | None = None) -> str:
        """Return the fingerprint of one seed's injected head, or of the training before it."""
        method = method or cell.method
        module = type(method).__module__
        return self.fingerprint("inject", [method.identity(), cell.n_seen], module)

    def injection_fingerprint(self, cell: Cell) -> str:
        """Return the fingerprint of injected heads, whatever their seeds."""
        return canonical_hash([self.seed_fingerprint(cell), self.held_out_seeds(cell)])

    def evaluation_fingerprint(self, cell: Cell) -> str:
        """Return the fingerprint of a cell's metrics."""
        settings = {"id": cell.id, "name": cell.method.name, "test": self.test_dataset(cell)}
        return self.fingerprint("evaluate", settings)

    def collect_fingerprint(self) -> str:
        """Return the fingerprint of the collected metrics."""
        cells = [(cell.id, self.seeds[cell.key]) for cell in self.cells.values()]
        return self.fingerprint("collect", [cells, self.experiment.identity()])

    def missing_files(self) -> list[str]:
        """Return a line for every file that is still to be read and that is not there."""
        needed: dict[GivenFile, None] = {}
        for cell in {cell.key[:4]: cell for cell in self.cells.values()}.values():
            files = self.files.unread_dataset(cell.dataset, cell.backbone)
            files += self.files.unread_descriptor(cell.dataset, cell.descriptor)
            files += self.files.unread_head_descriptor(cell.head, cell.descriptor)
            if not layout.seen_heads(*cell.key[:3]).exists():
                files += self.files.head(cell.head, cell.backbone)
            test = self.test_dataset(cell)
            if test is not None and test != cell.dataset:
                files += self.files.unread_dataset(test, cell.backbone)
            needed |= dict.fromkeys(files)
        return [problem for file in needed if (problem := file.problem()) is not None]


def _training(cell: Cell) -> Method:
    """Return the method that is trained first for a cell, its rows as predicted."""
    method = cell.method.base_method or cell.method
    return method.model_copy(update={"rescale": "none"})


def _images_identity(data: AnyDataset) -> dict[str, Any]:
    """Return what images, classes and splits depend on."""
    others = {"descriptors", "batch_size", "features", "optional", "benchmark"}
    return {key: value for key, value in data.identity().items() if key not in others}


def _head_identity(recipe: AnyHead, descriptor: str) -> dict[str, Any]:
    """Return what a cell depends on in its seen head; of a given one's descriptors, its own."""
    identity = recipe.identity()
    if isinstance(recipe, GivenHead):
        del identity["optional"]
        own = recipe.descriptors.get(descriptor)
        identity["descriptors"] = own.identity() if own else None
    return identity
