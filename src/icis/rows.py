"""What a table of results is made of: columns of the metrics, summaries, rows, groups."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import polars as pl

COLUMNS: list[str] = [
    "dataset", "backbone", "head", "descriptor", "n_seen", "method", "variant", "seed", "metric",
    "value", "display", "cell", "selection", "split_version", "problem",
]  # fmt: skip
"""The columns of ``metrics.parquet``: a row is a (cell, seed, metric). A (cell, seed) that failed
has one row, of the metric ``failed``; ``problem``, else null, says why and where its log is."""
ORDER = [*COLUMNS[:9], "cell"]
"""What the rows of ``metrics.parquet`` are sorted by."""

ACCURACIES = ("T1", "U", "S", "H")
CHANCE = {"T1": "chance_T1", "U": "chance_all", "S": "chance_all", "H": "chance_all"}

Place = tuple[int, int]
"""A group of columns and a row of methods, by their positions."""
Column = tuple[int, str]
"""A group of columns by its position, and a metric."""

NEGLIGIBLE = 1e-9
"""Below this a deviation is rounding."""


@dataclass(frozen=True)
class Summary:
    """One metric of a cell over the seeds; ``std`` (ddof=1) is None for a single value."""

    mean: float
    std: float | None
    values: tuple[float, ...]
    seeds: tuple[int, ...] = ()
    """The seeds that the values belong to."""

    @property
    def n(self) -> int:
        """Return the number of seeds."""
        return len(self.values)

    @property
    def constant(self) -> bool:
        """Return whether two or more seeds all gave the same value."""
        return self.n > 1 and len(set(self.values)) == 1


@dataclass(frozen=True)
class Published:
    """A published number; deviation and number of runs where these were published too."""

    value: float
    std: float | None = None
    n: int | None = None


@dataclass(frozen=True)
class Difference:
    """Ours minus published; ``errors`` is its size in combined standard errors, where known."""

    value: float
    errors: float | None


def difference(ours: Summary, theirs: Published) -> Difference:
    """Compare a summary with a published number."""
    value = ours.mean - theirs.value
    if ours.std is None or theirs.std is None or theirs.n is None or theirs.n < 2:
        return Difference(value, None)
    error = math.sqrt(ours.std**2 / ours.n + theirs.std**2 / theirs.n)
    return Difference(value, abs(value) / error if error > NEGLIGIBLE else None)


@dataclass(frozen=True)
class GroupHeader:
    """A group of columns; ``label`` names the data set and whatever else varies in the table."""

    dataset: str
    backbone: str
    head: str
    descriptor: str
    n_seen: str
    """How many seen classes the methods learn from, or ``all``."""
    label: str

    @property
    def parts(self) -> tuple[str, str, str, str, str]:
        """Return the five names that tell groups apart."""
        return (self.dataset, self.backbone, self.head, self.descriptor, self.n_seen)


@dataclass(frozen=True)
class Row:
    """A method, or chance; ``cells`` by (group's position, metric), None where there is nothing."""

    display: str
    stem: str
    cells: Mapping[Column, Summary | None]
    key: str = ""
    """The method's key in the experiment file, or in the block of published numbers."""
    published: Mapping[Column, Published] = field(default_factory=dict)


@dataclass(frozen=True)
class ResultTable:
    """A table ready to be shown; the first row is chance, the first note the caution if any."""

    name: str
    title: str
    groups: tuple[GroupHeader, ...]
    metrics: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]
    caution: str | None = None
    seen_counts: Mapping[int, int] = field(default_factory=dict)
    """How many seen classes the methods of a group learnt from; absent where no result tells."""
    failures: Mapping[Place, str] = field(default_factory=dict)
    """(group, row of ``methods``) to why its first failing seed failed."""
    elsewhere: tuple[Row, ...] = ()
    """Rows with published numbers alone: methods that the table does not have."""
    reference: int = -1
    """The position in ``methods`` that the others are compared with."""
    seeds: tuple[int, ...] = ()

    @property
    def columns(self) -> list[Column]:
        """Return the (group's position, metric) of every column from left to right."""
        return [(g, metric) for g in range(len(self.groups)) for metric in self.metrics]

    @property
    def chance(self) -> Row:
        """Return the row of chance levels."""
        return self.rows[0]

    @property
    def methods(self) -> tuple[Row, ...]:
        """Return the rows of methods."""
        return self.rows[1:]

    def failed(self, g: int, row: Row) -> bool:
        """Return whether a row of ``methods`` has nothing in a group because it failed."""
        methods = self.methods
        return is_empty(row, g) and any(
            row is methods[r] for group, r in self.failures if group == g
        )


def is_empty(row: Row, g: int) -> bool:
    """Return whether a row has no result at all in a group."""
    return all(cell is None for (group, _), cell in row.cells.items() if group == g)


def with_problem(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a cell's rows with the column ``problem``, null where nothing failed."""
    if "problem" in frame.columns:
        return frame.with_columns(pl.col("problem").cast(pl.String))
    return frame.with_columns(problem=pl.lit(None, dtype=pl.String))
