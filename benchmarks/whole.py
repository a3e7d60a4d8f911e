"""Tables 1 and 2 from features: what all of it takes, extrapolated from a few epochs of each part.

12 rows, 5 seeds and 100 epochs of the seen head on each of CUB, AWA2 and SUN, latent space 2048.
The rows' numbers of epochs are those counted on real features (docs/real-data.md; Sub.Reg. has
none there and gets the MLP's; the graph network 30, its cap there). ConSE, COSTA, WAvg and the
exact SMO are the package's own on both sides. Reading features is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from benchmarks import plain, plain_graph
from benchmarks.cases import (
    SEEDS,
    evaluate_plainly,
    fixed,
    our_heads,
    our_training,
    plain_head,
    plain_training,
)
from benchmarks.shapes import AWA2, SHAPES, Shape, World
from benchmarks.turns import Work, epoch_seconds, seconds, spread, take_turns
from icis.evaluation import examine
from icis.methods import (
    Conse,
    Costa,
    Icis,
    Injection,
    InjectionProblem,
    Method,
    Mlp,
    Smo,
    SubReg,
    Wavg,
    Wdae,
)
from icis.stages.common import denormals_flushed
from icis.threads import in_threads

HEAD_EPOCHS = 100
GRAPH_EPOCHS = 30
GRAPH = "wDAE's graph network"
SHARE = 10
"""Of the unseen classes, one in so many is solved by the plain SMO."""
ROWS = 12
TARGET = 3
"""How many times as fast as plain code all of it should be."""


@dataclass(frozen=True)
class Row:
    """A trained row: ours, its number of epochs, and the plain one's objective."""

    method: Method
    epochs: int
    terms: tuple[str, ...] = plain.ALL_TERMS
    settings: Mapping[str, Any] = field(default_factory=dict)

    def plainly(self, shape: Shape, problem: InjectionProblem) -> Callable[..., torch.Tensor]:
        """Return the plain training, which takes ``progress`` and ``epochs``."""
        span = problem.seen_head.joined() if isinstance(self.method, SubReg) else None
        distance = plain.cosine if self.method.distance == "cosine" else plain.squared
        objective = plain.Objective(self.terms, distance, span)
        return partial(plain_training, shape, problem, objective=objective, **self.settings)


ALONE = {"single": True, "use_unseen": False}
SEEN_ONLY = {"use_unseen": False}
TRAINED = {
    "MLP": Row(Mlp(), 447, ("a2w",), ALONE),
    "Sub.Reg.": Row(SubReg(), 447, ("a2w",), ALONE),
    "+ cosine loss": Row(Mlp(distance="cosine"), 173, ("a2w",), ALONE),
    "+ single-modal": Row(
        Icis(losses={"w2a": 0}, unseen_descriptors=False), 271, ("a2a", "w2w", "a2w"), SEEN_ONLY
    ),
    "+ cross-modal": Row(Icis(unseen_descriptors=False), 312, settings=SEEN_ONLY),
    "ICIS": Row(Icis(), 286),
}
UNTRAINED = {"ConSE": Conse(), "COSTA": Costa(), "WAvg": Wavg(), "SMO, exact": Smo(solver="exact")}


def extrapolated(train: Callable[[Any], object], epochs: int, *, at_once: int = 1) -> float:
    """Return the seconds a seed of a training of ``epochs`` from a few; the first counts once.

    ``at_once`` seeds are trained side by side, as the stage does.
    """
    ends: list[float] = []

    def work(seed: int) -> None:
        train((lambda epoch, loss: ends.append(time.perf_counter())) if seed == 0 else None)

    with denormals_flushed():
        taken = seconds(lambda: in_threads(work, range(at_once), device="cpu"))
    epoch = (ends[-1] - ends[0]) / (len(ends) - 1)
    return (taken + (epochs - len(ends)) * epoch) / at_once


def parts(shape: Shape) -> dict[str, dict[str, Work]]:
    """Return each part's seconds a seed, ours and plain."""
    world, at_once = World(shape), torch.get_num_threads()
    problem, trainval = world.problem(), world.images("trainval")
    found: dict[str, dict[str, Work]] = {
        "seen head": {
            "ours": lambda: (
                HEAD_EPOCHS * seconds(lambda: our_heads(shape, trainval, at_once, 1)) / at_once
            ),
            "plain": lambda: HEAD_EPOCHS * seconds(lambda: plain_head(shape, trainval, 1)),
        }
    }
    few = 6 if shape is AWA2 else 2
    for name, row in TRAINED.items():
        ours = partial(our_training, fixed(row.method, shape, few), problem)
        theirs = partial(row.plainly(shape, problem), epochs=few)
        found[name] = {
            "ours": partial(extrapolated, ours, row.epochs, at_once=at_once),
            "plain": partial(extrapolated, theirs, row.epochs),
        }
    found["SMO"] = {
        "ours": lambda: seconds(lambda: our_training(Smo(solver="descent"), problem, None)),
        "plain": lambda: plain_smo(problem),
    }
    found[GRAPH] = {
        "ours": lambda: GRAPH_EPOCHS * our_graph_step(shape, problem),
        "plain": lambda: GRAPH_EPOCHS * plain_graph_step(problem),
    }
    return found | {"evaluation": _evaluation(shape, world, problem)}


def our_graph_step(shape: Shape, problem: InjectionProblem) -> float:
    """Return the seconds of a step of wDAE's graph network, after an epoch of the MLP."""
    graph = Wdae(mlp=Mlp(max_epochs=1), max_epochs=2).resolve(batch_size=shape.batch_size)
    # the base's epoch and the graph's first one are the warm-up
    return epoch_seconds(partial(our_training, graph, problem), skip=2)


def plain_graph_step(problem: InjectionProblem) -> float:
    """Return the seconds of a step of the plain graph network."""
    clean = problem.known_head.joined()
    network = plain_graph.Graph(clean.shape[1])

    def train(progress: plain.Progress) -> object:
        return plain_graph.train_graph(network, clean, clean + 0.1, epochs=2, progress=progress)

    return epoch_seconds(train)


def plain_smo(problem: InjectionProblem) -> float:
    """Return the seconds of the published descent, one unseen class after another.

    In double precision, as ours: it counts changes of 1e-7. Every tenth class stands for ten.
    """
    seen, unseen = problem.known_descriptors.double(), problem.unseen_descriptors.double()
    draws = torch.Generator().manual_seed(0)
    some = unseen[::SHARE]

    def descend() -> None:
        for point in some:
            start = torch.randn(len(seen), generator=draws, dtype=torch.float64) * (2 / len(seen))
            plain.descend_simplex(seen, point, start)

    return seconds(descend) * len(unseen) / len(some)


def _evaluation(shape: Shape, world: World, problem: InjectionProblem) -> dict[str, Work]:
    """Return the evaluation of a seed's rows: ConSE, 3 with an own unseen scorer, 8 without."""
    kinds = {1: Conse(), 3: Wavg(), 8: Costa()}
    made = {n: each.inject(problem, seed=0, device="cpu") for n, each in kinds.items()}
    images = {split: world.images(split) for split in ("test_seen", "test_unseen")}
    novel = shape.unseen_classes

    def ours(each: Injection) -> None:
        examine(each.joint, each.unseen or novel, **images)

    def plainly(each: Injection) -> None:
        evaluate_plainly(each, novel, **images)

    def all_rows(judge: Callable[[Injection], None]) -> float:
        return sum(n * seconds(partial(judge, each)) for n, each in made.items())

    return {"ours": partial(all_rows, ours), "plain": partial(all_rows, plainly)}


def same_parts(shape: Shape) -> dict[str, float]:
    """Return the seconds a seed of what is the package's own on both sides."""
    problem = World(shape).problem()
    return {
        name: seconds(partial(our_training, method, problem, None))
        for name, method in UNTRAINED.items()
    }


def measure_tables(rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Return each part's seconds a seed, and hours and ratios of all of it."""
    measured: dict[str, Any] = {}
    for shape in SHAPES:
        measured[shape.name] = {}
        for name, sides in parts(shape).items():
            tell(f"tables: {shape.name}, {name}")
            measured[shape.name][name] = take_turns(sides, rounds, warm_up=False)
        tell(f"tables: {shape.name}, what is the same on both sides")
        for name, value in same_parts(shape).items():
            measured[shape.name][name] = {side: [value] * rounds for side in ("ours", "plain")}
    epochs = {name: row.epochs for name, row in TRAINED.items()}
    return {"rounds": rounds, "target": TARGET, "epochs": epochs, "seconds_a_seed": measured,
            "hours": totals(measured, rounds)}  # fmt: skip


def totals(measured: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Return hours of ours and plain and their ratio: all, without the graph network, unshared.

    Both sides are taken to train the seen head once a seed, ICIS once for both tables, and wDAE's
    MLP apart from the row MLP. In the last total ours trains this MLP once, as it does, and the
    plain side shares nothing, as programs that make one row of one table do.
    """

    def hours(side: str, turn: int, counts: Mapping[str, int]) -> float:
        each = [
            counts.get(name, 1) * sides[side][turn]
            for parts in measured.values()
            for name, sides in parts.items()
        ]
        return SEEDS * sum(each) / 3600

    twice = {"MLP": 2}
    kinds = {
        "all": (twice, twice),
        "all but the graph network": ({**twice, GRAPH: 0},) * 2,
        "all, nothing shared by plain": ({}, {**twice, "seen head": ROWS, "ICIS": 2}),
    }
    found = {}
    for kind, (ours, theirs) in kinds.items():
        mine = [hours("ours", turn, ours) for turn in range(rounds)]
        plainly = [hours("plain", turn, theirs) for turn in range(rounds)]
        ratios = [p / o for p, o in zip(plainly, mine, strict=True)]
        found[kind] = {"ours": spread(mine), "plain": spread(plainly), "ratio": spread(ratios)}
    return found
