"""Sub.Reg.: the MLP, kept near the span of the known weights (Akyürek et al., ICLR 2022)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from icis.methods.base import Injection, InjectionProblem, Progress
from icis.methods.training import TrainedMethod, Weight


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

    def fit(
        self, problem: InjectionProblem, *, seed: int, device: str, progress: Progress | None = None
    ) -> Injection:
        """Train on the seen pairs and predict [weight, bias] of the unseen classes."""
        from icis.methods.encoders import fit_injection
        from icis.methods.subspace import span

        losses, subspace = {"a2w": 1.0}, None
        if self.weight > 0:
            losses["subspace"] = self.weight
            subspace = span(
                problem.known_head.joined(),
                over="rows",
                rank=self.rank,
                instead="give a smaller rank, or use the method mlp",
            )
        return fit_injection(
            problem,
            self,
            losses=losses,
            use_unseen=False,
            depth=2,
            seed=seed,
            device=device,
            progress=progress,
            subspace=subspace,
        )
