"""WAvg: seen classifiers weighted by nearness of descriptors (VGSE, Xu et al., CVPR 2022)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from icis.errors import IcisError
from icis.methods.base import Injection, InjectionProblem, Method, Progress, combination


class Wavg(Method):
    """Sum the seen rows, weighted by exp(-eta · distance of the descriptors), not normalised."""

    method: Literal["wavg"] = "wavg"
    rescale: Literal["none", "gzsl", "transfer"] = "gzsl"
    eta: Annotated[float, Field(ge=0)] = 5.0
    """How fast the weight falls with the Euclidean distance."""

    def fit(
        self, problem: InjectionProblem, *, seed: int, device: str, progress: Progress | None = None
    ) -> Injection:
        """Return the weighted sums of the seen rows."""
        import torch

        # not by the inner products: they lose small distances to rounding
        distance = torch.cdist(
            problem.unseen_descriptors.double(),
            problem.known_descriptors.double(),
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        coefficients = torch.exp(-self.eta * distance)
        gone = (coefficients.float() == 0).all(dim=1)  # float32 is what the head is kept in
        if gone.any():
            row = int(gone.nonzero()[0])
            raise IcisError(
                f"WAvg: the descriptor of class {problem.unseen_classes[row]!r} is "
                f"{float(distance[row].min()):.3g} or more from every seen one, and with eta "
                f"{self.eta:g} all its weights are 0: lower eta, or set normalize: l2 for the "
                "descriptors"
            )
        return combination(problem, coefficients)
