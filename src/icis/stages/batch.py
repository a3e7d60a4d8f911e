"""Compute a batch of cells: inject and evaluate each, whatever is not there yet."""

from __future__ import annotations

import traceback

from tqdm import tqdm

from icis import layout
from icis.batches import Batch, write_record
from icis.errors import IcisError, reason_of
from icis.plan import Cell, Plan
from icis.shelf import Shelf
from icis.stages import evaluate, inject
from icis.stages.common import only_one, pick_device


def run(plan: Plan, batch: Batch, *, device: str = "auto") -> None:
    """Make the cells that are not there or not fresh, then the record of all of them.

    A cell that cannot be computed takes no other along: the rest is made, then this one named.
    """
    device = pick_device(device)
    name = plan.experiment.name
    record = layout.batch(name, *batch.names)
    shelf = Shelf()
    broken = []
    with only_one(record):
        failures = inject.together(plan, batch.cells, device=device, shelf=shelf)
        for cell in tqdm(batch.cells, desc="cells", unit="cell", disable=None):
            try:
                _cell(plan, cell, batch, shelf, device, failures)
            except Exception as error:
                traceback.print_exception(error)
                broken.append(f"  {'/'.join(cell.key)}: {reason_of(error)}")
        if broken:
            raise IcisError(
                f"{len(broken)} of {len(batch.cells)} cells could not be computed; the same "
                "command tries them again\n" + "\n".join(broken)
            )
        write_record(record, plan, batch.cells)


def _cell(
    plan: Plan, cell: Cell, batch: Batch, shelf: Shelf, device: str, failures: inject.Failures
) -> None:
    log = layout.log(plan.experiment.name, "cells", *batch.names)
    inject.run(plan, cell, device=device, shelf=shelf, log=log, failures=failures)
    if not evaluate.is_fresh(plan, cell, shelf):
        evaluate.run(plan, cell, device=device, shelf=shelf, log=log)
