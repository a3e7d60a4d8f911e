"""Print an experiment's tables, from its metrics or from the MLflow store."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from icis import layout
from icis.artifacts import read_frame, write_text
from icis.comparison import comparison_terminal
from icis.errors import IcisError
from icis.plan import Plan
from icis.results import build_table
from icis.tables import FORMATS, to_terminal


def run(plan: Plan, *, table: str | None, from_mlflow: bool, output: Path | None) -> None:
    """Print the tables, or write one to a file."""
    name = plan.experiment.name
    tables = [table] if table else list(plan.experiment.tables)
    for each in tables:
        plan.table(each)  # or say that there is none
    if from_mlflow:
        from icis.stages.track import rebuild

        metrics = rebuild(name)
    else:
        metrics = read_frame(layout.metrics(name))
    if output is not None:
        if output.suffix[1:] not in FORMATS or len(tables) != 1:
            raise IcisError(
                f"{output}: name one table with --table and a file ending in .{', .'.join(FORMATS)}"
            )
        write_text(output, FORMATS[output.suffix[1:]](build_table(metrics, plan, tables[0])))
        return
    console = Console()
    for each in tables:
        shown = build_table(metrics, plan, each)
        console.print(to_terminal(shown))
        differences = comparison_terminal(shown)
        if differences is not None:
            console.print(differences)
