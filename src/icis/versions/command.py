"""The verbs ``icis compare`` and ``icis pull``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    old: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="The old version: a git revision (REV or REV:EXPERIMENT), an experiment in "
            "results/, or a folder of results.",
        ),
    ],
    new: Annotated[
        str, typer.Argument(metavar="B", help="The new version, named in one of the same ways.")
    ],
    metrics: Annotated[
        str, typer.Option(metavar="LIST", help="Such as T1,H; by default the accuracies shown.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a .md, .html or .csv instead.")
    ] = None,
) -> None:
    """Set two versions of results side by side: what changed, and what it did to the numbers."""
    from icis.stages import compare

    compare.run(old, new, metrics=[each for each in metrics.split(",") if each], output=output)


def pull(
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="By default DVC's experiment."),
    ] = None,
) -> None:
    """Bring back the results that were recorded at this git revision, without computing."""
    from icis.stages import pull

    pull.run(config)
