"""MLP: descriptors to classifier weights, the base of the paper's ablation ladder."""

from __future__ import annotations

from typing import Literal

from icis.methods.base import InjectionProblem
from icis.methods.training import Objective, TrainedMethod


class Mlp(TrainedMethod):
    """Linear, ReLU, Linear from a descriptor to [weight, bias], trained on the seen pairs."""

    method: Literal["mlp"] = "mlp"
    distance: Literal["cosine", "l2"] = "l2"

    def objective(self, problem: InjectionProblem) -> Objective:
        """Return the one term, from descriptors to classifier weights."""
        return Objective({"a2w": 1.0})
