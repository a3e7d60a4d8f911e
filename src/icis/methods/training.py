"""Settings shared by the methods trained by gradient descent on (descriptor, weight) pairs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from icis.methods.base import Method

SLOPE_THRESHOLDS = {"cosine": 2e-3, "l2": 2e-6}

Weight = Annotated[float, Field(ge=0)]
"""Weight of a loss term; 0 leaves it out."""


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
