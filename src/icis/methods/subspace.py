"""The span of the known classes' weights, and how far from it predictions are.

Subspace regularisation: Akyürek et al., "Subspace Regularizers for Few-Shot Class Incremental
Learning" (ICLR 2022), as the ICIS paper adapts it to descriptors (PAPER: Baselines).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from icis.errors import IcisError


@dataclass(frozen=True)
class Subspace:
    """An orthonormal ``basis`` [D + 1, k] and how the rows of a batch are taken together.

    ``rows``: the mean of the rows' distances; ``batch``: the Frobenius norm of all residuals.
    """

    basis: torch.Tensor
    over: Literal["rows", "batch"]

    def to(self, device: str) -> Subspace:
        """Return the subspace on another device."""
        return Subspace(self.basis.to(device), self.over)

    def distance(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the unsquared distance of rows [N, D + 1] to their projections."""
        residual = rows - (rows @ self.basis) @ self.basis.t()
        norms: torch.Tensor = torch.linalg.vector_norm(residual, dim=1)
        return norms.mean() if self.over == "rows" else torch.linalg.vector_norm(residual)


def span(
    weights: torch.Tensor, *, over: Literal["rows", "batch"], rank: int | None = None, instead: str
) -> Subspace:
    """Return the span of weights [P, D + 1], or of their first ``rank`` principal directions.

    The directions are the right singular vectors of the weights as they are, not centred: the
    span contains 0. All of them span what QR gives, and only what the rows span if those are
    linearly dependent. ``instead`` says what to do where the span would be everything.
    """
    known, dim = weights.shape
    if rank is not None and rank > known:
        raise IcisError(
            f"rank is {rank}, but only {known} classes are known: give a rank of at most {known}"
        )
    _, sizes, directions = torch.linalg.svd(weights.double(), full_matrices=False)
    tolerance = sizes[0] * max(known, dim) * torch.finfo(torch.float64).eps
    independent = int((sizes > tolerance).sum())
    if independent == 0:
        raise IcisError(
            f"the weights of all {known} known classes are 0 and span nothing: "
            "check the seen head, or leave out the distance to their span"
        )
    if rank is not None and rank > independent:
        raise IcisError(
            f"rank is {rank}, but the weights of the {known} known classes span only "
            f"{independent} directions: give a rank of at most {independent}"
        )
    kept = independent if rank is None else rank
    if kept >= dim:
        raise IcisError(
            f"the {known} known classes span all {dim} dimensions of [weight, bias], "
            f"so that every prediction lies in their span: {instead}"
        )
    return Subspace(directions[:kept].t().to(weights.dtype).contiguous(), over)
