"""What is to be logged of an experiment, read from its files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl

from icis import layout
from icis.artifacts import file_sha256, read_frame
from icis.cell_results import cell_rows
from icis.errors import FAILED
from icis.inputs import input_files
from icis.plan import Cell, Plan
from icis.rows import COLUMNS
from icis.schema import canonical_hash
from icis.tracking.encoding import long_tag

Heads = Literal["all", "none", "first-seed"]
HEADS: tuple[Heads, ...] = get_args(Heads)
OUTPUTS = ("tables", "figures")
FACTS = tuple(column for column in COLUMNS if column not in ("metric", "value", "problem"))
FORM = 1
"""Of the logged runs: a new number makes every run be logged anew."""
LONGEST_DIGEST = 36  # of a data set, in MLflow's store


@dataclass(frozen=True)
class Source:
    """A data set that a run's numbers depend on: a file, by its SHA-256."""

    name: str
    path: str
    sha256: str
    context: Literal["train", "test"]

    @property
    def digest(self) -> str:
        """Return as much of the hash as MLflow keeps."""
        return self.sha256[:LONGEST_DIGEST]


@dataclass(frozen=True)
class Record:
    """All that is logged of one (cell, seed)."""

    facts: dict[str, str]
    """The columns of the metrics table that are the same for every metric."""
    name: str
    metrics: dict[str, float]
    problems: dict[str, str]
    """By metric, why there is no other; empty where nothing failed."""
    history: pl.DataFrame
    configuration: dict[str, Any]
    provenance: dict[str, str]
    """Where the numbers come from; not in the digest, for adding a seed to a cell renews it."""
    sources: tuple[Source, ...] = ()
    head: Path | None = None
    """The file of the injected head, where it is to be logged."""

    @property
    def key(self) -> str:
        """Return ``<cell id>/<seed>``."""
        return f"{self.facts['cell']}/{self.facts['seed']}"

    @cached_property
    def digest(self) -> str:
        """Return the hash of numbers, curves, configuration and facts."""
        curves = self.history.select("term", "epoch", "value").rows()
        said = [FORM, self.facts, self.metrics, curves, self.configuration]
        said += [self.problems] if self.problems else []
        return canonical_hash(said)


def read_records(plan: Plan, heads: Heads) -> list[Record]:
    """Return the records of all cells, those of failed seeds included."""
    return [each for cell in plan.cells.values() for each in _cell_records(plan, cell, heads)]


def _cell_records(plan: Plan, cell: Cell, heads: Heads) -> Iterator[Record]:
    frame, about = cell_rows(plan, cell)
    folder = layout.cell(plan.experiment.name, *cell.key)
    sources = tuple(_sources(cell, about))
    first = min(about["heads"], key=int, default=None)
    for (seed,), rows in frame.group_by("seed", maintain_order=True):
        facts = rows.select(FACTS).row(0, named=True)
        head = folder / f"seed-{seed}.safetensors"
        sha256 = about["heads"].get(str(seed), "")
        provenance = {
            "device": about["device"],
            "git_commit": about["git_commit"],
            "injected_head": sha256,
            **long_tag("versions", about["versions"]),
            **long_tag("sources", about["sources"]),
        }
        wanted = heads == "all" or (heads == "first-seed" and str(seed) == first)
        yield Record(
            {key: str(value) for key, value in facts.items()},
            f"{about['display']}, seed {seed}: {'/'.join(cell.key)}",  # columns show its beginning
            dict(rows.select("metric", "value").iter_rows()),
            dict(rows.drop_nulls("problem").select("metric", "problem").iter_rows()),
            _history(layout.history(head), failed=FAILED in rows["metric"]),
            about["configuration"],
            provenance,
            sources,
            # one that was deleted to make room, or made anew since, is not the one evaluated
            head if wanted and head.exists() and file_sha256(head) == sha256 else None,
        )


def _sources(cell: Cell, about: dict[str, Any]) -> Iterator[Source]:
    """Yield what the method learnt from (train) and the features it was judged on (test)."""
    for role, path in input_files(cell).items():
        if str(path) in about["sources"]:
            key = cell.key[:3] if role == "seen heads" else (cell.dataset, cell.descriptor)
            name = f"{role}: {'/'.join(key)}"
            yield Source(name, str(path), about["sources"][str(path)], "train")
    for role in ("features", "test_seen"):
        if role in about["inputs"]:
            path, sha256 = about["inputs"][role]["path"], about["inputs"][role]["sha256"]
            data = Path(path)
            yield Source(f"features: {data.parent.name}/{data.stem}", path, sha256, "test")


def _history(path: Path, *, failed: bool) -> pl.DataFrame:
    """Return a seed's losses by epoch; one that failed may have none."""
    if failed and not path.exists():
        types = {"seed": pl.Int64, "epoch": pl.Int64, "term": pl.String, "value": pl.Float64}
        return pl.DataFrame(schema=types)
    return read_frame(path)


def output_files(experiment: str) -> dict[str, Path]:
    """Return tables and figures by ``<tables or figures>/<name>``."""
    folders = [(kind, layout.results(experiment) / kind) for kind in OUTPUTS]
    return {
        f"{kind}/{path.name}": path
        for kind, folder in folders
        for path in sorted(folder.glob("[!.]*"))
        if path.is_file() and path.suffix != ".complete"
    }
