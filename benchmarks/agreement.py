"""That both sides get the same metrics: seen head and ICIS on a small problem, several seeds each.

Each side draws its own weights and orders, so they agree within the noise of seeds only;
tests/test_plain.py gives both the same and compares to 1e-5.
"""

from __future__ import annotations

import math
from statistics import fmean, stdev
from typing import Any

from benchmarks.cases import (
    SEEDS,
    evaluate_plainly,
    fixed,
    our_heads,
    our_training,
    plain_head,
    plain_training,
)
from benchmarks.shapes import Shape, World
from icis.evaluation import evaluate
from icis.heads import Head
from icis.methods import Icis, Injection

SHAPE = Shape("small", 40, 10, 32, 1200, 800, 800, dim=128, hidden=256)
HEAD_EPOCHS, EPOCHS, RATE = 20, 25, 1e-3


def measure_agreement() -> dict[str, Any]:
    """Return mean and standard deviation of T1, U, S, H on both sides, and how far they are."""
    world = World(SHAPE, noise=2.5)
    trainval = world.images("trainval")
    images = {split: world.images(split) for split in ("test_seen", "test_unseen")}
    method = fixed(Icis(learning_rate=RATE), SHAPE, EPOCHS)
    ours, theirs = [], []
    for seed, head in enumerate(our_heads(SHAPE, trainval, SEEDS, HEAD_EPOCHS)):
        injection = our_training(method, world.problem(head), None, seed=seed)
        ours.append(evaluate(injection.joint, SHAPE.unseen_classes, **images))
    for seed in range(SEEDS):
        problem = world.problem(plain_head(SHAPE, trainval, HEAD_EPOCHS, seed=seed))
        rows = plain_training(SHAPE, problem, None, epochs=EPOCHS, learning_rate=RATE, seed=seed)
        predicted = Head.from_joined(rows, SHAPE.unseen_classes)
        injection = Injection(problem.seen_head.append(predicted))
        theirs.append(evaluate_plainly(injection, SHAPE.unseen_classes, **images))
    return {
        metric: compared([each[metric] for each in ours], [each[metric] for each in theirs])
        for metric in theirs[0]
    }


def compared(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Return mean and deviation of two samples, and the difference in its standard errors."""
    sides = {
        name: {"mean": fmean(values), "std": stdev(values), "values": values}
        for name, values in (("ours", ours), ("plain", theirs))
    }
    variance = sum(side["std"] ** 2 / len(side["values"]) for side in sides.values())
    apart = sides["ours"]["mean"] - sides["plain"]["mean"]
    return {**sides, "standard_errors": apart / math.sqrt(variance) if variance else math.nan}
