"""The seen heads of several seeds as one program, for a GPU: one head leaves it idle.

Each has the initial weights and the batches that it has alone (``base_classifier``); numbers differ
by rounding only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from icis.base_classifier import (
    HeadCourse,
    TrainedHead,
    batches_of,
    initial_weight,
    training_images,
)
from icis.config import SeenHead
from icis.errors import IcisError
from icis.heads import Head
from icis.metrics import LabelledFeatures
from icis.stacked import StackedParameter, Step, adam_step, repeated

if TYPE_CHECKING:
    from icis.methods.base import Progress

STEPS = 512
"""Steps whose row numbers go to the device at once."""


def train_seen_heads(
    trainval: LabelledFeatures,
    recipe: SeenHead,
    *,
    classes: tuple[str, ...],
    seeds: Sequence[int],
    test_seen: LabelledFeatures | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[int, TrainedHead | IcisError]:
    """Train the heads of different seeds together; see ``train_seen_head`` for each.

    A seed whose loss is no number any more gives its error and leaves the others running.
    """
    # on the device already, features are shared by all seeds
    trainval = LabelledFeatures(trainval.vectors.to(device), trainval.classes)
    if test_seen is not None:
        test_seen = LabelledFeatures(test_seen.vectors.to(device), test_seen.classes)
    images = [training_images(trainval, recipe, classes, s, test_seen, device) for s in seeds]
    program = _Program([(x, y) for x, y, _ in images], recipe, classes, seeds, device)
    courses = {seed: HeadCourse(judge) for seed, (_, _, judge) in zip(seeds, images, strict=True)}
    found: dict[int, TrainedHead | IcisError] = {}
    step = repeated(program.step, device)
    for epoch in range(1, recipe.epochs + 1):
        losses = program.epoch(step)
        for number, (seed, course) in enumerate(courses.items()):
            if seed in found:
                continue
            try:
                course.add(program.head(number), losses[number])
            except IcisError as error:
                found[seed] = error
        if progress:
            progress(epoch, losses[0])
    for number, (seed, course) in enumerate(courses.items()):
        found.setdefault(seed, course.trained(program.head(number)))
    return found


class _Program:
    """Heads that take their steps together: weight [M, S, D], bias [M, 1, S]."""

    def __init__(
        self,
        images: Sequence[tuple[torch.Tensor, torch.Tensor]],
        recipe: SeenHead,
        classes: tuple[str, ...],
        seeds: Sequence[int],
        device: str,
    ) -> None:
        assert recipe.batch_size is not None, "resolve() fills in the data set's batch size"
        self.images, self.classes, self.device = images, classes, device
        self.learning_rate = recipe.learning_rate
        rows, dim = images[0][0].shape
        self.steps = math.ceil(rows / recipe.batch_size)
        self.batches = [batches_of(rows, recipe.batch_size, seed) for seed in seeds]
        start = torch.stack([initial_weight(len(classes), dim, seed) for seed in seeds])
        self.weight = StackedParameter(start.to(device))
        bias = torch.zeros(len(seeds), 1, len(classes), device=device)
        self.bias = StackedParameter(bias)
        self.total = torch.zeros(len(seeds), dtype=torch.float64, device=device)

    def epoch(self, step: Step) -> list[float]:
        """Train an epoch by ``step`` and return each head's mean loss."""
        self.total.zero_()
        for first in range(0, self.steps, STEPS):
            count = min(STEPS, self.steps - first)
            drawn = [torch.stack([next(own) for _ in range(count)]) for own in self.batches]
            for rows in torch.stack(drawn, 1).to(self.device):
                step(rows)
        found: list[float] = (self.total / self.steps).tolist()
        return found

    def head(self, number: int) -> Head:
        """Return a head, a view of what goes on changing."""
        weight, bias = self.weight.value.detach(), self.bias.value.detach()
        return Head(weight[number], bias[number, 0], self.classes)

    @torch.no_grad()
    def step(self, rows: torch.Tensor) -> None:
        """Take a step on rows [M, B]; the gradient is written down, as ``base_classifier``'s is."""
        x = torch.stack([x[own] for (x, _), own in zip(self.images, rows, strict=True)])
        y = torch.stack([y[own] for (_, y), own in zip(self.images, rows, strict=True)])[..., None]
        scores = torch.baddbmm(self.bias.value, x, self.weight.value.transpose(1, 2))
        log_p = scores.log_softmax(dim=2)
        self.total -= log_p.gather(2, y).mean(dim=(1, 2))
        delta = log_p.exp_().scatter_add_(2, y, torch.full_like(log_p[..., :1], -1))
        delta /= rows.shape[1]
        self.weight.value.grad = delta.transpose(1, 2) @ x
        self.bias.value.grad = delta.sum(dim=1, keepdim=True)
        adam_step([self.weight, self.bias], self.learning_rate)
