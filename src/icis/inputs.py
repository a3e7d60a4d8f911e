"""The artifacts that a cell is made of."""

from __future__ import annotations

from pathlib import Path

from icis import layout
from icis.config import GivenHead
from icis.plan import Cell


def input_files(cell: Cell) -> dict[str, Path]:
    """Return the artifacts that a cell's problems are made of."""
    files = {
        "seen heads": layout.seen_heads(*cell.key[:3]),
        "descriptors": layout.descriptors(cell.dataset, cell.descriptor),
    }
    if isinstance(cell.recipe, GivenHead) and cell.recipe.classes is not None:
        files["head descriptors"] = layout.head_descriptors(cell.head, cell.descriptor)
    return files
