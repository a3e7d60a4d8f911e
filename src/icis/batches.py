"""Batches of cells: what one job computes, so that it is worth its start.

The cells of a batch read the same files and stand in the same tables, so that one table alone
computes no cell of another. How many they are is a resource, not science: (cell, seed) is what is
stored and skipped, and a cell's numbers are the same in any batch (on a GPU up to rounding).

They stay in the order of the experiment: what is added at its end makes one more batch, and no
other is looked at again. Dealing them out by their cost would reshuffle all of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from icis import layout
from icis.artifacts import file_sha256, write_json
from icis.errors import IcisError
from icis.plan import Cell, Plan
from icis.references import no_such
from icis.seals import differs

CELLS_PER_JOB, JOBS = 8, 16
"""Cells in a batch, and the batches that the cells of a small experiment are rather spread over."""
Place = tuple[str, str, str, str]


@dataclass(frozen=True)
class Batch:
    """Some cells of one (data set, backbone, seen head, descriptor), counted from 0."""

    place: Place
    number: int
    cells: tuple[Cell, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names that make up the path of the batch's record."""
        return (*self.place, str(self.number))


class Batches:
    """All cells of a plan, in batches of at most ``size``, by default as many as suit the plan."""

    def __init__(self, plan: Plan, size: int | None = None) -> None:
        self.plan = plan
        self.size = size = suitable_size(len(plan.cells)) if size is None else size
        self._of: dict[tuple[str, ...], Batch] = {}
        self.all: dict[tuple[str, ...], Batch] = {}
        counts: dict[Place, int] = {}
        for cells in self._groups():
            place = cells[0].key[:4]
            for start in range(0, len(cells), size):
                number = counts.get(place, 0)
                counts[place] = number + 1
                batch = Batch(place, number, tuple(cells[start : start + size]))
                self.all[batch.names] = batch
                self._of |= {cell.key: batch for cell in batch.cells}

    def _groups(self) -> Iterable[list[Cell]]:
        tables: dict[tuple[str, ...], list[str]] = {}
        for name, cells in self.plan.table_cells.items():
            for cell in cells:
                tables.setdefault(cell.key, []).append(name)
        groups: dict[Any, list[Cell]] = {}
        for cell in self.plan.cells.values():
            groups.setdefault((cell.key[:4], *tables[cell.key]), []).append(cell)
        return groups.values()

    def batch(self, dataset: str, backbone: str, head: str, descriptor: str, number: str) -> Batch:
        """Return a batch by the names in its record's path."""
        names = (dataset, backbone, head, descriptor, number)
        if names not in self.all:
            raise IcisError(
                no_such(f"batch of {self.size} cells", "/".join(names), map("/".join, self.all))
            )
        return self.all[names]

    def of(self, cells: Iterable[Cell]) -> list[Batch]:
        """Return the batches that some cells are in, each once."""
        found = {self._of[cell.key].names: self._of[cell.key] for cell in cells}
        return list(found.values())

    def record(self, batch: Batch) -> Path:
        """Return the file that is written once all cells of a batch are there."""
        return layout.batch(self.plan.experiment.name, *batch.names)


def suitable_size(cells: int) -> int:
    """Return how many cells a batch should hold: few where there are few, so that no core idles.

    It follows from the number of cells alone. With that of the cores, the same run on another
    machine, or with another ``--cores``, would start its jobs again.
    """
    return min(max(1, math.ceil(cells / JOBS)), CELLS_PER_JOB)


# records: which files a batch's cells are made of


def write_record(path: Path, plan: Plan, cells: Iterable[Cell]) -> None:
    """Record the hashes of all files of some cells."""
    name = plan.experiment.name
    files: dict[str, str] = {}
    for cell in cells:
        manifest = layout.injection(name, *cell.key)
        own = (layout.cell_metrics, layout.curves, layout.classes)
        for file in (manifest, *(where(name, *cell.key) for where in own)):
            files[str(file)] = file_sha256(file)
        made = json.loads(manifest.read_text())
        for each in (*made["seeds"].values(), *made["held_out"].values()):
            head = manifest.parent / each["file"]
            history = layout.history(head)
            files |= {str(head): each["sha256"], str(history): file_sha256(history)}
    write_json(path, {"files": files})


def damage(record: Path) -> list[Path] | None:
    """Return the files of a record that are missing or differ; None where there is no record.

    A record that cannot be read is itself what is damaged.
    """
    try:
        found = json.loads(record.read_bytes())
        files = found["files"].items()
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [record]
    return [Path(file) for file, sha256 in files if differs(Path(file), sha256)]
