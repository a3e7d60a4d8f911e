"""Tables as CSV, Markdown, LaTeX, HTML and on the terminal."""

from __future__ import annotations

import re
from collections.abc import Callable

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich import box
from rich.table import Table as TerminalTable
from rich.text import Text
from tabulate import tabulate

from icis.results import ResultTable, Row, Summary

DECIMALS = {"entropy": 2, "epochs": 0}
HEADINGS = {"seen_accuracy": "seen head"}
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        **{sign: f"{{{sign}}}" for sign in "[*"},  # else they belong to a \\\\ before them
        "±": r"$\pm$",
        "→": r"$\to$",
        "×": r"$\times$",
        "·": r"$\cdot$",
        "−": "$-$",
        "–": "--",
        "“": "``",
        "”": "''",
        "…": r"\ldots{}",
        "\n": " ",
    }
)
WIDE = 6
"""Columns of numbers from which a LaTeX table is scaled to the width of the page."""


def to_csv(table: ResultTable) -> str:
    """Return CSV: a row a method, two columns a metric, numbers in full precision."""
    columns: dict[str, pl.Series] = {"row": pl.Series([row.display for row in table.rows])}
    for g, metric in table.columns:
        found = [row.cells[g, metric] for row in table.rows]
        for statistic in ("mean", "std"):
            values = [getattr(each, statistic, None) for each in found]
            name = f"{table.groups[g].label} {metric} {statistic}"
            columns[name] = pl.Series(values, dtype=pl.Float64)
    return pl.DataFrame(columns).write_csv()


def to_markdown(table: ResultTable) -> str:
    """Return GitHub's Markdown: title, table, notes."""
    heads = [f"{table.groups[g].label} {_heading(metric)}" for g, metric in table.columns]
    body = tabulate(
        [[_markdown(text) for text in _texts(table, row)] for row in table.rows],
        headers=["Method", *map(_markdown, heads)],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=["left", *["right"] * len(heads)],
    )
    texts = [f"**{_markdown(n)}**" if n == table.caution else _markdown(n) for n in table.notes]
    notes = "\n".join(f"- {text}" for text in texts)
    return f"### {_markdown(table.title)}\n\n{body}\n\n{notes}\n"


def to_latex(table: ResultTable) -> str:
    """Return a LaTeX table with caption and notes; it needs booktabs, when wide graphicx too."""
    width = len(table.metrics)
    spans = [(2 + g * width, group.label) for g, group in enumerate(table.groups)]
    over = [rf"\multicolumn{{{width}}}{{c}}{{{_latex(label)}}}" for _, label in spans]
    rules = [rf"\cmidrule(lr){{{first}-{first + width - 1}}}" for first, _ in spans]
    heads = ["Method", *(_heading(metric) for _, metric in table.columns)]
    chance, *methods = (_latex_line(_texts(table, row)) for row in table.rows)
    tabular = [
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        rf" & {' & '.join(over)} \\",
        " ".join(rules),
        _latex_line(heads),
        r"\midrule",
        chance,
        r"\midrule",
        *methods,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if len(table.columns) > WIDE:
        tabular = [r"\resizebox{\textwidth}{!}{%", *tabular[:-1], r"\end{tabular}}"]
    texts = [rf"\textbf{{{_latex(n)}}}" if n == table.caution else _latex(n) for n in table.notes]
    notes = r" \\".join(f"\n{text}" for text in texts)
    lines = [
        r"% needs \usepackage{booktabs} and, for tables scaled to the page, \usepackage{graphicx}",
        rf"\begin{{{_float(table)}}}",
        r"\centering",
        rf"\caption{{{_latex(table.title)}}}",
        rf"\label{{tab:{table.name}}}",
        *tabular,
        r"\par\medskip",
        rf"\begin{{minipage}}{{\linewidth}}\footnotesize\raggedright{notes}",
        r"\end{minipage}",
        rf"\end{{{_float(table)}}}",
    ]
    return "\n".join(lines) + "\n"


def to_html(table: ResultTable, figure_svg: str | None = None) -> str:
    """Return a page that needs nothing but itself; ``figure_svg`` is embedded below the table."""
    environment = Environment(
        loader=PackageLoader("icis"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    svg = figure_svg or ""
    figure = svg[svg.find("<svg") :] if svg else ""  # a page has no second document type
    return environment.get_template("table.html.j2").render(
        table=table,
        heads=[_heading(metric) for _, metric in table.columns],
        rows=[_texts(table, row) for row in table.rows],
        figure=figure,
    )


def to_terminal(table: ResultTable) -> TerminalTable:
    """Return a table for rich: the groups one below the other, to fit an ordinary terminal."""
    caption = Text("\n".join(table.notes), justify="left")
    shown = TerminalTable(title=Text(table.title), caption=caption, box=box.SIMPLE, pad_edge=False)
    shown.add_column("Method", overflow="fold")
    for metric in table.metrics:
        shown.add_column(_heading(metric), justify="right", overflow="fold")
    for g, group in enumerate(table.groups):
        shown.add_section()
        shown.add_row(Text(group.label, style="bold"))
        for row in table.rows:
            cells = [_shown(row.cells[g, metric], metric) for metric in table.metrics]
            shown.add_row(Text(row.display), *cells)
    return shown


FORMATS: dict[str, Callable[[ResultTable], str]] = {
    "csv": to_csv,
    "md": to_markdown,
    "tex": to_latex,
    "html": to_html,
}
"""The formats by the suffix of their files."""


def _heading(metric: str) -> str:
    return HEADINGS.get(metric, metric)


def _shown(summary: Summary | None, metric: str) -> str:
    """Return ``67.3 ± 1.2``; without the deviation where there is none, empty where no result."""
    if summary is None:
        return ""
    digits = DECIMALS.get(metric, 1)
    mean = f"{summary.mean:.{digits}f}"
    return mean if summary.std is None else f"{mean} ± {summary.std:.{digits}f}"


def _texts(table: ResultTable, row: Row) -> list[str]:
    """Return a row as text: its name, then every column."""
    cells = [_shown(row.cells[g, metric], metric) for g, metric in table.columns]
    return [row.display, *cells]


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|#$&~])", r"\\\1", text.replace("\n", " "))


def _latex(text: str) -> str:
    return text.translate(LATEX)


def _latex_line(texts: list[str]) -> str:
    return rf"{' & '.join(map(_latex, texts))} \\"


def _float(table: ResultTable) -> str:
    return "table*" if len(table.columns) > WIDE else "table"
