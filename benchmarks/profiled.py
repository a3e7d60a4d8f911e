"""Where the time of a whole run goes, by py-spy's samples of all its processes.

    python -m benchmarks.profiled FOLDER/now.txt -- snakemake --cores 2 --configfile FILE
    python -m benchmarks.profiled --show FOLDER/before.txt FOLDER/now.txt

The first keeps the samples (py-spy's raw format) and the run's wall-clock seconds; the second sums
them up side by side. A sample is a thread of Python's at work; what waits is not counted, nor are
the threads of libraries that help one. So the unit is a second of busy threads, not of a clock.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from tabulate import tabulate

RATE = 100
"""Samples a second."""
PARTS = {
    "start-up imports": r"<frozen importlib|\(importlib/",
    "figures": r"matplotlib|icis/figures",
    "MLflow": r"mlflow|sqlalchemy|alembic|icis/track|icis/stages/track",
    "tables and pages": r"icis/stages/(tabulate|collect|compare)|icis/(tables|comparison|shown)",
    "the graph network of wDAE": r"icis/methods/graph",
    "trained injection": r"methods/(encoders|blockwise|steps|networks|training|ensemble|program)",
    "other injection": r"icis/methods/",
    "seen heads": r"icis/base_classifier|icis/seen_programs",
    "the backbone's training": r"icis/(finetuning|course)",
    "drawing images": r"icis/datasets/drawn|icis/stages/draw",
    "extraction": r"icis/extraction|icis/backbones|timm/",
    "evaluation": r"icis/(evaluation|calibration|metrics|scorers)",
    "reading and writing artifacts": r"icis/(artifacts|features|shelf|seals|stages/index)",
    "plans, fingerprints, hashes": r"icis/(plan|codeprint|workflow|config|inputs|fetching/hashing)",
    "Snakemake": r"snakemake",
}
"""The first of them that some frame of a sample fits has the sample."""


def record(output: Path, command: list[str]) -> int:
    """Run a command under py-spy, which keeps its samples; return its exit status."""
    output.parent.mkdir(parents=True, exist_ok=True)
    spy = ["py-spy", "record", "--subprocesses", "--nonblocking", "--rate", str(RATE)]
    spy += ["--format", "raw", "--output", str(output), "--"]
    began = time.perf_counter()
    status = subprocess.run([*spy, *command], check=False).returncode
    with output.open("a") as file:
        file.write(f"wall-clock milliseconds {1000 * (time.perf_counter() - began):.0f}\n")
    return status


def summed(path: Path) -> tuple[Counter[str], float]:
    """Return the seconds of each part and of the clock."""
    seconds: Counter[str] = Counter()
    wall = 0.0
    for line in path.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        if stack == "wall-clock milliseconds":
            wall = int(count) / 1000
        else:
            seconds[part_of(stack)] += int(count) / RATE
    return seconds, wall


def part_of(stack: str) -> str:
    """Return the part that a sample belongs to."""
    return next((part for part, known in PARTS.items() if re.search(known, stack)), "other")


def shown(paths: list[Path]) -> str:
    """Return the runs side by side as Markdown, a line a part."""
    runs = [summed(path) for path in paths]
    rows = []
    for part in sorted({*PARTS, "other"}, key=lambda each: -max(run[each] for run, _ in runs)):
        if any(run[part] for run, _ in runs):
            cells = [f"{run[part]:.1f} s ({run[part] / run.total():.0%})" for run, _ in runs]
            rows.append([part, *cells])
    rows.append(["all", *(f"{run.total():.1f} s" for run, _ in runs)])
    rows.append(["by the clock", *(f"{wall:.1f} s" for _, wall in runs)])
    headers = ["part", *(path.stem for path in paths)]
    return tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True)


def main() -> None:
    """Record or show."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("paths", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--show", action="store_true", help="sum up recorded runs")
    own, command = sys.argv[1:], []
    if "--" in own:
        cut = own.index("--")
        own, command = own[:cut], own[cut + 1 :]
    wanted = parser.parse_args(own)
    if wanted.show:
        print(shown(wanted.paths))
    elif command and len(wanted.paths) == 1:
        sys.exit(record(wanted.paths[0], command))
    else:
        parser.error("one FILE and a command after -- are needed, or --show and files")


if __name__ == "__main__":
    main()
