"""How time and disk grow with the number of cells: 100, 1,000, 10,000.

    python benchmarks/scale.py --output FOLDER [--cells 100,1000,10000] [--cells-per-job N]

The cells are WAvg with as many values of eta, on features, heads and descriptors written here.
For each number: the dry run of a fresh experiment, all its cells, the run with nothing to do, the
collected metrics, a table, and up to --track cells the records in MLflow. More than --jobs cells
are computed in this process, without Snakemake: that takes 0.02 s each instead of hours. The
figure shows CPU seconds, which other work on the machine changes little.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import polars as pl
import torch
from matplotlib.ticker import LogLocator, NullFormatter

from icis import layout
from icis.artifacts import vector_column, write_json, write_table
from icis.batches import CELLS_PER_JOB, Batches
from icis.config import parse_experiment
from icis.heads import Head
from icis.plan import Plan
from icis.seen_heads import head_table
from icis.stages import batch

ROOT = Path(__file__).parent.parent
ROWS, SMALL = 1000, 20
"""Of the tables that hold all cells, at most; of the one that is made."""
SEEN, UNSEEN, WIDTH, COMPONENTS, IMAGES = 40, 10, 64, 16, 5


LINES = {
    "dry_run": "dry run of a fresh experiment", "nothing_to_do": "nothing to do",
    "compute": "compute all cells", "collect": "collect metrics",
    "table": "a table of 20 rows, a figure", "track": "log in MLflow",
}  # fmt: skip


def experiment(cells: int) -> dict[str, Any]:
    """Return an experiment of that many cells: one data set, one head, WAvg with many etas."""
    where = {"datasets": ["made"], "backbones": ["net"], "heads": ["last"], "descriptors": ["att"]}
    methods = {f"w{n}": {"method": "wavg", "eta": 1 + n * 1e-4} for n in range(cells)}
    return {
        "name": "scale", "seeds": 1,
        "datasets": {"made": {"kind": "images", "root": "images",
                              "descriptors": {"att": {"file": "attributes.csv"}}}},
        "backbones": {"net": {"model": "resnet10t", "weights": "pretrained"}},
        "heads": {"last": {"epochs": 1}},
        "methods": methods,
        "tables": {
            "small": {**where, "methods": list(methods)[:SMALL]},
            **{f"part{start // ROWS}": {**where, "methods": list(methods)[start : start + ROWS]}
               for start in range(0, cells, ROWS)},
        },
    }  # fmt: skip


def make_inputs(plan: Plan) -> None:
    """Write index, descriptors, features and seen head, in the order in which they are made."""
    rng = np.random.default_rng(0)
    seen = tuple(f"s{n}" for n in range(SEEN))
    unseen = tuple(f"u{n}" for n in range(UNSEEN))
    classes = {"names": [*seen, *unseen], "is_seen": [True] * SEEN + [False] * UNSEEN}
    common = {"sources": {"made": "0" * 64}, "split_version": "made", "classes": classes,
              "backbone_selection": "none"}  # fmt: skip
    dataset, backbone, recipe, descriptor, _ = next(iter(plan.cells))

    def about(fingerprint: str, **facts: Any) -> dict[str, Any]:
        return {**common, "fingerprint": fingerprint, **facts}  # else it would count as stale

    splits = (("trainval", seen), ("test_seen", seen), ("test_unseen", unseen))
    rows = [(f"{split}-{name}-{n}", name, split)
            for split, names in splits for name in names for n in range(IMAGES)]  # fmt: skip
    frame = pl.DataFrame(rows, schema=["image", "class", "split"], orient="row").to_arrow()
    write_table(layout.index(dataset), frame, about(plan.index_fingerprint(dataset)))
    vectors = np.abs(rng.normal(size=(SEEN + UNSEEN, COMPONENTS))).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    columns = {"id": range(SEEN + UNSEEN), "class": classes["names"], "seen": classes["is_seen"]}
    described = pl.DataFrame(columns).to_arrow().append_column("vector", vector_column(vectors))
    made = about(plan.descriptor_fingerprint(dataset, descriptor))
    write_table(layout.descriptors(dataset, descriptor), described, made)
    pictures = vector_column(rng.normal(size=(len(rows), WIDTH)).astype(np.float32))
    made = about(plan.features_fingerprint(dataset, backbone))
    write_table(layout.features(dataset, backbone), frame.append_column("vector", pictures), made)
    weight = torch.from_numpy(rng.normal(size=(SEEN, WIDTH)).astype(np.float32))
    training = {"0": {"epoch": 1, "selection": "last of 1 epochs"}}
    head = head_table(Head(weight, torch.zeros(SEEN), seen), 0)
    made = about(plan.head_fingerprint(dataset, recipe), training=training)
    write_table(layout.seen_heads(dataset, backbone, recipe), head, made)


def snakemake(*arguments: str, size: int) -> list[str]:
    """Return the arguments of a Python that runs Snakemake in the current folder."""
    return [
        "-m", "snakemake", *arguments, "--cores", "all", "--quiet", "all",
        "--snakefile", str(ROOT / "Snakefile"), "--configfile", "experiment.json",
        "--config", f"cells-per-job={size}",
    ]  # fmt: skip


def timed(arguments: list[str]) -> tuple[float, float]:
    """Run this Python with arguments and return the seconds that it took: wall, CPU."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true"}
    began, before = time.perf_counter(), os.times()
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    wall, after = time.perf_counter() - began, os.times()
    cpu = after.children_user - before.children_user + after.children_system
    return wall, cpu - before.children_system


def size_of(folder: str) -> tuple[int, float]:
    """Return how many files a folder holds, and their size in MB."""
    sizes = [each.stat().st_size for each in Path(folder).rglob("*") if each.is_file()]
    return len(sizes), sum(sizes) / 1e6


def measure(cells: int, *, size: int, track: bool, jobs: bool) -> dict[str, Any]:
    """Measure one number of cells in the current folder: seconds and megabytes."""
    data = experiment(cells)
    Path("experiment.json").write_text(json.dumps(data))
    began = time.perf_counter()
    plan = Plan(parse_experiment(data, source="here"))
    found: dict[str, Any] = {"cells": cells, "cells_per_job": size}
    found["plan"] = time.perf_counter() - began
    make_inputs(plan)
    steps = {
        "dry_run": snakemake("all_cells", "--dry-run", size=size),
        "compute": snakemake("all_cells", size=size),
        "nothing_to_do": snakemake("all_cells", size=size),
        "collect": snakemake(str(layout.metrics("scale")), size=size),
        "table": snakemake(str(layout.complete("scale", "small")), size=size),
    }
    if track:  # without the tables of all cells
        steps["track"] = ["-m", "icis", "track", "--config", "experiment.json"]
    for step, arguments in steps.items():
        if step == "compute" and not jobs:
            for each in Batches(plan, size).all.values():
                batch.run(plan, each, device="cpu")
            continue
        found[step], found[f"{step}_cpu"] = timed(arguments)
    for key in ("compute", "compute_cpu") if jobs else ():
        found[f"{key}_per_cell"] = found[key] / cells
    if track:
        found["store_megabytes"] = Path("mlflow.db").stat().st_size / 1e6
    found["results_files"], found["results_megabytes"] = size_of("results")
    found["bookkeeping_files"], found["bookkeeping_megabytes"] = size_of(".snakemake")
    found["metrics_megabytes"] = layout.metrics("scale").stat().st_size / 1e6
    return found


def draw(results: list[dict[str, Any]], file: Path) -> None:
    """Draw CPU times over the number of cells, both logarithmic."""
    figure, axes = plt.subplots(figsize=(6, 5), layout="constrained")
    for key, label in LINES.items():
        points = [(each["cells"], each[f"{key}_cpu"]) for each in results if key in each]
        if points:
            axes.loglog(*zip(*points, strict=True), marker="o", label=label)
    axes.set(xlabel="cells", ylabel="CPU seconds", title="Time by the number of cells")
    axes.grid(which="both", alpha=0.2)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(file)
    plt.close(figure)


def main() -> None:
    """Measure each size in a fresh folder, write ``scale.json`` and ``scale.svg``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--cells", default="100,1000,10000", metavar="LIST")
    parser.add_argument("--cells-per-job", type=int, default=CELLS_PER_JOB)
    parser.add_argument("--jobs", type=int, default=1000, help="run up to so many cells as jobs")
    parser.add_argument("--track", type=int, default=1000, help="log up to so many cells")
    wanted = parser.parse_args()
    output = wanted.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    results = []
    for cells in map(int, wanted.cells.split(",")):
        with tempfile.TemporaryDirectory(dir=output) as folder:
            os.chdir(folder)
            track, jobs = cells <= wanted.track, cells <= wanted.jobs
            results.append(measure(cells, size=wanted.cells_per_job, track=track, jobs=jobs))
            os.chdir(output)
        print(json.dumps(results[-1], indent=2), flush=True)
        write_json(output / "scale.json", results)
        draw(results, output / "scale.svg")


if __name__ == "__main__":
    main()
