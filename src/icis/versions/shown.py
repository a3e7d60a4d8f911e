"""A comparison of two versions on the terminal, as Markdown, CSV and HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Group, RenderableType
from rich.text import Text
from tabulate import tabulate

from icis.comparison import Comparison
from icis.notes import MEANINGS, common_parts
from icis.rows import Summary
from icis.shown import decimals, heading, markdown, number, summary_text
from icis.versions.versus import PairedRow, Status, Versus

MOST = 20
"""Lines of a section on the terminal and in Markdown; the HTML page has all."""
WORDS: dict[Status, str] = {
    "same": "as it was",
    "changed": "changed",
    "new": "new",
    "gone": "gone",
}
NOTES = (
    "Difference: new minus old, mean over the seeds that both versions have, with its 95% t "
    "interval and the two-sided p of a paired t test; not corrected for multiple comparisons.",
    "Mean ± sample standard deviation over all seeds of a version.",
)


@dataclass(frozen=True)
class Line:
    """One metric of one cell as text."""

    metric: str
    old: str
    new: str
    difference: str
    interval: str
    p: str
    """The p of the test, or why there is none."""
    clear: bool
    """Whether the interval excludes 0."""


def row_lines(row: PairedRow, metrics: Sequence[str]) -> Iterator[Line]:
    """Yield a cell's metrics as text; a cell that failed in both versions or one says so."""
    for metric in metrics:
        old, new = (
            "failed" if failed else summary_text(found.get(metric), metric)
            for found, failed in zip((row.old, row.new), row.failed, strict=True)
        )
        test = row.tests.get(metric)
        if old or new:
            yield Line(heading(metric), old, new, *_test_texts(test, metric))


def _test_texts(test: Comparison | None, metric: str) -> tuple[str, str, str, bool]:
    if test is None or test.difference is None:
        return "", "", test.remark if test else "", False
    digits = decimals(metric)
    difference = number(test.difference, digits, signed=True)
    if test.low is None or test.high is None or test.p is None:
        return difference, "", test.remark, False
    low, high = (number(end, digits, signed=True) for end in (test.low, test.high))
    p = "< 0.001" if test.p < 0.001 else f"{test.p:.3f}"
    return difference, f"[{low}, {high}]", p, test.low > 0 or test.high < 0


def summary_line(found: Versus) -> str:
    """Return how many cells are new, gone, changed and as they were."""
    parts = [f"{found.count(status)} {WORDS[status]}" for status in ("changed", "new", "gone")]
    return f"{len(found.rows)} cells: {', '.join(parts)}, {found.count('same')} as they were."


def notes_of(found: Versus) -> list[str]:
    """Return what stands below the tables."""
    notes = []
    if common := common_parts(found.groups):
        notes.append(f"All tables: {', '.join(common)}.")
    meanings = [f"{heading(metric)}: {MEANINGS[metric]}" for metric in found.metrics]
    return [*notes, *NOTES, "; ".join(meanings) + "."]


def status_lines(row: PairedRow) -> list[str]:
    """Return a cell's status and the settings that changed."""
    return [WORDS[row.status], *(change.text for change in row.changes)]


def by_group(found: Versus) -> Iterator[tuple[str, list[PairedRow]]]:
    """Yield each group's label with its rows."""
    for g, rows in groupby(found.rows, key=lambda row: row.group):
        yield found.groups[g].label, list(rows)


def to_terminal(found: Versus) -> Group:
    """Return what rich prints."""
    parts: list[RenderableType] = [Text(f"{found.old} → {found.new}", style="bold")]
    for title, lines in found.sections:
        parts.append(Text(f"{title}: the same" if not lines else f"{title}:"))
        parts += [_unbroken(f"  {line}") for line in _first(lines)]
    parts.append(Text(summary_line(found)))
    for label, rows in by_group(found):
        parts += ["", *_terminal_table(label, rows, found)]
    parts.append("")
    parts += [Text(f"- {note}") for note in notes_of(found)]
    return Group(*parts)


FIELDS = ("metric", "old", "new", "difference", "interval", "p")


def _terminal_table(label: str, rows: Sequence[PairedRow], found: Versus) -> Iterator[Text]:
    """Yield lines: a cell's name has one of its own, its numbers stand in common columns below."""
    told = [list(row_lines(row, found.metrics)) for row in rows]
    body = [[getattr(line, field) for field in FIELDS] for lines in told for line in lines]
    heads = ["", found.old, found.new, "Difference", "95% interval", "p"]
    head, *lines = tabulate(
        body, headers=heads, tablefmt="plain", disable_numparse=True,
        colalign=["left", *["right"] * 4, "left"] if body else None,
    ).splitlines()  # fmt: skip
    yield Text(label, style="bold underline")
    yield _unbroken(f"  {head}", style="dim")
    numbers = iter(lines)
    for row, own in zip(rows, told, strict=True):
        name = Text(row.display, style="bold")
        yield name.append(f": {'; '.join(status_lines(row))}", style="not bold")
        for _ in own:
            yield _unbroken(f"  {next(numbers)}")


def _unbroken(line: str, style: str = "") -> Text:
    """Return a line that is neither wrapped nor cut."""
    return Text(line, no_wrap=True, overflow="ignore", style=style)


def _first(lines: Sequence[str]) -> list[str]:
    more = [f"… and {len(lines) - MOST} more"] if len(lines) > MOST else []
    return [*lines[:MOST], *more]


def to_markdown(found: Versus) -> str:
    """Return GitHub's Markdown."""
    parts = [f"## {markdown(found.old)} → {markdown(found.new)}", summary_line(found)]
    for title, lines in found.sections:
        listed = "\n".join(f"- {markdown(line)}" for line in _first(lines)) or "- the same"
        parts.append(f"**{title}**\n\n{listed}")
    heads = ["Method", "", found.old, found.new, "Difference", "95% interval", "p"]
    for label, rows in by_group(found):
        body = []
        for row in rows:
            name = f"**{markdown(row.display)}**: {markdown('; '.join(status_lines(row)))}"
            for k, line in enumerate(row_lines(row, found.metrics)):
                cells = [markdown(getattr(line, field)) for field in FIELDS]
                body.append(["" if k else name, *cells])
        table = tabulate(
            body, headers=list(map(markdown, heads)), tablefmt="pipe", disable_numparse=True,
            colalign=["left", "left", *["right"] * 5],
        )  # fmt: skip
        parts.append(f"### {markdown(label)}\n\n{table}")
    parts.append("\n".join(f"- {markdown(note)}" for note in notes_of(found)))
    return "\n\n".join(parts) + "\n"


def to_csv(found: Versus) -> str:
    """Return CSV: a row a (group, method, metric), numbers in full precision."""
    rows = []
    for row in found.rows:
        changes = "; ".join(change.text for change in row.changes)
        for metric in found.metrics:
            test = row.tests.get(metric)
            rows.append(
                {
                    "group": found.groups[row.group].label,
                    "method": row.display,
                    "status": row.status,
                    "changes": changes,
                    "metric": metric,
                    **_numbers("old", row.old.get(metric)),
                    **_numbers("new", row.new.get(metric)),
                    "seeds": test.seeds if test else 0,
                    "difference": test.difference if test else None,
                    "low": test.low if test else None,
                    "high": test.high if test else None,
                    "p": test.p if test else None,
                    "remark": test.remark if test else "",
                }
            )
    return pl.DataFrame(rows, infer_schema_length=None).write_csv()


def _numbers(which: str, found: Summary | None) -> dict[str, float | int | None]:
    return {
        f"{which} mean": found.mean if found else None,
        f"{which} std": found.std if found else None,
        f"{which} n": found.n if found else 0,
    }


def to_html(found: Versus) -> str:
    """Return a page that needs nothing but itself."""
    environment = Environment(
        loader=PackageLoader("icis"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    groups = [
        (label, [(row, list(row_lines(row, found.metrics))) for row in rows])
        for label, rows in by_group(found)
    ]
    return environment.get_template("compare.html.j2").render(
        found=found, groups=groups, summary=summary_line(found), words=WORDS, most=MOST,
        notes=notes_of(found),
    )  # fmt: skip


FORMATS: dict[str, Callable[[Versus], str]] = {"md": to_markdown, "html": to_html, "csv": to_csv}
"""The formats by the suffix of their files."""
