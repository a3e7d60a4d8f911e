"""Accuracies over classes, and the labelled features that they are measured on.

Apart from evaluation, because the selection of seen heads and backbones measures them too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch

from icis.errors import IcisError
from icis.heads import class_rows


@dataclass(frozen=True)
class LabelledFeatures:
    """Features [N, D] of test images with the class name of each."""

    vectors: torch.Tensor
    classes: list[str]

    def __post_init__(self) -> None:
        """Check that every image has a label."""
        if len(self.vectors) != len(self.classes):
            raise IcisError(f"{len(self.vectors)} features do not fit {len(self.classes)} labels")

    @cached_property
    def _labels(self) -> tuple[tuple[str, ...], torch.Tensor]:
        """Return the classes in order of appearance and the number of each image's, [N]."""
        number: dict[str, int] = {}
        labels = [number.setdefault(name, len(number)) for name in self.classes]
        return tuple(number), torch.tensor(labels, dtype=torch.long)

    def columns(self, classes: tuple[str, ...]) -> torch.Tensor:
        """Return the column of each image's class [N]; a class without one is named."""
        distinct, labels = self._labels
        return torch.tensor(class_rows(classes, distinct), dtype=torch.long)[labels]

    def of_classes(self, classes: Iterable[str]) -> LabelledFeatures:
        """Return the images of some classes."""
        wanted = set(classes)
        if wanted.issuperset(self.classes):  # as nearly always: nothing is copied
            return self
        kept = [row for row, name in enumerate(self.classes) if name in wanted]
        return LabelledFeatures(self.vectors[kept], [self.classes[row] for row in kept])


def per_class_accuracy(predicted: torch.Tensor, target: torch.Tensor) -> float:
    """Return the mean over the classes in ``target`` of each one's accuracy, in percent.

    Every class weighs the same, however many images it has (Xian et al., 2018).
    """
    if predicted.shape != target.shape or not len(target):
        raise IcisError(f"{len(predicted)} predictions do not fit {len(target)} labels")
    count, right = class_counts(predicted, target)
    present = count > 0
    return float((right[present] / count[present]).mean() * 100)


def class_counts(predicted: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return how many images each column has [C], and how many of them are predicted right [C]."""
    count = target.bincount()
    return count, target[predicted == target].bincount(minlength=len(count)).double()


def harmonic_mean(seen: float, unseen: float) -> float:
    """Return H = 2·S·U / (S + U), 0 where both are 0."""
    return 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0
