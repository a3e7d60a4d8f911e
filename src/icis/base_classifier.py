"""The seen head ("base classifier"): a linear layer trained on the seen classes' features."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from icis.config import SeenHead
from icis.errors import IcisError
from icis.head_steps import HeadSteps
from icis.heads import Head, check_dim
from icis.metrics import LabelledFeatures, per_class_accuracy
from icis.seeding import derive_seed
from icis.threads import one_thread

if TYPE_CHECKING:
    from icis.methods.base import Progress

INITIAL_STD = 0.02


@dataclass(frozen=True)
class TrainedHead:
    """A seen head with the epoch that was kept and the course of its training."""

    head: Head
    epoch: int
    loss: list[float]
    selection_accuracy: list[float] = field(default_factory=list)
    """Per-class accuracy after each epoch on the images that select; empty for ``last``."""


def full_batches(rows: int, batch_size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield batches that are always full: shuffled order follows shuffled order without a gap.

    A batch that runs over the end of an order is filled from the next one.
    """
    left = torch.empty(0, dtype=torch.long)
    while True:
        while len(left) < batch_size:
            left = torch.cat([left, torch.randperm(rows, generator=generator)])
        yield left[:batch_size]
        left = left[batch_size:]


def train_seen_head(
    trainval: LabelledFeatures,
    recipe: SeenHead,
    *,
    classes: tuple[str, ...],
    seed: int,
    test_seen: LabelledFeatures | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> TrainedHead:
    """Train Linear(D → S) by cross-entropy with Adam; keep the epoch that the recipe selects.

    Weights start from N(0, 0.02²), biases from 0; an epoch is ceil(N / batch) full batches.
    ``test_seen`` is looked at with ``selection: test_seen`` only (the paper's leak).
    """
    x, y, judge = training_images(trainval, recipe, classes, seed, test_seen, device)
    with one_thread():
        return _descend(x, y, recipe, classes, judge, seed, progress)


Images = tuple[torch.Tensor, torch.Tensor]
"""Features [N, D] and columns [N] of their classes."""


def training_images(
    trainval: LabelledFeatures,
    recipe: SeenHead,
    classes: tuple[str, ...],
    seed: int,
    test_seen: LabelledFeatures | None,
    device: str,
) -> tuple[torch.Tensor, torch.Tensor, Images | None]:
    """Return features and columns of the images to learn from, and the images that select."""
    if not trainval.classes:
        raise IcisError("a seen head needs trainval images, there are none")
    x = trainval.vectors.to(device)
    y = trainval.columns(classes).to(device)
    judge = None
    if recipe.selection == "holdout":
        kept, held = stratified_holdout(y, recipe.holdout, seed)
        judge = (x[held], y[held])
        x, y = x[kept], y[kept]
    elif recipe.selection == "test_seen":
        if test_seen is None:
            raise IcisError("selection test_seen needs the test_seen images")
        check_dim(test_seen.vectors, x.shape[1])
        target = test_seen.columns(classes)
        judge = (test_seen.vectors.to(device), target.to(device))
    return x, y, judge


def initial_weight(classes: int, dim: int, seed: int) -> torch.Tensor:
    """Return a seed's initial weight [S, D], N(0, 0.02²)."""
    generator = torch.Generator().manual_seed(derive_seed("seen head weights", seed))
    return torch.empty(classes, dim).normal_(0, INITIAL_STD, generator=generator)


def batches_of(rows: int, batch_size: int, seed: int) -> Iterator[torch.Tensor]:
    """Return a seed's endless batches of row numbers."""
    order = torch.Generator().manual_seed(derive_seed("seen head order", seed))
    return full_batches(rows, batch_size, order)


def _descend(
    x: torch.Tensor,
    y: torch.Tensor,
    recipe: SeenHead,
    classes: tuple[str, ...],
    judge: Images | None,
    seed: int,
    progress: Progress | None,
) -> TrainedHead:
    assert recipe.batch_size is not None, "resolve() fills in the data set's batch size"
    weight = initial_weight(len(classes), x.shape[1], seed).to(x.device)
    bias = torch.zeros(len(classes), device=x.device)
    train_epoch = HeadSteps(weight, bias, recipe.learning_rate)
    batches = batches_of(len(x), recipe.batch_size, seed)
    steps = math.ceil(len(x) / recipe.batch_size)
    course = HeadCourse(judge)
    for epoch in range(1, recipe.epochs + 1):
        rows = torch.stack([next(batches) for _ in range(steps)]).to(x.device)
        course.add(Head(weight, bias, classes), train_epoch(x, y, rows))
        if progress:
            progress(epoch, course.losses[-1])
    return course.trained(Head(weight, bias, classes))


class HeadCourse:
    """The course of a seen head's training, and the best head so far by the images that select."""

    def __init__(self, judge: Images | None) -> None:
        self.judge = judge
        self.losses: list[float] = []
        self.accuracies: list[float] = []
        self.best: tuple[float, int, Head] | None = None

    def add(self, head: Head, loss: float) -> None:
        """Take an epoch's mean loss and the head after it, which goes on changing in place."""
        self.losses.append(loss)
        epoch = len(self.losses)
        if not math.isfinite(loss):
            raise IcisError(f"seen head: the loss became {loss} in epoch {epoch}")
        if self.judge is None:
            return
        features, target = self.judge
        value = per_class_accuracy(head.scores(features).argmax(1).cpu(), target.cpu())
        self.accuracies.append(value)
        if self.best is None or value > self.best[0]:
            self.best = (value, epoch, Head(head.weight.clone(), head.bias.clone(), head.classes))

    def trained(self, head: Head) -> TrainedHead:
        """Return the head that is kept, on the CPU: the best, or the last where nothing selects."""
        if self.best is None:
            return TrainedHead(head.to("cpu"), len(self.losses), self.losses)
        _, epoch, best = self.best
        return TrainedHead(best.to("cpu"), epoch, self.losses, self.accuracies)


def stratified_holdout(
    labels: torch.Tensor, part: float, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Split row numbers into kept and held out.

    Held out is ``part`` of each class, rounded (a half to the even number), at most all but one.
    """
    generator = torch.Generator().manual_seed(derive_seed("holdout", seed))
    kept, held = [], []
    for label in torch.unique(labels):
        rows = (labels == label).nonzero().squeeze(1).cpu()
        rows = rows[torch.randperm(len(rows), generator=generator)]
        count = min(round(part * len(rows)), len(rows) - 1)
        held.append(rows[:count])
        kept.append(rows[count:])
    if not sum(len(rows) for rows in held):
        raise IcisError(f"holding out {part:g} of each class leaves no image to select by")
    return torch.cat(kept).sort().values, torch.cat(held).sort().values
