"""What the Snakefile needs: the plan of its configuration, and inputs and fingerprints per rule.

The functions named ``*_inputs`` and ``*_state`` take Snakemake's wildcards. A state is a rule's
``params``: when it changes, the rule's outputs are stale.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

from icis import layout, runlock
from icis.artifacts import file_sha256, write_text
from icis.batches import Batch, Batches, damage
from icis.codeprint import PACKAGE, code_hash
from icis.config import DrawnDataset, Figure, parse_experiment
from icis.errors import ConfigError, IcisError
from icis.inputs import input_files
from icis.plan import Cell, Plan
from icis.schema import canonical_hash
from icis.seals import damaged
from icis.tracked import failures, pending, waiting
from icis.versions.fresh import to_force

Wildcards = Any
FORMATS = ("csv", "md", "tex", "html")
PICTURES = ("svg", "pdf", "png")
FIGURES = get_args(Figure)
SIZE = "cells-per-job"
"""The key of Snakemake's configuration that is no part of the experiment."""


def put_icis_on_path() -> None:
    """Let jobs find ``icis`` beside this Python, whether its environment is active or not."""
    folder = str(Path(sys.executable).parent)
    if folder not in os.environ["PATH"].split(os.pathsep):
        os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"


class Workflow:
    """An experiment as Snakemake sees it."""

    def __init__(self, config: dict[str, Any], source: str, snakemake: Any = None) -> None:
        experiment = json.loads(json.dumps(config))
        size = experiment.pop(SIZE, None)
        if size is not None and (type(size) is not int or size < 1):
            raise ConfigError(source, [f"{SIZE} should be a whole number from 1 on, not {size!r}"])
        self.plan = Plan(parse_experiment(experiment, source=source))
        self.batches = Batches(self.plan, size)
        self.source, self.snakemake = source, snakemake
        self._looked_at = set[Path]()
        self._judged = False
        self.name = self.plan.experiment.name
        self.file = layout.resolved(self.name)
        runlock.require_writable(".snakemake")  # Snakemake would end in a traceback
        text = json.dumps(self.plan.experiment.identity(), indent=2) + "\n"
        if not self.file.is_file() or self.file.read_text() != text:
            write_text(self.file, text)

    @property
    def seeds_at_once(self) -> int:
        """Return how many seeds a job could train side by side, a thread each; at most 8."""
        return min(max((len(seeds) for seeds in self.plan.seeds.values()), default=1), 8)

    def require_files(self) -> None:
        """Refuse to begin when a file that is still to be read is not there."""
        missing = self.plan.missing_files()
        if missing:
            raise ConfigError(self.source, missing)

    # inputs

    def index_inputs(self, wildcards: Wildcards) -> list[Path]:
        """Return the files that an index is read from."""
        dataset = wildcards.dataset
        self._mend_artifact(layout.index(dataset))
        return _there(lambda: self.plan.files.index(dataset), layout.index(dataset))

    def describe_inputs(self, wildcards: Wildcards) -> list[Path]:
        """Return a descriptor's file, and that of its rows' names."""
        dataset, descriptor = wildcards.dataset, wildcards.descriptor
        data = self.plan.dataset(dataset)
        self._mend_artifact(layout.descriptors(dataset, descriptor))
        files = _there(
            lambda: self.plan.files.descriptor(dataset, descriptor),
            layout.descriptors(dataset, descriptor),
        )
        drawn = isinstance(data, DrawnDataset)
        return [*files, layout.raw(dataset) / "splits.csv"] if drawn else files

    def extract_inputs(self, wildcards: Wildcards) -> list[Path]:
        """Return the features file given, or images and weights, or the backbone trained."""
        dataset, backbone = wildcards.dataset, wildcards.backbone
        self._mend_artifact(layout.features(dataset, backbone))
        files = _there(
            lambda: self.plan.files.features(dataset, backbone), layout.features(dataset, backbone)
        )
        if self.plan.is_trained(dataset, backbone):
            files.append(layout.backbone(dataset, backbone) / "trained.json")
        return files

    def finetune_inputs(self, wildcards: Wildcards) -> list[Path]:
        """Return images and starting weights."""
        dataset, backbone = wildcards.dataset, wildcards.backbone
        self._mend_artifact(layout.backbone(dataset, backbone) / "trained.json")
        return _there(
            lambda: self.plan.files.features(dataset, backbone),
            layout.backbone(dataset, backbone) / "trained.json",
        )

    def describe_head_inputs(self, wildcards: Wildcards) -> list[Path]:
        """Return the files of a given head's classes and of their descriptors."""
        head, descriptor = wildcards.head, wildcards.descriptor
        self._mend_artifact(layout.head_descriptors(head, descriptor))
        return _there(
            lambda: [
                *self.plan.files.heads_of(head, ""),
                *self.plan.files.head_descriptor(head, descriptor),
            ],
            layout.head_descriptors(head, descriptor),
        )

    def train_head_inputs(self, wildcards: Wildcards) -> list[Path]:
        """Return the files of a given head; none for one that is trained here."""
        w = wildcards
        self._mend_artifact(layout.seen_heads(w.dataset, w.backbone, w.head))
        return _there(
            lambda: self.plan.files.heads_of(w.head, w.backbone),
            layout.seen_heads(w.dataset, w.backbone, w.head),
        )

    def batch_inputs(self, wildcards: Wildcards) -> list[Path]:
        """Return seen heads and descriptors, and the features that the cells are judged on."""
        batch = self._batch(wildcards)
        self._mend([batch])
        cell = batch.cells[0]  # all of them read the same
        names = dict.fromkeys((cell.dataset, self.plan.test_dataset(cell)))
        features = [layout.features(name, cell.backbone) for name in names if name is not None]
        return [*features, *input_files(cell).values()]

    def table_inputs(self, wildcards: Wildcards) -> list[Path]:
        """Return the records of the batches that a table's cells are in."""
        cells = self.plan.table_cells[wildcards.table]
        return self._records(self.batches.of(c for c in cells if c.key in self.plan.cells))

    def cell_records(self, _: Wildcards = None) -> list[Path]:
        """Return the records of all batches."""
        self._mend_artifact(layout.metrics(self.name))
        return self._records(self.batches.all.values())

    def _records(self, batches: Iterable[Batch]) -> list[Path]:
        batches = list(batches)
        self._mend(batches)
        return [self.batches.record(each) for each in batches]

    def _mend(self, batches: Iterable[Batch]) -> None:
        """Let the jobs run again whose record, or a file that it names, is missing or damaged.

        Snakemake knows the records alone, and misses none as long as later files are there. So this
        is asked when it first asks for them. A run also takes damaged files away, for the job to
        make them anew; whatever else looks on (a dry run, a report) removes nothing.
        """
        records = sorted(self._unseen(self.batches.record(each) for each in batches))
        if not records:
            return
        self._force_stale()
        with ThreadPoolExecutor() as pool:  # hashing releases Python's lock
            bad = dict(zip(records, pool.map(damage, records), strict=True))
        lost = [file for files in bad.values() for file in files or ()]
        if lost:
            print(
                f"{len(lost)} files of cells are missing or damaged, such as {lost[0]}: "
                f"{sum(map(bool, bad.values()))} of {len(bad)} batches are computed again, to make "
                "these anew",
                file=sys.stderr,
            )
        self._again((record for record, files in bad.items() if files != []), lost)

    def _mend_artifact(self, path: Path) -> None:
        """Let the job of an artifact run again whose files are not those that it sealed.

        Asked when Snakemake asks for the job's inputs: it looks at file times, not into files.
        """
        bad = [file for each in self._unseen([path]) for file in damaged(each)]
        if bad:
            names = ", ".join(map(str, bad))
            print(f"damaged, and made anew: {names}", file=sys.stderr)
            self._again([path], bad)

    def _unseen(self, paths: Iterable[Path]) -> set[Path]:
        """Return the paths that were not asked for before, in the process that plans the jobs."""
        if self.snakemake is None or not self.snakemake.is_main_process:
            return set()
        new = set(paths) - self._looked_at
        self._looked_at |= new
        return new

    def _again(self, outputs: Iterable[Path], bad: list[Path]) -> None:
        """Let the jobs of some outputs run, as --forcerun does; a run removes the bad files."""
        self.snakemake.dag.forcefiles.update(map(str, outputs))
        if bad and is_run(self.snakemake):
            runlock.hold()  # another run may be at work on them
            for file in bad:
                file.unlink(missing_ok=True)

    def _force_stale(self) -> None:
        """Let the jobs run again whose artifacts say that they are of other settings or code.

        What DVC brought has no record of Snakemake's: there the fingerprints in the artifacts tell.
        """
        settings = self.snakemake.dag_settings
        if self._judged or settings is None:
            return
        self._judged = True
        if "params" in map(str, settings.rerun_triggers):
            self.snakemake.dag.forcefiles.update(to_force(self.batches, settings.targets))

    def page_inputs(self, wildcards: Wildcards) -> list[Path]:
        """Return the figures on a table's page."""
        table = wildcards.table
        kinds = self.plan.experiment.tables[table].figures
        return [layout.figure(self.name, table, kind, "svg") for kind in kinds]

    # states

    def fetch_state(self, wildcards: Wildcards) -> str:
        """Return the state of a fetched source: what the catalogue says of it."""
        return self.plan.fetch_fingerprint(wildcards.source)

    def draw_state(self, wildcards: Wildcards) -> str:
        """Return the state of a drawn data set."""
        return self.plan.draw_fingerprint(wildcards.dataset)

    def index_state(self, wildcards: Wildcards) -> str:
        """Return the state of an index."""
        return self.plan.index_fingerprint(wildcards.dataset)

    def describe_state(self, wildcards: Wildcards) -> str:
        """Return the state of a descriptor table."""
        return self.plan.descriptor_fingerprint(wildcards.dataset, wildcards.descriptor)

    def finetune_state(self, wildcards: Wildcards) -> str:
        """Return the state of a trained backbone."""
        return self.plan.training_fingerprint(wildcards.backbone)

    def extract_state(self, wildcards: Wildcards) -> str:
        """Return the state of a features file."""
        return self.plan.features_fingerprint(wildcards.dataset, wildcards.backbone)

    def head_state(self, wildcards: Wildcards) -> str:
        """Return the state of seen heads."""
        names = (wildcards.dataset, wildcards.backbone, wildcards.head)
        seeds = self.plan.head_seeds(*names)
        return f"{self.plan.head_fingerprint(names[0], names[2])} {seeds}"

    def batch_state(self, wildcards: Wildcards) -> str:
        """Return the state of a batch's cells."""
        return canonical_hash([self._cell_state(cell) for cell in self._batch(wildcards).cells])

    def _cell_state(self, cell: Cell) -> list[str]:
        return [
            self.plan.injection_fingerprint(cell),
            self.plan.evaluation_fingerprint(cell),
            str(self.plan.seeds[cell.key]),
            self._failures(cell),
        ]

    def _failures(self, cell: Cell) -> str:
        """Return how often a cell failed: after each failure it is stale once more."""
        count = layout.failures(self.name, *cell.key)
        return f" failed {count.read_text()}" if count.exists() else ""

    def collect_state(self, wildcards: Wildcards) -> str:
        """Return the state of the collected metrics."""
        return self.plan.collect_fingerprint()

    def describe_head_state(self, wildcards: Wildcards) -> str:
        """Return the state of the descriptors of a given head's classes."""
        return self.plan.head_descriptor_fingerprint(wildcards.head, wildcards.descriptor)

    def tabulate_state(self, wildcards: Wildcards) -> str:
        """Return the state of a table and its figures."""
        experiment = self.plan.experiment.identity()
        files = [*sorted((PACKAGE / "templates").iterdir()), PACKAGE / "published.yaml"]
        names = [(cell.key, cell.id) for cell in self.plan.table_cells[wildcards.table]]
        absent = [self.plan.left_out.get(key) for key, _ in names]
        settings = [experiment["tables"][wildcards.table], names, absent]
        return self.plan.fingerprint("tabulate", [settings, *map(file_sha256, files)])

    def track_state(self, wildcards: Wildcards) -> str:
        """Return the state of the records: the code, for what is logged stands in the inputs.

        And how often there was no store to log to: after each failure it is stale once more.
        """
        failed = failures(self.name)
        return code_hash("icis.stages.track") + (f" failed {failed}" if failed else "")

    def warn_of_records(self) -> None:
        """Say at the end of a run, where it is seen, that records wait for their store."""
        reason = pending(layout.tracked(self.name))
        if reason is not None:
            print(f"warning: {waiting(self.name, reason)}", file=sys.stderr)

    # targets

    def table_files(self) -> list[Path]:
        """Return the formats of all tables, and the differences between their methods."""
        tables = self.plan.experiment.tables
        files = [layout.table(self.name, table, suffix) for table in tables for suffix in FORMATS]
        more = [layout.differences(self.name, table, s) for table in tables for s in ("csv", "md")]
        return files + more

    def figure_files(self) -> list[Path]:
        """Return all figures in all formats."""
        return [
            layout.figure(self.name, name, kind, suffix)
            for name, table in self.plan.experiment.tables.items()
            for kind in table.figures
            for suffix in PICTURES
        ]

    def complete_files(self) -> list[Path]:
        """Return the marks that no cell of a table failed."""
        return [layout.complete(self.name, table) for table in self.plan.experiment.tables]

    def feature_targets(self) -> list[Path]:
        """Return all indexes, descriptors and features that the cells need."""
        wanted = []
        for cell in self.plan.cells.values():
            test = self.plan.test_dataset(cell)
            names = dict.fromkeys((cell.dataset, test or cell.dataset))
            wanted += [layout.features(name, cell.backbone) for name in names]
            wanted += [path for key, path in input_files(cell).items() if key != "seen heads"]
        return list(dict.fromkeys(wanted))

    def receipts(self, _: Wildcards = None) -> list[Path]:
        """Return the receipts of everything that the cells are fetched from."""
        names = self.plan.files.sources(self.plan.cells.values())
        return _there(lambda: [layout.receipt(name) for name in names], layout.sources(self.name))

    def head_targets(self) -> list[Path]:
        """Return all seen heads that the cells need."""
        return list(dict.fromkeys(layout.seen_heads(*key[:3]) for key in self.plan.cells))

    def _batch(self, wildcards: Wildcards) -> Batch:
        w = wildcards
        return self.batches.batch(w.dataset, w.backbone, w.head, w.descriptor, w.number)


def is_run(snakemake: Any) -> bool:
    """Say whether this is a run: neither a dry one nor a report nor the process of a job.

    Snakemake knows once it has read the Snakefile, when it asks for inputs.
    """
    if snakemake is None or snakemake.executor_plugin is None:
        return False
    return bool(snakemake.is_main_process and not snakemake.dryrun and not snakemake.touch)


def _there(files: Callable[[], list[Path]], output: Path) -> list[Path]:
    """Return the files; those gone are left out once their artifact is made.

    Features and heads outlive the images that they came from, for example when pulled with DVC.
    """
    if not output.exists():
        return files()
    try:
        return [file for file in files() if file.exists()]
    except IcisError:  # the environment variable of the folder is not set
        return []
