"""What a training costs by one recipe and by another, in turns, on one thread.

    python benchmarks/recipes.py DATASET BACKBONE HEAD DESCRIPTOR --config FILE [--seeds 0,1,2]

The methods are those of the experiment file's cells in this place; the seen heads and descriptors
are read as they lie there. Printed are CPU seconds, which other work on the machine changes less
than wall-clock time, and each method's ratio to the first, over the seeds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from statistics import mean, stdev

import torch

from icis.cli import load_plan, read_seeds
from icis.inputs import input_files
from icis.stages.common import denormals_flushed
from icis.stages.problems import load_problem


def main() -> None:
    """Time every method on every seed's problem and print the seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("place", nargs=4, metavar="NAME", help="as in paths")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--seeds", type=read_seeds, default=[0, 1, 2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plan = load_plan(arguments.config)
    cells = [cell for cell in plan.cells.values() if cell.key[:4] == tuple(arguments.place)]
    if not cells:
        parser.error(f"{arguments.config} has no cell in {'/'.join(arguments.place)}")
    inputs = input_files(cells[0])
    spent: dict[str, list[float]] = {cell.method_key: [] for cell in cells}
    with denormals_flushed():
        for seed in arguments.seeds:
            problem = load_problem(inputs["seen heads"], inputs["descriptors"], seed)
            for cell in cells:
                start = time.process_time()
                epochs = cell.method.inject(problem, seed=seed, device="cpu").epochs
                seconds = time.process_time() - start
                spent[cell.method_key].append(seconds)
                print(f"seed {seed}, {cell.method_key}: {epochs} epochs, {seconds:.2f} s")
    first = mean(next(iter(spent.values())))
    for name, seconds in spent.items():
        spread = f" ± {stdev(seconds):.2f}" if len(seconds) > 1 else ""
        print(f"{name}: {mean(seconds):.2f}{spread} s, {mean(seconds) / first:.3f} of the first")


if __name__ == "__main__":
    main()
