"""COSTA: unseen classifiers from co-occurrence with the seen ones (Mensink et al., CVPR 2014)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from icis.errors import IcisError
from icis.methods.base import Injection, InjectionProblem, Method, Progress, combination

SMALLEST_SUM = 1e-6
"""Of the sum of the inner products, relative to the sum of their absolute values."""


class Costa(Method):
    """Sum the seen rows, weighted by the descriptors' inner products divided by their sum."""

    method: Literal["costa"] = "costa"
    epsilon: Annotated[float, Field(ge=0)] = 1e-4
    """Added to the sum of the inner products."""

    def fit(
        self, problem: InjectionProblem, *, seed: int, device: str, progress: Progress | None = None
    ) -> Injection:
        """Return the weighted sums of the seen rows."""
        products = problem.unseen_descriptors.double() @ problem.known_descriptors.double().T
        total = products.sum(dim=1, keepdim=True) + self.epsilon
        magnitude = products.abs().sum(dim=1, keepdim=True)
        vanishing = (total.abs() <= SMALLEST_SUM * magnitude) | (magnitude == 0)
        if vanishing.any():
            row = int(vanishing.squeeze(1).nonzero()[0])
            raise IcisError(
                f"COSTA: the inner products of class {problem.unseen_classes[row]!r} with the seen "
                f"classes sum to {float(total[row] - self.epsilon):.3g}, and their weights are "
                "divided by this sum: use descriptors without negative components, or another "
                "method"
            )
        return combination(problem, products / total)
