"""Make the tables and figures of an experiment."""

from __future__ import annotations

from icis import layout
from icis.artifacts import write_text
from icis.cell_results import classes, curves, table_metrics
from icis.comparison import comparison_csv, comparison_markdown
from icis.figures import SUFFIXES, draw, save
from icis.plan import Plan
from icis.results import build_table
from icis.tables import FORMATS, to_html


def run(plan: Plan, name: str) -> None:
    """Write a table as CSV, Markdown, LaTeX and HTML, and the differences between its methods.

    The page holds the table's figures, so they must be there.
    """
    experiment = plan.experiment
    table = build_table(table_metrics(plan, name), plan, name)
    for suffix, render in FORMATS.items():
        if suffix != "html":
            write_text(layout.table(experiment.name, name, suffix), render(table))
    write_text(layout.differences(experiment.name, name, "csv"), comparison_csv(table))
    write_text(layout.differences(experiment.name, name, "md"), comparison_markdown(table))
    pictures = [
        layout.figure(experiment.name, name, kind, "svg").read_text(encoding="utf-8")
        for kind in experiment.tables[name].figures
    ]
    write_text(layout.table(experiment.name, name, "html"), to_html(table, pictures))


def plot(plan: Plan, name: str, kind: str) -> None:
    """Draw one kind of figure of a table as SVG, PDF and PNG."""
    table = build_table(table_metrics(plan, name), plan, name)
    figure = draw(kind, table, curves(plan, table), classes(plan, table))
    for suffix in SUFFIXES:
        save(figure, layout.figure(plan.experiment.name, name, kind, suffix))
