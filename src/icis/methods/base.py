"""What every injection method has in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from icis.errors import IcisError
from icis.schema import Strict

if TYPE_CHECKING:
    import torch

    from icis.heads import Head
    from icis.scorers import Scorer

Progress = Callable[[int, float], None]
"""Called after every epoch with its number (from 1) and its loss."""
Done = Callable[["Task", "Injection | Exception"], None]
"""Called with what became of a task, as soon as it is known."""


@dataclass(frozen=True)
class InjectionProblem:
    """All that a method may look at: a seen head and the descriptors, never an image.

    ``seen_descriptors`` [S, d] stand in the order of the seen head's rows,
    ``unseen_descriptors`` [U, d] in the order of ``unseen_classes``. ``pairs`` are the rows of
    the seen head that a method learns from, None means all; the joint scorer keeps every row.
    ``truth`` holds the true rows of classes that are only treated as unseen: methods record how
    far from it they are, and learn nothing from it.
    """

    seen_head: Head
    seen_descriptors: torch.Tensor
    unseen_descriptors: torch.Tensor
    unseen_classes: tuple[str, ...]
    pairs: tuple[int, ...] | None = None
    truth: Head | None = None

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
        if self.truth is not None and self.truth.classes != self.unseen_classes:
            raise IcisError("the true rows must be those of the unseen classes, in their order")

    @property
    def known_head(self) -> Head:
        """Return the rows of the seen head that a method learns from, [P, D] and [P]."""
        if self.pairs is None:
            return self.seen_head
        return self.seen_head.restrict(tuple(self.seen_head.classes[row] for row in self.pairs))

    @property
    def known_descriptors(self) -> torch.Tensor:
        """Return the descriptors [P, d] of ``known_head``."""
        return self.seen_descriptors if self.pairs is None else self.seen_descriptors[[*self.pairs]]


@dataclass(frozen=True)
class Injection:
    """What a method returns: a scorer of all classes, and optionally one of the unseen alone.

    Without ``unseen`` the scores of the unseen classes are those of ``joint``, restricted.
    ``history`` holds one list a loss term, an entry an epoch.
    """

    joint: Scorer
    unseen: Scorer | None = None
    history: dict[str, list[float]] = field(default_factory=dict)
    seen_predictions: torch.Tensor | None = None
    """[P, D + 1], what the trained network predicts for the known classes' own descriptors."""

    @property
    def epochs(self) -> int:
        """Return the number of epochs trained; 0 for a method without training."""
        return max((len(values) for values in self.history.values()), default=0)


def combination(problem: InjectionProblem, coefficients: torch.Tensor) -> Injection:
    """Return unseen rows that are sums of the known ones, weighted by coefficients [U, P]."""
    from icis.heads import Head

    known = problem.known_head.joined()
    # in double precision: coefficients may be tiny, or large and of opposite signs
    rows = (coefficients.double() @ known.double()).to(known.dtype)
    return Injection(problem.seen_head.append(Head.from_joined(rows, problem.unseen_classes)))


class Method(Strict):
    """The configuration of a method, which also knows how to run it.

    A subclass is one module: its fields are the hyperparameters, ``fit`` the algorithm.
    Modules of methods import torch inside ``fit``, so that reading a configuration stays quick.
    """

    method: str
    name: str = ""
    """Display name in tables and figures; no part of the configuration's identity."""
    rescale: Literal["none", "gzsl", "transfer"] = "none"
    """What is done to the predicted rows. ``gzsl``: in the joint head they are divided by 10 times
    their mean norm. ``transfer``: weights get the seen head's mean row norm, biases the norm of its
    bias vector, in both scorers."""
    linear: ClassVar[bool] = True
    """Whether the scorers are linear heads."""
    side_by_side: ClassVar[bool] = True
    """Whether seeds run at once on the CPU, a thread each: not where large products fill all cores,
    and tensors the memory."""

    @model_validator(mode="after")
    def _check_rescale(self) -> Self:
        if self.rescale != "none" and not self.linear:
            raise PydanticCustomError(
                "rescale",
                "{method} predicts no classifier weights that rescale: {rescale} could change: "
                "set rescale: none",
                {"method": self.method, "rescale": self.rescale},
            )
        return self

    def resolve(self, *, batch_size: int) -> Self:
        """Return the method with the data set's batch size where it has none of its own."""
        if getattr(self, "batch_size", 0) is None:
            return self.model_copy(update={"batch_size": batch_size})
        return self

    @property
    def selection(self) -> str:
        """Say how the number of epochs, or the model, was selected."""
        return "no training"

    @property
    def batched(self) -> bool:
        """Whether ``inject_many`` is there, for tasks of all methods that have the same one."""
        return False

    @staticmethod
    def inject_many(
        tasks: Sequence[Task],
        *,
        device: str,
        done: Done,
        progress: Progress | None = None,
        memory: int | None = None,
    ) -> None:
        """Do many tasks as one program, which pays on a GPU, and hand over each when it is done.

        ``memory``: bytes that may be used, by default most of what is free. A task that fails hands
        over its error and leaves the others running. Numbers are those of ``inject``, up to
        rounding.
        """
        raise NotImplementedError

    def inject(
        self, problem: InjectionProblem, *, seed: int, device: str, progress: Progress | None = None
    ) -> Injection:
        """Run the method, then rescale what it predicted."""
        injection = self.fit(problem, seed=seed, device=device, progress=progress)
        return self.rescaled(injection, problem)

    def rescaled(self, injection: Injection, problem: InjectionProblem) -> Injection:
        """Return an injection with the predicted rows rescaled as ``rescale`` says."""
        if self.rescale == "none":
            return injection
        from icis.rescaling import rescaled

        return rescaled(injection, problem, self.rescale)

    def fit(
        self, problem: InjectionProblem, *, seed: int, device: str, progress: Progress | None = None
    ) -> Injection:
        """Return scorers for the unseen classes, as predicted; reads nothing but ``problem``."""
        raise NotImplementedError

    @property
    def base_method(self) -> Method | None:
        """Return the method whose predictions this one refines, None for most methods."""
        return None

    def refined(
        self,
        problem: InjectionProblem,
        base: Injection,
        *,
        seed: int,
        device: str,
        progress: Progress | None = None,
    ) -> Injection:
        """Return what ``fit`` returns, from what ``base_method.fit`` returned."""
        raise NotImplementedError


@dataclass(frozen=True)
class Task:
    """A method to run on a problem with a seed."""

    method: Method
    problem: InjectionProblem
    seed: int
    label: str = ""
    """What it is called where it is spoken of."""
