"""What every injection method has in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from icis.errors import IcisError
from icis.schema import Strict

if TYPE_CHECKING:
    import torch

    from icis.heads import Head
    from icis.scorers import Scorer

Progress = Callable[[int, float], None]
"""Called after every epoch with its number (from 1) and its loss."""


@dataclass(frozen=True)
class InjectionProblem:
    """All that a method may look at: a seen head and the descriptors, never an image.

    ``seen_descriptors`` [S, d] stand in the order of the seen head's rows,
    ``unseen_descriptors`` [U, d] in the order of ``unseen_classes``.
    """

    seen_head: Head
    seen_descriptors: torch.Tensor
    unseen_descriptors: torch.Tensor
    unseen_classes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that every class has one descriptor, and that no class is seen and unseen."""
        seen = self.seen_head.classes
        for kind, classes, descriptors in (
            ("seen", seen, self.seen_descriptors),
            ("unseen", self.unseen_classes, self.unseen_descriptors),
        ):
            if descriptors.ndim != 2 or len(descriptors) != len(classes):
                raise IcisError(
                    f"{len(classes)} {kind} classes need descriptors [{len(classes)}, d], "
                    f"these are {list(descriptors.shape)}"
                )
        dims = self.seen_descriptors.shape[1], self.unseen_descriptors.shape[1]
        if dims[0] != dims[1]:
            raise IcisError(f"seen descriptors have {dims[0]} components, unseen ones {dims[1]}")
        both = sorted({*seen} & {*self.unseen_classes})
        if both:
            raise IcisError(f"{len(both)} classes are seen and unseen, the first is {both[0]!r}")


@dataclass(frozen=True)
class Injection:
    """What a method returns: a scorer of all classes, and optionally one of the unseen alone.

    Without ``unseen`` the scores of the unseen classes are those of ``joint``, restricted.
    ``history`` holds one list a loss term, an entry an epoch.
    """

    joint: Scorer
    unseen: Scorer | None = None
    history: dict[str, list[float]] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """Return the number of epochs trained; 0 for a method without training."""
        return max((len(values) for values in self.history.values()), default=0)


class Method(Strict):
    """The configuration of a method, which also knows how to run it.

    A subclass is one module: its fields are the hyperparameters, ``fit`` the algorithm.
    Modules of methods import torch inside ``fit``, so that reading a configuration stays quick.
    """

    method: str
    name: str = ""
    """Display name in tables and figures; no part of the configuration's identity."""

    def resolve(self, *, batch_size: int) -> Self:
        """Return the method with the data set's batch size where it has none of its own."""
        if getattr(self, "batch_size", 0) is None:
            return self.model_copy(update={"batch_size": batch_size})
        return self

    @property
    def selection(self) -> str:
        """Say how the number of epochs, or the model, was selected."""
        return "no training"

    def fit(
        self, problem: InjectionProblem, *, seed: int, device: str, progress: Progress | None = None
    ) -> Injection:
        """Return scorers for the unseen classes; reads nothing but ``problem``."""
        raise NotImplementedError
