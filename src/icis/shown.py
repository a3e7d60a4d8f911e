"""Numbers and lines of a table as text, the same in every format."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from icis.rows import Column, Difference, Published, ResultTable, Row, Summary, difference

DECIMALS = {
    "entropy": 2, "epochs": 0, "offset": 2, "norm_ratio": 2, "norm_factor": 2,
    "train_loss": 4, "held_out_loss": 4, "held_out_cosine": 3, "held_out_w2a": 3,
}  # fmt: skip
HEADINGS = {
    "seen_accuracy": "seen head",
    "U_cal": "U cal.",
    "S_cal": "S cal.",
    "H_cal": "H cal.",
    "U_norm": "U norm",
    "S_norm": "S norm",
    "H_norm": "H norm",
    "norm_factor": "norm factor",
    "bias_gap": "S − U",
    "to_seen": "to seen",
    "norm_ratio": "norm ratio",
    "train_loss": "train loss",
    "held_out_loss": "held-out loss",
    "held_out_cosine": "held-out cosine",
    "held_out_w2a": "held-out w→a",
}

Kind = Literal["chance", "method", "published", "difference", "elsewhere"]


@dataclass(frozen=True)
class Line:
    """A line of a table as text."""

    kind: Kind
    name: str
    texts: list[str]


def heading(metric: str) -> str:
    """Return what stands above a metric's column."""
    return HEADINGS.get(metric, metric)


def decimals(metric: str) -> int:
    """Return how many digits of a metric are shown after the point."""
    return DECIMALS.get(metric, 1)


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """Return a rounded number with a real minus sign; zero has no sign."""
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    if not text.strip("+-0."):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def spread(value: float, std: float | None, digits: int) -> str:
    """Return ``67.3 ± 1.2``, without the deviation where there is none."""
    mean = number(value, digits)
    return mean if std is None else f"{mean} ± {number(std, digits)}"


def summary_text(summary: Summary | None, metric: str) -> str:
    """Return a summary as text, empty where there is no result."""
    return "" if summary is None else spread(summary.mean, summary.std, decimals(metric))


def published_text(published: Published | None, metric: str) -> str:
    """Return a published number as text, empty where it is not known."""
    return "" if published is None else spread(published.value, published.std, decimals(metric))


def difference_text(found: Difference | None, metric: str) -> str:
    """Return ``+0.4 (0.8 SE)``, without the standard errors where they are not known."""
    if found is None:
        return ""
    text = number(found.value, decimals(metric), signed=True)
    return text if found.errors is None else f"{text} ({number(found.errors, 1)} SE)"


def difference_of(row: Row, column: Column) -> Difference | None:
    """Return ours minus published, None where one of the two is missing."""
    ours, theirs = row.cells.get(column), row.published.get(column)
    return difference(ours, theirs) if ours and theirs else None


def lines(table: ResultTable, columns: Sequence[Column]) -> list[Line]:
    """Return all lines of a table: chance, methods, what is published of them and elsewhere."""
    found = [_line("chance", table.chance, table, columns)]
    for row in table.methods:
        found.append(_line("method", row, table, columns))
        if row.published:
            published = [published_text(row.published.get(c), c[1]) for c in columns]
            differences = [difference_text(difference_of(row, c), c[1]) for c in columns]
            found.append(Line("published", "published", published))
            found.append(Line("difference", "difference", differences))
    for row in table.elsewhere:
        texts = [published_text(row.published.get(c), c[1]) for c in columns]
        found.append(Line("elsewhere", elsewhere_name(row), texts))
    return found


def elsewhere_name(row: Row) -> str:
    """Return the name of a row that has published numbers alone."""
    return f"{row.display} (published)"


def _line(kind: Kind, row: Row, table: ResultTable, columns: Sequence[Column]) -> Line:
    failed = {g for g in range(len(table.groups)) if table.failed(g, row)}
    texts = [
        "failed" if g in failed else summary_text(row.cells.get((g, metric)), metric)
        for g, metric in columns
    ]
    return Line(kind, row.display, texts)


def markdown(text: str) -> str:
    """Escape what Markdown would take for markup."""
    return re.sub(r"([\\`*_\[\]<>|#$&~])", r"\\\1", text.replace("\n", " "))
