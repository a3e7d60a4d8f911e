"""Sub.Reg.: the MLP, kept near the span of the known weights (Akyürek et al., ICLR 2022)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from icis.methods.base import InjectionProblem
from icis.methods.training import Objective, TrainedMethod, Weight


class SubReg(TrainedMethod):
    """The MLP's loss + weight · mean distance of the predicted rows to the known classes' span."""

    method: Literal["subreg"] = "subreg"
    distance: Literal["cosine", "l2"] = "l2"
    weight: Weight = 1e-3
    """Of the unsquared distance of a predicted [weight, bias] to its projection on the span of the
    known ones, averaged over the batch. 0 gives the MLP."""
    rank: Annotated[int, Field(gt=0)] | None = None
    """Use the first so many principal directions of the known [weight, bias] instead of their
    whole span."""

    def objective(self, problem: InjectionProblem) -> Objective:
        """Return the MLP's term and, with a positive weight, the distance to the span."""
        from icis.methods.subspace import span

        if self.weight == 0:
            return Objective({"a2w": 1.0})
        subspace = span(
            problem.known_head.joined(),
            over="rows",
            rank=self.rank,
            instead="give a smaller rank, or use the method mlp",
        )
        return Objective({"a2w": 1.0, "subspace": self.weight}, subspace=subspace)
