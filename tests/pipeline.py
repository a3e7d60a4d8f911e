"""A tiny experiment through the whole DAG, and what tests need to run it."""

import json
import os
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

CELLS = Path("results/tiny/cells/drawn/small/linear-last_epochs-5/att")
ROOT = Path(__file__).parent.parent
TINY = {
    "name": "tiny",
    "seeds": 2,
    "datasets": {
        "drawn": {
            "kind": "drawn", "classes": 12, "unseen": 4, "trainval_per_class": 6,
            "test_per_class": 4, "image_size": 32,
        }
    },
    "backbones": {
        "small": {
            "model": "resnet10t", "weights": "random",
            "transform": {"image_size": 32, "crop_pct": 1.0},
            "train": {"epochs": 1, "batch_size": 16},
        }
    },
    "heads": {"last": {"epochs": 5}},
    "methods": {
        "conse": {"method": "conse", "name": "ConSE"},
        "icis": {"method": "icis", "name": "ICIS", "hidden": 32, "max_epochs": 30},
        "mlp": {"method": "mlp", "name": "MLP", "hidden": 32, "max_epochs": 25},
    },
    "tables": {
        "main": {
            "title": "A tiny table", "datasets": ["drawn"], "backbones": ["small"],
            "heads": ["last"], "descriptors": ["att"], "methods": ["conse", "mlp", "icis"],
            "metrics": ["T1", "U", "S", "H", "epochs"],
        }
    },
}  # fmt: skip


def tiny() -> dict:
    """Return a copy of the tiny experiment, to change."""
    return deepcopy(TINY)


def environment(**changes: str) -> dict[str, str]:
    """Return an environment in which the project's programs are found."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {key: value for key, value in os.environ.items() if key != "MLFLOW_TRACKING_URI"}
    return {**kept, "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true", **changes}


def write(folder: Path, experiment: dict) -> Path:
    """Write an experiment file."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "experiment.json"
    file.write_text(json.dumps(experiment))
    return file


def snakemake(folder: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the project's Snakefile in a folder on its experiment file.

    In batches of 8 cells if not told otherwise: by default a tiny experiment has one in each.
    """
    size = () if "--config" in arguments else ("--config", "cells-per-job=8")
    command = [
        sys.executable, "-m", "snakemake", *arguments, *size, "--cores", "2",
        "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder),
        "--configfile", str(folder / "experiment.json"),
    ]  # fmt: skip
    return subprocess.run(
        command, capture_output=True, text=True, env=environment(**changes), check=False
    )


def planned(folder: Path, *arguments: str, **changes: str) -> dict[str, int]:
    """Return how many jobs of each rule a dry run plans."""
    done = snakemake(folder, "--dry-run", *arguments, **changes)
    assert done.returncode == 0, done.stdout + done.stderr
    output = done.stdout + done.stderr
    found = re.search(r"Job stats:\njob +count\n[- ]+\n(.*?)\n\n", output, re.DOTALL)
    if found is None:
        assert "Nothing to be done" in output, output
        return {}
    rows = [line.split() for line in found.group(1).splitlines()]
    return {name: int(count) for name, count in rows if name not in ("total", "all")}


def times(folder: Path, pattern: str) -> dict[Path, int]:
    """Return the times of some files: one that stays the same was not made anew."""
    return {path: path.stat().st_mtime_ns for path in folder.glob(pattern)}


def changed(before: dict[Path, int], folder: Path, pattern: str) -> set[str]:
    """Return the names below the cells' folder of files made since, or made anew."""
    after = times(folder, pattern)
    made = {path for path, time in after.items() if before.get(path) != time}
    return {str(path.relative_to(folder / CELLS)) for path in made}


def copy(folder: Path, target: Path) -> Path:
    """Copy a finished run with its file times, to change it."""
    shutil.copytree(folder, target, symlinks=True)
    return target
