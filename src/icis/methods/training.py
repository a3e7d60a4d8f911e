"""Settings shared by the methods trained by gradient descent on (descriptor, weight) pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from icis.methods.base import Done, Injection, InjectionProblem, Method, Progress, Task

if TYPE_CHECKING:
    from icis.methods.subspace import Subspace

SLOPE_THRESHOLDS = {"cosine": 2e-3, "l2": 2e-6}

Weight = Annotated[float, Field(ge=0)]
"""Weight of a loss term; 0 leaves it out."""


@dataclass(frozen=True)
class Objective:
    """What is trained: the weights of the active loss terms, on which rows, by which networks."""

    losses: dict[str, float]
    use_unseen: bool = False
    """Whether the unseen descriptors are rows, too."""
    depth: int = 2
    subspace: Subspace | None = None
    """Needed by the term ``subspace``."""


class TrainedMethod(Method):
    """Hyperparameters of the training loop; the defaults are the paper's."""

    hidden: Annotated[int, Field(gt=0)] = 2048
    """Size of the latent space, h."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5
    """Of Adam, with betas (0.9, 0.999) and no weight decay."""
    batch_size: Annotated[int, Field(gt=0)] | None = None
    """Rows a batch; by default the data set's."""
    max_epochs: Annotated[int, Field(gt=0)] = 1000
    slope_threshold: Annotated[float, Field(ge=0)] | None = None
    """The slope stop's threshold; by default 2e-3 for the cosine loss, 2e-6 for squared error.
    0 trains until the loss stops falling or ``max_epochs``."""
    distance: Literal["cosine", "l2"]
    """The loss: 1 - cosine, or the squared error averaged over the components."""

    @property
    def threshold(self) -> float:
        """Return the slope stop's threshold in force."""
        if self.slope_threshold is None:
            return SLOPE_THRESHOLDS[self.distance]
        return self.slope_threshold

    @property
    def selection(self) -> str:
        """Say how the number of epochs was selected."""
        return (
            f"slope of the training loss below {self.threshold:g}, at most {self.max_epochs} epochs"
        )

    @property
    def batched(self) -> bool:
        """Whether ``inject_many`` can train this method."""
        return True

    def objective(self, problem: InjectionProblem) -> Objective:
        """Return what is trained on a problem."""
        raise NotImplementedError

    def fit(
        self, problem: InjectionProblem, *, seed: int, device: str, progress: Progress | None = None
    ) -> Injection:
        """Train on the seen pairs and predict [weight, bias] of the unseen classes."""
        from icis.methods.encoders import fit_injection

        objective = self.objective(problem)
        return fit_injection(problem, self, objective, seed=seed, device=device, progress=progress)

    @staticmethod
    def inject_many(
        tasks: Sequence[Task],
        *,
        device: str,
        done: Done,
        progress: Progress | None = None,
        memory: int | None = None,
    ) -> None:
        """Train ICIS, MLP and Sub.Reg. of any settings together."""
        from icis.methods.ensemble import train_together

        train_together(tasks, device=device, done=done, progress=progress, memory=memory)
