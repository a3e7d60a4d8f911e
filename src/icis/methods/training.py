"""Settings shared by the methods trained by gradient descent on (descriptor, weight) pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from icis.methods.base import Done, Injection, InjectionProblem, Method, Progress, Task

if TYPE_CHECKING:
    from icis.methods.subspace import Subspace

SLOPE_THRESHOLDS = {"cosine": 2e-3, "l2": 2e-6}

FAITHFUL: dict[str, Any] = {
    "learning_rate": 1e-5,
    "batch_size": None,
    "max_epochs": 1000,
    "schedule": "constant",
}
"""The paper's settings (Christensen et al., ICCV 2023)."""
FAST: dict[str, Any] = {
    "learning_rate": 4e-3,
    "batch_size": None,
    "max_epochs": 20,
    "schedule": "one-cycle",
}
"""Chosen once, by class-wise cross-validation over seen classes (docs/methods.md)."""
RECIPES = {"faithful": FAITHFUL, "fast": FAST}

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

    recipe: Literal["faithful", "fast"] = "faithful"
    """Where the settings of the training come from that are not given: ``faithful`` are the
    paper's, and the defaults below; ``fast`` takes a tenth of the time or less."""
    hidden: Annotated[int, Field(gt=0)] = 2048
    """Size of the latent space, h."""
    learning_rate: Annotated[float, Field(gt=0)] = FAITHFUL["learning_rate"]
    """Of Adam, with betas (0.9, 0.999) and no weight decay; the peak of a schedule."""
    batch_size: Annotated[int, Field(gt=0)] | None = FAITHFUL["batch_size"]
    """Rows a batch; by default the data set's."""
    max_epochs: Annotated[int, Field(gt=0)] = FAITHFUL["max_epochs"]
    schedule: Literal["constant", "one-cycle"] = FAITHFUL["schedule"]
    """Of the learning rate. ``one-cycle``: up to its peak over the first 30 % of ``max_epochs``,
    then down to nothing, both along a cosine; all epochs are trained, there is no slope stop."""
    slope_threshold: Annotated[float, Field(ge=0)] | None = None
    """The slope stop's threshold; by default 2e-3 for the cosine loss, 2e-6 for squared error.
    0 trains until the loss stops falling or ``max_epochs``."""
    distance: Literal["cosine", "l2"]
    """The loss: 1 - cosine, or the squared error averaged over the components."""

    @model_validator(mode="before")
    @classmethod
    def _from_recipe(cls, data: Any) -> Any:
        """Take the settings that are not given from the recipe; a wrong name is refused later."""
        name = data.get("recipe") if isinstance(data, dict) else None
        recipe = RECIPES.get(name, {}) if isinstance(name, str) else {}
        return recipe | data if recipe else data

    @model_validator(mode="after")
    def _check_stop(self) -> Self:
        if self.schedule == "one-cycle" and self.slope_threshold is not None:
            raise PydanticCustomError(
                "slope_threshold",
                "slope_threshold has no effect with schedule: one-cycle, which trains all of "
                "max_epochs; leave it out or set schedule: constant",
            )
        return self

    def usual(self, field: str) -> Any:
        """Return what a field is where it is not given: the recipe's, or the default."""
        return RECIPES[self.recipe].get(field, super().usual(field))

    @property
    def threshold(self) -> float:
        """Return the slope stop's threshold in force, -inf for none."""
        if self.schedule == "one-cycle":
            return -math.inf
        if self.slope_threshold is None:
            return SLOPE_THRESHOLDS[self.distance]
        return self.slope_threshold

    @property
    def selection(self) -> str:
        """Say which recipe it is, and how the number of epochs was selected."""
        own = [key for key in RECIPES[self.recipe] if getattr(self, key) != self.usual(key)]
        # resolve() has filled in a batch size that is nobody's choice
        changed = [key for key in own if key != "batch_size" or self.usual(key) is not None]
        recipe = f"{self.recipe} recipe" + (f", but for {', '.join(changed)}" if changed else "")
        if self.schedule == "one-cycle":
            return f"{recipe}: {self.max_epochs} epochs of a one-cycle schedule"
        return (
            f"{recipe}: slope of the training loss below {self.threshold:g}, at most "
            f"{self.max_epochs} epochs"
        )

    @property
    def batched(self) -> bool:
        """Whether ``inject_many`` can train this method: its programs have one learning rate."""
        return self.schedule == "constant"

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
