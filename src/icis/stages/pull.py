"""Bring recorded results back from DVC, so that neither DVC nor Snakemake has anything to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import typer

from icis.batches import Batches
from icis.config import read_experiment
from icis.errors import IcisError, reason_of
from icis.plan import Plan
from icis.versions.fresh import stale

SELECTED = Path("workflow/experiment.yaml")


def run(config: Path | None) -> None:
    """Check out what ``dvc.lock`` names, from the cache or the remote, and verify it.

    Only when DVC's status is clean and every artifact carries the fingerprint that the experiment
    asks for are file times set and Snakemake's records written; nothing is computed.
    """
    file = _selected(config)
    _bring()
    _require_clean()
    plan = Plan(read_experiment(file), source=str(file))
    different = stale(Batches(plan))
    if different:
        names = ", ".join(map(str, different[:3]))
        raise IcisError(
            f"{len(different)} artifacts were not recorded, or for other settings or code than "
            f"{file} asks for ({names}{', …' if len(different) > 3 else ''}): run dvc repro, which "
            "makes these anew, and commit dvc.lock"
        )
    _track(plan)
    _bless(file)
    typer.echo(f"results/{plan.experiment.name} is as it was recorded; icis show --config {file}")


def _selected(config: Path | None) -> Path:
    """Return the experiment of DVC's stages; refuse another one."""
    from ruamel.yaml import YAML

    try:
        chosen = Path(YAML(typ="safe").load(SELECTED.read_text())["experiment"]["file"])
    except (OSError, KeyError, TypeError) as error:
        raise IcisError(f"{SELECTED} is not readable: is this the project's folder?") from error
    if config is not None and config.resolve() != chosen.resolve():
        raise IcisError(
            f"DVC's stages are those of {chosen} at this revision, not of {config}: check out a "
            f"revision at which {config} was recorded (git log -- {SELECTED})"
        )
    return chosen


def _bring() -> None:
    """Check files out of the cache; only where it lacks some, ask the remote."""
    if dvc("checkout").returncode == 0:
        return
    pulled = dvc("pull")
    if pulled.returncode != 0:
        raise IcisError(
            f"DVC cannot bring the results back:\n{pulled.stderr.strip()}\n"
            "Where they were computed: dvc push, of all versions dvc push --all-commits. Here: dvc "
            "remote list should name that remote. Or compute them anew: dvc repro"
        )


def _require_clean() -> None:
    status = dvc("status")
    if status.returncode != 0 or "up to date" not in status.stdout:
        told = (status.stdout + status.stderr).strip()
        raise IcisError(
            "what lies here is not what DVC recorded, so nothing is taken for valid:\n"
            f"{told}\nCheck out a revision as a whole (git stash; git checkout REV), or bring "
            "everything up to date with dvc repro"
        )


def _track(plan: Plan) -> None:
    """Log the results to the MLflow store here; where it does not answer, the next run tries."""
    from icis.stages import track

    try:
        track.run(plan)
    except Exception as error:  # the tables are here, whatever the store does
        typer.echo(f"icis: not logged to MLflow yet: {reason_of(error)}", err=True)


def _bless(file: Path) -> None:
    """Let Snakemake take over what is here: file times in order, records of settings and code.

    All jobs are touched (``--forceall``), else none is recorded, and a setting changed later would
    go unnoticed.
    """
    touch = ["--touch", "--forceall", "--cores", "1", "--configfile", str(file), "--quiet", "all"]
    done = command(sys.executable, "-m", "snakemake", *touch)
    if done.returncode != 0:
        raise IcisError(f"snakemake --touch failed:\n{done.stderr.strip()}")


def dvc(*arguments: str) -> Any:
    """Run DVC."""
    return command(sys.executable, "-m", "dvc", *arguments)


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program; return its exit status and what it printed."""
    return subprocess.run(arguments, capture_output=True, text=True, check=False)
