"""Make the tables and figures of an experiment."""

from __future__ import annotations

from icis import layout
from icis.artifacts import read_frame, write_text
from icis.figures import SUFFIXES, draw, save
from icis.plan import Plan
from icis.results import build_table
from icis.tables import FORMATS, to_html


def run(plan: Plan) -> None:
    """Write every table as CSV, Markdown, LaTeX and HTML, and its figure as SVG, PDF and PNG."""
    name = plan.experiment.name
    metrics = read_frame(layout.metrics(name))
    for each in plan.experiment.tables:
        table = build_table(metrics, plan, each)
        figure = draw(table)
        for suffix in SUFFIXES:
            save(figure, layout.figure(name, each, suffix))
        for suffix, render in FORMATS.items():
            if suffix != "html":
                write_text(layout.table(name, each, suffix), render(table))
        svg = layout.figure(name, each, "svg").read_text(encoding="utf-8")
        write_text(layout.table(name, each, "html"), to_html(table, svg))
