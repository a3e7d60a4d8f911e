"""``icis track`` and ``icis register``: records in MLflow, and models in its registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from icis.errors import IcisError

if TYPE_CHECKING:
    from icis.tracking import Heads, Receipt

track_app = typer.Typer(
    name="track",
    help="Log every cell and seed to MLflow, exactly once; 'sync' logs what had to wait.\n\n"
    "MLFLOW_TRACKING_URI: the server or store; by default the file mlflow.db here.",
    invoke_without_command=True,
    rich_markup_mode=None,
)
HeadsOption = Annotated[
    str,
    typer.Option(
        "--heads",
        envvar="ICIS_TRACK_HEADS",
        help="Injected heads to store with their runs: all, none or first-seed.",
    ),
]


def _read_heads(text: str) -> Heads:
    from icis.tracking.records import HEADS

    found = [each for each in HEADS if each == text]
    if not found:
        raise IcisError(f"--heads {text}: should be one of {', '.join(HEADS)}")
    return found[0]


@track_app.callback()
def track(
    context: typer.Context,
    config: Annotated[
        Path, typer.Option("--config", "-c", metavar="FILE", help="The experiment file.")
    ] = Path("params.yaml"),
    heads: HeadsOption = "first-seed",
    may_wait: Annotated[
        bool,
        typer.Option(
            "--may-wait", help="Where the store fails, warn and leave a receipt that says so."
        ),
    ] = False,
) -> None:
    """Log every cell and seed to MLflow, exactly once."""
    if context.invoked_subcommand is not None:
        return
    from icis.config import read_experiment
    from icis.plan import Plan
    from icis.stages import track

    plan = Plan(read_experiment(config), source=str(config))
    receipt = track.run(plan, heads=_read_heads(heads), may_wait=may_wait)
    if receipt is not None and not may_wait:  # a rule is silent where all is well
        typer.echo(_told(plan.experiment.name, receipt))


@track_app.command()
def sync(
    every: Annotated[
        bool,
        typer.Option("--all", help="All experiments with results here, not only those that wait."),
    ] = False,
    heads: HeadsOption = "first-seed",
) -> None:
    """Log what had to wait because the store could not be reached."""
    from icis.stages import track

    done = track.sync(every=every, heads=_read_heads(heads))
    for name, receipt in done.items():
        typer.echo(_told(name, receipt))
    if not done:
        typer.echo("no records wait")


def _told(name: str, receipt: Receipt) -> str:
    return (
        f"{name}: {receipt.complete} runs in {receipt.tracking_uri}, {receipt.new} of them new, "
        f"{receipt.superseded} older ones superseded"
    )
