"""SMO: the convex combination nearest to an unseen descriptor (VGSE, Xu et al., CVPR 2022)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from icis.errors import IcisError
from icis.methods.base import Injection, InjectionProblem, Method, Progress, combination

if TYPE_CHECKING:
    import torch

MAX_STEPS = 100_000
LEARNING_RATE = 1000.0
SMALLEST_CHANGE = 1e-7
PATIENCE = 11


class Smo(Method):
    """Sum the seen rows with the weights, of sum 1, that best rebuild the unseen descriptor."""

    method: Literal["smo"] = "smo"
    rescale: Literal["none", "gzsl", "transfer"] = "gzsl"
    solver: Literal["exact", "descent"] = "exact"
    """``exact``: the optimum on the simplex. ``descent``: gradient descent over a softmax from a
    random start, as published."""
    max_steps: Annotated[int, Field(gt=0)] = MAX_STEPS
    """Of the descent."""

    @model_validator(mode="after")
    def _check_steps(self) -> Smo:
        if self.solver == "exact" and self.max_steps != MAX_STEPS:
            raise PydanticCustomError(
                "max_steps", "max_steps is the descent's: leave it out, or set solver: descent"
            )
        return self

    @property
    def selection(self) -> str:
        """Say what ended the search for the weights."""
        if self.solver == "exact":
            return "no training"
        return (
            f"descent ended by {PATIENCE} counts of a change of the squared error below "
            f"{SMALLEST_CHANGE:g} or of no improvement, at most {self.max_steps} steps"
        )

    def fit(
        self, problem: InjectionProblem, *, seed: int, device: str, progress: Progress | None = None
    ) -> Injection:
        """Return the convex combinations of the seen rows."""
        seen, unseen = problem.known_descriptors.double(), problem.unseen_descriptors.double()
        if self.solver == "exact":
            return combination(problem, nearest_in_hull(seen, unseen))
        return combination(problem, descend(seen, unseen, seed=seed, max_steps=self.max_steps))


def nearest_in_hull(corners: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return the weights p [N, S] on the simplex with the least ‖p · corners - point‖².

    Since the weights sum to 1, it is ‖p · B‖² with B = corners - point. The y ≥ 0 with the least
    ‖y · B‖² + (sum of y - 1)² is a multiple of such a p: for y = t · p that is
    t² ‖p · B‖² + (t - 1)², whose minimum over t, at 1 / (1 + ‖p · B‖²) > 0, grows with ‖p · B‖².
    So it is non-negative least squares, without a penalty to choose.
    """
    import numpy as np
    import torch
    from scipy.optimize import nnls

    found = np.empty((len(points), len(corners)))
    for row, point in enumerate(points):
        offsets = (corners - point).numpy()
        # so that ‖p · B‖ is at most 1, and t at least 1/2
        scale = np.linalg.norm(offsets, axis=1).max() or 1.0
        matrix = np.vstack([offsets.T / scale, np.ones(len(corners))])
        target = np.append(np.zeros(points.shape[1]), 1.0)
        try:
            weights, _ = nnls(matrix, target, maxiter=10 * max(matrix.shape))
        except RuntimeError as error:
            raise IcisError(
                f"SMO: the exact solver gave up ({error}): set solver: descent"
            ) from error
        found[row] = weights / weights.sum()
    return torch.from_numpy(found)


def descend(
    corners: torch.Tensor, points: torch.Tensor, *, seed: int, max_steps: int
) -> torch.Tensor:
    """Return softmax(r) [N, S] after gradient descent on the mean squared error of each point.

    Every point stops on its own, at its 11th count of a change below 1e-7 or of no improvement on
    its best.
    """
    import torch

    from icis.seeding import derive_seed

    generator = torch.Generator().manual_seed(derive_seed("smo start", seed))
    shape = len(points), len(corners)
    r = torch.randn(shape, generator=generator, dtype=torch.float64) * (2 / len(corners))
    best = torch.full((len(points),), torch.inf, dtype=torch.float64)
    last, counts = best.clone(), torch.zeros(len(points), dtype=torch.int64)
    going = torch.arange(len(points))
    for _ in range(max_steps):
        p = r[going].softmax(dim=1)
        error = p @ corners - points[going]
        loss = error.square().mean(dim=1)
        counts[going] += ((last[going] - loss).abs() < SMALLEST_CHANGE) | (loss >= best[going])
        last[going], best[going] = loss, torch.minimum(best[going], loss)
        slope = error @ corners.T * (2 / points.shape[1])
        step = p * (slope - (p * slope).sum(dim=1, keepdim=True))
        r[going] -= LEARNING_RATE * step
        going = going[counts[going] < PATIENCE]
        if not len(going):
            break
    return r.softmax(dim=1)
