"""Speed and memory of training, heads, evaluation and reading, as ratios measured in one run.

    python -m benchmarks.speed [--quick] [--parts training,heads] [--output FOLDER]
    python -m benchmarks.speed --markdown FOLDER/speed.json

Parts: agreement (that both sides get the same metrics), training, heads, evaluation, reading,
starting, tables, growth. All sides take turns, so that other work on the machine meets them all;
what counts is the ratio. The folder gets ``speed.json`` and ``growth.png``; the last command prints
a finished run as Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.agreement import measure_agreement
from benchmarks.cases import cases
from benchmarks.growth import draw, measure_growth
from benchmarks.shown import markdown
from benchmarks.turns import measure, own_memory
from benchmarks.whole import measure_tables
from icis.artifacts import write_text

PARTS = (
    "agreement", "training", "heads", "evaluation", "reading", "starting", "tables", "growth",
)  # fmt: skip


def machine() -> dict[str, Any]:
    """Return what the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def memory_of(key: str, side: str) -> None:
    """Do one side of a case once and print the memory that it took."""
    [case] = [each for each in cases(quick=False) if each.key == key]
    print(json.dumps(own_memory(case.make()[side])))


def run(parts: list[str], *, quick: bool, rounds: int, output: Path) -> dict[str, Any]:
    """Measure the parts, writing what is there after each."""
    results: dict[str, Any] = {"machine": machine(), "rounds": rounds, "cases": []}
    began = time.perf_counter()

    def tell(what: str) -> None:
        print(f"{time.perf_counter() - began:5.0f} s  {what}", file=sys.stderr, flush=True)

    def keep() -> None:
        results["seconds"] = time.perf_counter() - began
        write_text(output / "speed.json", json.dumps(results, indent=2) + "\n")  # in this order

    if "agreement" in parts:
        tell("agreement")
        results["agreement"] = measure_agreement()
        keep()
    for case in cases(quick=quick):
        if case.part in parts:
            tell(case.key)
            results["cases"].append(measure(case, rounds, quick=quick))
            keep()
    if "tables" in parts:
        results["tables"] = measure_tables(rounds, tell)
        keep()
    if "growth" in parts:
        results["growth"] = measure_growth(1 if quick else rounds, quick=quick, tell=tell)
        draw(results["growth"], output / "growth.png")
        keep()
    return results


def main() -> None:
    """Read the command line; measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer epochs, no memory, no tables")
    parser.add_argument("--parts", metavar="LIST", help=f"{','.join(PARTS)}; --quick: no tables")
    parser.add_argument("--rounds", type=int, help="turns of each side: 5; with --quick 3")
    parser.add_argument("--threads", type=int, default=2, help="%(default)s, on both sides")
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--markdown", type=Path, metavar="JSON", help="print a finished run")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.markdown:
        print(markdown(json.loads(wanted.markdown.read_text())))
        return
    torch.set_num_threads(wanted.threads)
    if wanted.memory_of:
        memory_of(*wanted.memory_of)
        return
    default = [part for part in PARTS if part != "tables" or not wanted.quick]
    parts = wanted.parts.split(",") if wanted.parts else default
    if unknown := sorted({*parts} - {*PARTS}):
        parser.error(f"no part {unknown[0]!r}; parts are {', '.join(PARTS)}")
    rounds = wanted.rounds or (3 if wanted.quick else 5)
    print(markdown(run(parts, quick=wanted.quick, rounds=rounds, output=wanted.output)))


if __name__ == "__main__":
    main()
