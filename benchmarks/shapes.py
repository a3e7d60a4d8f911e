"""The paper's data sets as shapes, and made-up data of these shapes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import normalize

from icis.heads import Head
from icis.methods import InjectionProblem
from icis.metrics import LabelledFeatures


@dataclass(frozen=True)
class Shape:
    """How large a data set is: classes, components of a descriptor, images of each split."""

    name: str
    seen: int
    unseen: int
    components: int
    trainval: int = 0
    test_seen: int = 0
    test_unseen: int = 0
    batch_size: int = 16
    dim: int = 2048
    hidden: int = 2048

    @property
    def seen_classes(self) -> tuple[str, ...]:
        """Return the names of the seen classes."""
        return tuple(f"seen {number}" for number in range(self.seen))

    @property
    def unseen_classes(self) -> tuple[str, ...]:
        """Return the names of the unseen classes."""
        return tuple(f"unseen {number}" for number in range(self.unseen))


CUB = Shape("CUB", 150, 50, 312, 7057, 1764, 2967)
AWA2 = Shape("AWA2", 40, 10, 85, 23527, 5882, 7913, batch_size=20)
SUN = Shape("SUN", 645, 72, 102, 10320, 2580, 1440)
SHAPES = (CUB, AWA2, SUN)


class World:
    """Made-up data of a shape: class means follow from descriptors, images scatter around them."""

    def __init__(self, shape: Shape, *, noise: float = 1.0) -> None:
        self.shape, self.noise = shape, noise
        self.draws = torch.Generator().manual_seed(0)
        classes = shape.seen + shape.unseen
        kept = torch.rand(classes, shape.components, generator=self.draws) < 0.3
        self.descriptors = normalize(self._normal(classes, shape.components).abs() * kept + 1e-3)
        self.means = self.descriptors @ self._normal(shape.components, shape.dim)
        self.means += 0.3 * self._normal(classes, shape.dim)

    def _normal(self, *size: int) -> torch.Tensor:
        return torch.randn(*size, generator=self.draws)

    def images(self, split: str) -> LabelledFeatures:
        """Return features, non-negative like a ResNet's, with their classes: trainval and so on."""
        count = getattr(self.shape, split)
        names = self.shape.unseen_classes if split == "test_unseen" else self.shape.seen_classes
        labels = torch.arange(count) % len(names)
        means = self.means[labels + (self.shape.seen if split == "test_unseen" else 0)]
        vectors = (means + self.noise * self._normal(count, self.shape.dim)).clamp_(min=0)
        return LabelledFeatures(vectors, [names[label] for label in labels.tolist()])

    def problem(self, head: Head | None = None) -> InjectionProblem:
        """Return the task for a seen head; by default for one of centred class means."""
        if head is None:
            rows = 0.02 * (self.means[: self.shape.seen] - self.means.mean(dim=0))
            head = Head(rows, torch.zeros(self.shape.seen), self.shape.seen_classes)
        seen, unseen = self.descriptors.split([self.shape.seen, self.shape.unseen])
        return InjectionProblem(head, seen, unseen, self.shape.unseen_classes)
