"""Every method against one of them, seed by seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import polars as pl
from rich import box
from rich.table import Table as TerminalTable
from rich.text import Text
from scipy import stats
from tabulate import tabulate

from icis.rows import ACCURACIES, NEGLIGIBLE, ResultTable, Summary, is_empty
from icis.shown import decimals, markdown, number

LEVEL = 0.95
NOTES = (
    "Mean difference (method minus reference) over the seeds that both have, with its 95% "
    "t interval and the two-sided p of a paired t test.",
    "Seeds are paired: networks and orders of variants start from the same random streams.",
    "With 5 seeds a rank test cannot reach 0.05, hence the t interval; intervals and p are not "
    "corrected for multiple comparisons.",
)


@dataclass(frozen=True)
class Comparison:
    """A method against the reference in one group and metric; None where it cannot be said."""

    group: str
    metric: str
    method: str
    reference: str
    seeds: int
    """How many seeds both have."""
    difference: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    remark: str = ""
    """Why there is no interval or no difference."""


def compare(table: ResultTable) -> list[Comparison]:
    """Compare all methods with the table's reference, by group, method and metric."""
    reference = table.methods[table.reference]
    found = []
    for g, group in enumerate(table.groups):
        for row in table.methods:
            if row is reference:
                continue
            gone = [
                f"{who}{'failed' if table.failed(g, each) else 'no result'}"
                for who, each in (("", row), (f"{reference.display}: ", reference))
                if is_empty(each, g)
            ]
            for metric in compared(table):
                names = (group.label, metric, row.display, reference.display)
                if gone:
                    found.append(Comparison(*names, 0, None, remark="; ".join(gone)))
                    continue
                ours, theirs = common_values(row.cells[g, metric], reference.cells[g, metric])
                found.append(paired_test(names, ours, theirs))
    return found


def compared(table: ResultTable) -> list[str]:
    """Return the metrics that methods are compared in."""
    return [metric for metric in table.metrics if metric in ACCURACIES]


def common_values(one: Summary | None, other: Summary | None) -> tuple[list[float], list[float]]:
    """Return the values of the seeds that both have."""
    if one is None or other is None:
        return [], []
    left = dict(zip(one.seeds, one.values, strict=True))
    right = dict(zip(other.seeds, other.values, strict=True))
    common = [
        seed for seed in left
        if seed in right and math.isfinite(left[seed]) and math.isfinite(right[seed])
    ]  # fmt: skip
    return [left[seed] for seed in common], [right[seed] for seed in common]


def paired_test(
    names: tuple[str, str, str, str], ours: Sequence[float], theirs: Sequence[float]
) -> Comparison:
    """Compare values of the same seeds; ``names``: group, metric, method, reference."""
    n = len(ours)
    if n == 0:
        return Comparison(*names, 0, None, remark="no common seed")
    differences = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    mean = float(differences.mean())
    if n == 1:
        return Comparison(*names, 1, mean, remark="1 seed, no interval")
    if max(ours) == min(ours) and max(theirs) == min(theirs):
        return Comparison(*names, n, mean, remark="no randomness")
    if np.ptp(differences) <= NEGLIGIBLE:
        return Comparison(*names, n, mean, remark="no randomness in the difference")
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    reach = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, n - 1))
    return Comparison(*names, n, mean, mean - reach, mean + reach, p)


def comparison_csv(table: ResultTable) -> str:
    """Return CSV: a row a (group, metric, method), numbers in full precision."""
    text, real = pl.String, pl.Float64
    types = {
        "group": text, "metric": text, "method": text, "reference": text, "seeds": pl.Int64,
        "difference": real, "low": real, "high": real, "p": real, "remark": text,
    }  # fmt: skip
    return pl.DataFrame([asdict(each) for each in compare(table)], schema=types).write_csv()


@dataclass(frozen=True)
class ComparisonText:
    """The comparisons of a table as text: what every format but CSV shows."""

    title: str
    heads: list[str]
    rows: list[list[str]]
    notes: tuple[str, ...]


def comparison_text(table: ResultTable) -> ComparisonText | None:
    """Return a row a (group, method), a column a metric; None where there is nothing to compare."""
    metrics = compared(table)
    together: dict[tuple[str, str], list[Comparison]] = {}
    for each in compare(table):
        together.setdefault((each.group, each.method), []).append(each)
    if not together:
        return None
    rows = []
    for (group, method), found in together.items():
        counts = sorted({each.seeds for each in found})
        seeds = "–".join(dict.fromkeys((str(counts[0]), str(counts[-1]))))
        rows.append([group, method, seeds, *map(comparison_cell, found)])
    title = f"Differences from “{table.methods[table.reference].display}”, paired by seed"
    return ComparisonText(title, ["Group", "Method", "Seeds", *metrics], rows, NOTES)


def comparison_cell(found: Comparison) -> str:
    """Return ``+0.4 [−0.3, +1.1], p = 0.21``, or why there is no interval."""
    digits = decimals(found.metric)
    if found.difference is None:
        return found.remark
    mean = number(found.difference, digits, signed=True)
    if found.low is None or found.high is None or found.p is None:
        return f"{mean} ({found.remark})"
    low, high = (number(end, digits, signed=True) for end in (found.low, found.high))
    p = "p < 0.001" if found.p < 0.001 else f"p = {found.p:.3f}"
    return f"{mean} [{low}, {high}], {p}"


def comparison_markdown(table: ResultTable) -> str:
    """Return GitHub's Markdown: title, table, notes."""
    text = comparison_text(table)
    if text is None:
        return f"### {markdown(table.title)}\n\nThere is nothing to compare.\n"
    body = tabulate(
        [[markdown(each) for each in row] for row in text.rows],
        headers=[markdown(each) for each in text.heads],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=["left", "left", *["right"] * (len(text.heads) - 2)],
    )
    notes = "\n".join(f"- {markdown(note)}" for note in text.notes)
    title = f"{table.title}: {text.title[0].lower()}{text.title[1:]}"
    return f"### {markdown(title)}\n\n{body}\n\n{notes}\n"


def comparison_terminal(table: ResultTable) -> TerminalTable | None:
    """Return a table for rich: the groups one below the other; None: nothing to compare."""
    text = comparison_text(table)
    if text is None:
        return None
    caption = Text("\n".join(text.notes), justify="left")
    shown = TerminalTable(title=Text(text.title), caption=caption, box=box.SIMPLE, pad_edge=False)
    for head in text.heads[1:]:
        shown.add_column(head, justify="left" if head == "Method" else "right", overflow="fold")
    group = None
    for row in text.rows:
        if row[0] != group:
            group = row[0]
            shown.add_section()
            shown.add_row(Text(group, style="bold"))
        cells = [cell.replace("], ", "]\n") for cell in row[3:]]  # else it breaks anywhere
        shown.add_row(*map(Text, (*row[1:3], *cells)))
    return shown
