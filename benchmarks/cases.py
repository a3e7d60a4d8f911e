"""What is measured against the plain implementation, against bare operations, and against a bound.

Each function returns the sides of a case: what is called once a turn.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import torch
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import plain
from benchmarks.shapes import AWA2, CUB, SUN, Shape, World
from benchmarks.turns import Case, Work, epoch_seconds, seconds
from icis.artifacts import vector_column, write_table
from icis.base_classifier import train_seen_head
from icis.config import SeenHead
from icis.datasets.index import Classes
from icis.evaluation import examine
from icis.features import load_features
from icis.heads import Head
from icis.methods import Conse, Costa, Icis, Injection, InjectionProblem, Method, Mlp, Smo, Wavg
from icis.metrics import LabelledFeatures
from icis.scorers import Scorer
from icis.stages.common import denormals_flushed
from icis.threads import in_threads

SEEDS = 5

# --- injection --------------------------------------------------------------------------------


def fixed(method: Method, shape: Shape, epochs: int) -> Method:
    """Return a trained method that ends after a number of epochs (below 26, where the stop may)."""
    update = {"max_epochs": epochs, "slope_threshold": 0.0, "hidden": shape.hidden}
    return method.model_copy(update=update).resolve(batch_size=shape.batch_size)


def our_training(
    method: Method, problem: InjectionProblem, progress: object, *, seed: int = 0
) -> Injection:
    """Inject as the stage does."""
    with denormals_flushed():
        return method.inject(problem, seed=seed, device="cpu", progress=progress)


def plain_training(
    shape: Shape,
    problem: InjectionProblem,
    progress: object,
    *,
    epochs: int,
    objective: plain.Objective | None = None,
    single: bool = False,
    use_unseen: bool = True,
    learning_rate: float = 1e-5,
    seed: int = 0,
) -> torch.Tensor:
    """Train the plain way; return [weight, bias] of the unseen classes. ``single``: an MLP."""
    torch.manual_seed(seed)
    kind = plain.Mlp if single else plain.Networks
    nets = kind(shape.components, shape.dim + 1, shape.hidden)
    targets, unseen = problem.seen_head.joined(), problem.unseen_descriptors
    pairs = plain.Pairs(problem.seen_descriptors, targets, unseen if use_unseen else unseen[:0])
    loader = DataLoader(pairs, batch_size=shape.batch_size, shuffle=True)
    plain.train_networks(
        nets,
        loader,
        objective or plain.Objective(),
        epochs=epochs,
        learning_rate=learning_rate,
        progress=progress,
    )
    return plain.predict(nets, unseen)


def injection(shape: Shape, epochs: int) -> Mapping[str, Work]:
    """Return an epoch of one seed's ICIS, the first one excluded."""
    problem = World(shape).problem()
    method = fixed(Icis(), shape, epochs)
    return {
        "ours": lambda: epoch_seconds(partial(our_training, method, problem)),
        "plain": lambda: epoch_seconds(partial(plain_training, shape, problem, epochs=epochs)),
    }


def seeds_together(shape: Shape, epochs: int) -> Mapping[str, Work]:
    """Return a whole training of a seed among 5, and of one alone: start and prediction too."""
    problem = World(shape).problem()
    method = fixed(Icis(), shape, epochs)

    def train(count: int) -> float:
        return seconds(lambda: our_seeds(method, problem, count)) / count

    return {"ours": lambda: train(SEEDS), "one seed": lambda: train(1)}


def our_seeds(method: Method, problem: InjectionProblem, count: int) -> list[Injection]:
    """Inject with several seeds as the stage does."""
    with denormals_flushed():
        return in_threads(
            lambda seed: method.inject(problem, seed=seed, device="cpu"), range(count), device="cpu"
        )


# --- seen heads -------------------------------------------------------------------------------


def our_heads(shape: Shape, trainval: LabelledFeatures, seeds: int, epochs: int) -> list[Head]:
    """Train several seeds' heads as the stage does."""
    recipe = SeenHead(epochs=epochs).resolve(batch_size=shape.batch_size)

    def train(seed: int) -> Head:
        return train_seen_head(trainval, recipe, classes=shape.seen_classes, seed=seed).head

    with denormals_flushed():
        return in_threads(train, range(seeds), device="cpu")


def plain_head(shape: Shape, trainval: LabelledFeatures, epochs: int, *, seed: int = 0) -> Head:
    """Train a head the plain way."""
    torch.manual_seed(seed)
    head = plain.seen_head(shape.dim, shape.seen)
    labels = trainval.columns(shape.seen_classes)
    batches = plain.FullBatches(len(labels), shape.batch_size)
    data = TensorDataset(trainval.vectors, labels)
    plain.train_head(head, DataLoader(data, batch_sampler=batches), epochs=epochs)
    return Head(head.weight.detach(), head.bias.detach(), shape.seen_classes)


def seen_heads(shape: Shape, seeds: int) -> Mapping[str, Work]:
    """Return an epoch a seed, the preparation counted in; plain seeds all cost the same."""
    trainval = World(shape).images("trainval")
    return {
        "ours": lambda: seconds(lambda: our_heads(shape, trainval, seeds, 1)) / seeds,
        "plain": lambda: seconds(lambda: plain_head(shape, trainval, 1)),
    }


# --- evaluation -------------------------------------------------------------------------------

UNTRAINED = (Conse(), Costa(), Wavg(), Smo(solver="exact"))


def scorers(shape: Shape, seeds: int) -> list[Injection]:
    """Return what the 12 rows of Tables 1 and 2 give for every seed: of one kind what is linear."""
    problem = World(shape).problem()
    brief = [fixed(Icis(), replace(shape, hidden=64), 1), fixed(Mlp(), shape, 1)]
    once = [method.inject(problem, seed=0, device="cpu") for method in (*UNTRAINED, *brief)]
    conse, costa, wavg, smo, icis, mlp = once
    rows = [conse, costa, wavg, smo, smo, *[icis] * 5, *[mlp] * 2]
    return rows * seeds


def evaluation(shape: Shape, seeds: int) -> Mapping[str, Work]:
    """Return the evaluation of all rows and seeds on all test images, a scorer's share of it."""
    world, injections = World(shape), scorers(shape, seeds)
    test_seen, test_unseen = world.images("test_seen"), world.images("test_unseen")
    novel = shape.unseen_classes
    parts = (test_seen.vectors, test_unseen.vectors)

    def ours() -> None:
        for each in injections:
            examine(each.joint, each.unseen or novel, test_seen=test_seen, test_unseen=test_unseen)

    def bare() -> None:
        for each in injections:
            for part in parts:
                _products(each.joint, part)
            if each.unseen is not None:
                _products(each.unseen, test_unseen.vectors)

    def plainly() -> None:  # one seed: the others cost the same
        for each in injections[: len(injections) // seeds]:
            evaluate_plainly(each, novel, test_seen, test_unseen)

    return {
        "ours": lambda: seconds(ours) / len(injections),
        "bare products": lambda: seconds(bare) / len(injections),
        "plain": lambda: seconds(plainly) / (len(injections) // seeds),
    }


def _products(scorer: Scorer, x: torch.Tensor) -> torch.Tensor:
    """Return the scores of images, all at once; of ConSE the seen head's product alone."""
    head = scorer if isinstance(scorer, Head) else scorer.seen_head
    return functional.linear(x, head.weight, head.bias)


def plain_scores(scorer: Scorer) -> plain.Scores:
    """Return a scorer's scores the plain way."""
    if isinstance(scorer, Head):
        return plain.linear(scorer.joined())
    return plain.conse(scorer.seen_head.joined(), scorer.seen_descriptors, scorer.descriptors)


def evaluate_plainly(
    injection: Injection,
    novel: tuple[str, ...],
    test_seen: LabelledFeatures,
    test_unseen: LabelledFeatures,
) -> dict[str, float]:
    """Return T1, U, S and H, in percent."""
    joint, unseen = injection.joint, injection.unseen or injection.joint.restrict(novel)
    images = [(each.vectors, each.columns(joint.classes)) for each in (test_seen, test_unseen)]
    seen = len(joint.classes) - len(novel)
    return plain.evaluate(plain_scores(joint), plain_scores(unseen), seen, *images)


# --- reading ----------------------------------------------------------------------------------


def reading(shape: Shape) -> Mapping[str, Work]:
    """Return reading all features into torch, from files that the page cache holds."""
    folder = tempfile.TemporaryDirectory()

    def path(end: str) -> Path:  # the folder lives as long as a side that reads from it
        return Path(folder.name) / f"features.{end}"

    world = World(shape)
    parts = {split: world.images(split) for split in ("trainval", "test_seen", "test_unseen")}
    vectors = np.concatenate([part.vectors.numpy() for part in parts.values()])
    names = [name for part in parts.values() for name in part.classes]
    splits = [split for split, part in parts.items() for _ in part.classes]
    images = [f"image {number}" for number in range(len(names))]
    frame = pl.DataFrame({"image": images, "class": names, "split": splits}).to_arrow()
    all_classes = shape.seen_classes + shape.unseen_classes
    is_seen = tuple(name in shape.seen_classes for name in all_classes)
    about = {"classes": Classes(all_classes, is_seen).as_metadata()}
    write_table(path("parquet"), frame.append_column("vector", vector_column(vectors)), about)
    np.save(path("npy"), vectors)
    os.sync()  # what is still being written takes the memory's bandwidth

    def ours() -> None:
        torch.from_numpy(load_features(path("parquet")).vectors)

    def bare() -> None:
        torch.from_numpy(np.load(path("npy")))

    return {"ours": lambda: seconds(ours), "np.load": lambda: seconds(bare)}


# --- starting ---------------------------------------------------------------------------------


def starting(*arguments: str) -> Mapping[str, Work]:
    """Return a Python process with arguments, beside one that does nothing."""

    def run(*each: str) -> float:
        command = [sys.executable, *each]
        return seconds(lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True))

    return {"ours": lambda: run(*arguments), "python -c pass": lambda: run("-c", "pass")}


# --- all of them ------------------------------------------------------------------------------

WIDE_SUN = replace(SUN, name="SUN, h 4096", hidden=4096)


def cases(*, quick: bool) -> list[Case]:
    """Return all cases; with ``quick`` of fewer epochs and seeds."""
    epochs = {"CUB": 3, "AWA2": 8, "SUN": 2, "SUN, h 4096": 2}
    shapes = (CUB, AWA2) if quick else (CUB, AWA2, SUN, WIDE_SUN)
    seeds = 1 if quick else SEEDS
    told = f"{seeds} seeds" if seeds > 1 else "one seed"
    found = [
        Case("training", f"ICIS, {shape.name}", "s/epoch",
             partial(injection, shape, epochs[shape.name]),
             "at least", 3, aim=4, warm_up=False, memory=shape is not WIDE_SUN)
        for shape in shapes
    ]  # fmt: skip
    found += [
        Case("training", f"ICIS, CUB, {SEEDS} seeds", "s/seed",
             partial(seeds_together, CUB, 1 if quick else 2), "at most", 1, warm_up=False,
             most_mib=2048)
    ]  # fmt: skip
    found += [
        Case("heads", f"{shape.name}, {told}", "s/epoch and seed",
             partial(seen_heads, shape, seeds), "at least", 2.5, aim=5, warm_up=False)
        for shape in ((CUB, AWA2) if quick else (CUB, AWA2, SUN))
    ]  # fmt: skip
    found += [
        Case("evaluation", f"AWA2, 12 rows, {told}", "s/scorer",
             partial(evaluation, AWA2, seeds), "at most", 2),
        Case("reading", "AWA2", "s", partial(reading, AWA2), "at most", 1.5, often=5),
        Case("starting", "import icis", "s", partial(starting, "-c", "import icis"),
             "seconds", 0.3, memory=False),
        Case("starting", "icis --help", "s", partial(starting, "-m", "icis", "--help"),
             "seconds", 0.3, memory=False),
    ]  # fmt: skip
    return found
