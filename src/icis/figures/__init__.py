"""Figures of a table, by their kinds."""

from __future__ import annotations

from collections.abc import Callable

import matplotlib
import polars as pl
from matplotlib.figure import Figure

from icis.errors import IcisError
from icis.figures import agreement, bars, classes, curve, efficiency, ladder
from icis.figures.style import STYLE, SUFFIXES, save
from icis.results import ResultTable
from icis.schema import suggest

__all__ = ["CLASSES", "CURVES", "KINDS", "SUFFIXES", "draw", "save"]

CURVES: dict[str, type[pl.DataType]] = {
    "group": pl.Int64, "stem": pl.String, "seed": pl.Int64, "seen": pl.Float64,
    "unseen": pl.Float64,
}  # fmt: skip
"""Columns of the seen-unseen curves: a row a point, in percent, in order along the curve."""
CLASSES: dict[str, type[pl.DataType]] = {
    "group": pl.Int64, "stem": pl.String, "seed": pl.Int64, "class": pl.String,
    "seen": pl.Boolean, "accuracy": pl.Float64, "zsl": pl.Float64,
}  # fmt: skip
"""Columns of the classes' accuracies in percent: among all, and among unseen classes alone."""

KINDS: dict[str, Callable[[ResultTable, pl.DataFrame, pl.DataFrame], Figure]] = {
    "bars": lambda table, _curves, _classes: bars.draw(table),
    "curve": lambda table, curves, _classes: curve.draw(table, curves),
    "classes": lambda table, _curves, per_class: classes.draw(table, per_class),
    "ladder": lambda table, _curves, _classes: ladder.draw(table),
    "efficiency": lambda table, _curves, _classes: efficiency.draw(table),
    "agreement": lambda table, _curves, _classes: agreement.draw(table),
}
"""Every kind of figure, drawn from a table, its curves and its classes."""


def draw(kind: str, table: ResultTable, curves: pl.DataFrame, classes: pl.DataFrame) -> Figure:
    """Draw a table.

    Parameters
    ----------
    kind
        One of ``KINDS``.
    table
        The numbers; its rows are the methods.
    curves
        Points of the seen-unseen curves with the columns ``CURVES``.
    classes
        Accuracies of classes with the columns ``CLASSES``.

    Notes
    -----
    Both frames may lack methods, or be empty. Raises IcisError if there is no such kind.
    """
    if kind not in KINDS:
        raise IcisError(f"there is no figure {kind!r}; {suggest(kind, KINDS)}")
    with matplotlib.rc_context(STYLE):
        return KINDS[kind](table, curves, classes)
