"""Tables as CSV, Markdown, LaTeX, HTML and on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich import box
from rich.table import Table as TerminalTable
from rich.text import Text
from tabulate import tabulate

from icis.comparison import comparison_text
from icis.rows import Column, ResultTable
from icis.shown import Line, difference_of, elsewhere_name, heading, lines, markdown

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
    """Return CSV: a row a method, two columns a metric, numbers in full precision.

    With published numbers there are three more: these, their deviation, ours minus published.
    """
    rows = [*table.rows, *table.elsewhere]
    names = [row.display for row in table.rows] + [elsewhere_name(row) for row in table.elsewhere]
    columns: dict[str, pl.Series] = {"row": pl.Series(names)}
    with_published = any(row.published for row in rows)
    for g, metric in table.columns:
        name = f"{table.groups[g].label} {metric}"
        found = [row.cells.get((g, metric)) for row in rows]
        means = [getattr(each, "mean", None) for each in found]
        columns[f"{name} mean"] = pl.Series(means, dtype=pl.Float64)
        failed = [table.failed(g, row) for row in rows]
        if any(failed):
            texts = [None if mean is None else repr(mean) for mean in means]
            told = ["failed" if lost else text for lost, text in zip(failed, texts, strict=True)]
            columns[f"{name} mean"] = pl.Series(told, dtype=pl.String)
        columns[f"{name} std"] = _floats(found, "std")
        if with_published:
            published = [row.published.get((g, metric)) for row in rows]
            columns[f"{name} published"] = _floats(published, "value")
            columns[f"{name} published std"] = _floats(published, "std")
            differences = [difference_of(row, (g, metric)) for row in rows]
            columns[f"{name} difference"] = _floats(differences, "value")
    return pl.DataFrame(columns).write_csv()


def _floats(entries: Sequence[object], attribute: str) -> pl.Series:
    return pl.Series([getattr(each, attribute, None) for each in entries], dtype=pl.Float64)


def to_markdown(table: ResultTable) -> str:
    """Return GitHub's Markdown: title, table, notes."""
    heads = [f"{table.groups[g].label} {heading(metric)}" for g, metric in table.columns]
    body = tabulate(
        [_markdown_line(line) for line in lines(table, table.columns)],
        headers=["Method", *map(markdown, heads)],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=["left", *["right"] * len(heads)],
    )
    texts = [f"**{markdown(n)}**" if n == table.caution else markdown(n) for n in table.notes]
    notes = "\n".join(f"- {text}" for text in texts)
    return f"### {markdown(table.title)}\n\n{body}\n\n{notes}\n"


def _markdown_line(line: Line) -> list[str]:
    name = markdown(line.name)
    if line.kind in ("published", "difference"):
        name = f"*{name}*"
    return [name, *map(markdown, line.texts)]


def to_latex(table: ResultTable) -> str:
    """Return a LaTeX table with caption and notes; it needs booktabs, when wide graphicx too."""
    tabular = _latex_tabular(table)
    if len(table.columns) > WIDE:
        tabular = [r"\resizebox{\textwidth}{!}{%", *tabular[:-1], r"\end{tabular}}"]
    texts = [rf"\textbf{{{_latex(n)}}}" if n == table.caution else _latex(n) for n in table.notes]
    notes = r" \\".join(f"\n{text}" for text in texts)
    parts = [
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
    return "\n".join(parts) + "\n"


def _latex_tabular(table: ResultTable) -> list[str]:
    width = len(table.metrics)
    spans = [(2 + g * width, group.label) for g, group in enumerate(table.groups)]
    over = [rf"\multicolumn{{{width}}}{{c}}{{{_latex(label)}}}" for _, label in spans]
    rules = [rf"\cmidrule(lr){{{first}-{first + width - 1}}}" for first, _ in spans]
    heads = Line("chance", "Method", [heading(metric) for _, metric in table.columns])
    chance, *others = lines(table, table.columns)
    elsewhere = [_latex_line(line) for line in others if line.kind == "elsewhere"]
    return [
        rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
        r"\toprule",
        rf" & {' & '.join(over)} \\",
        " ".join(rules),
        _latex_line(heads),
        r"\midrule",
        _latex_line(chance),
        r"\midrule",
        *(_latex_line(line) for line in others if line.kind != "elsewhere"),
        *([r"\midrule", *elsewhere] if elsewhere else []),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def to_html(table: ResultTable, figures: Sequence[str] = ()) -> str:
    """Return a page that needs nothing but itself; figures (SVG) are embedded below the table."""
    environment = Environment(
        loader=PackageLoader("icis"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template("table.html.j2").render(
        table=table,
        heads=[heading(metric) for _, metric in table.columns],
        lines=lines(table, table.columns),
        figures=[svg[svg.find("<svg") :] for svg in figures],  # no second document type
        comparison=comparison_text(table),
    )


def to_terminal(table: ResultTable) -> TerminalTable:
    """Return a table for rich: the groups one below the other, to fit an ordinary terminal."""
    caption = Text("\n".join(table.notes), justify="left")
    shown = TerminalTable(title=Text(table.title), caption=caption, box=box.SIMPLE, pad_edge=False)
    shown.add_column("Method", overflow="fold")
    for metric in table.metrics:
        shown.add_column(heading(metric), justify="right", overflow="fold")
    for g, group in enumerate(table.groups):
        columns: list[Column] = [(g, metric) for metric in table.metrics]
        shown.add_section()
        shown.add_row(Text(group.label, style="bold"))
        for line in lines(table, columns):
            below = line.kind in ("published", "difference")
            if any(line.texts) or not (below or line.kind == "elsewhere"):
                style = "italic" if below else ""
                shown.add_row(Text(f"  {line.name}" if below else line.name, style=style),
                              *map(Text, line.texts))  # fmt: skip
    return shown


FORMATS: dict[str, Callable[[ResultTable], str]] = {
    "csv": to_csv,
    "md": to_markdown,
    "tex": to_latex,
    "html": to_html,
}
"""The formats by the suffix of their files."""


def _latex(text: str) -> str:
    return text.translate(LATEX)


def _latex_line(line: Line) -> str:
    name = _latex(line.name)
    if line.kind in ("published", "difference"):
        name = rf"\quad\textit{{{name}}}"
    return rf"{' & '.join([name, *map(_latex, line.texts)])} \\"


def _float(table: ResultTable) -> str:
    return "table*" if len(table.columns) > WIDE else "table"
