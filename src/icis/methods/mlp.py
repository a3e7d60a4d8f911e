"""MLP: descriptors to classifier weights, the base of the paper's ablation ladder."""

from __future__ import annotations

from typing import Literal

from icis.methods.base import Injection, InjectionProblem, Progress
from icis.methods.training import TrainedMethod


class Mlp(TrainedMethod):
    """Linear, ReLU, Linear from a descriptor to [weight, bias], trained on the seen pairs."""

    method: Literal["mlp"] = "mlp"
    distance: Literal["cosine", "l2"] = "l2"

    def fit(
        self, problem: InjectionProblem, *, seed: int, device: str, progress: Progress | None = None
    ) -> Injection:
        """Train on the seen pairs and predict [weight, bias] of the unseen classes."""
        from icis.methods.encoders import fit_injection

        return fit_injection(
            problem,
            self,
            losses={"a2w": 1.0},
            use_unseen=False,
            depth=2,
            seed=seed,
            device=device,
            progress=progress,
        )
