"""ICIS: image-free classifier injection (Christensen et al., ICCV 2023, arXiv 2308.10599)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from icis.methods.base import InjectionProblem
from icis.methods.training import Objective, TrainedMethod, Weight
from icis.schema import Strict


class LossWeights(Strict):
    """Weights of the four reconstruction terms; 0 leaves a term out."""

    a2a: Weight = 1.0
    """Descriptor to descriptor."""
    w2w: Weight = 1.0
    """Classifier weight to classifier weight."""
    a2w: Weight = 1.0
    """Descriptor to classifier weight: the term that prediction needs."""
    w2a: Weight = 1.0
    """Classifier weight to descriptor."""


class Icis(TrainedMethod):
    """Two encoder-decoders with a shared latent space, trained by four reconstruction terms."""

    method: Literal["icis"] = "icis"
    distance: Literal["cosine", "l2"] = "cosine"
    losses: LossWeights = LossWeights()
    unseen_descriptors: bool = True
    """Whether the unseen classes' descriptors take part in the a2a term."""
    depth: Annotated[int, Field(ge=2, le=4)] = 2
    """2: one layer each; 3: decoders through 1000 units; 4: encoders of two layers as well."""
    subspace: Weight = 0.0
    """Of the distance between the predictions for a batch, its unseen rows included, and the span
    of the known [weight, bias] (Frobenius norm). ICIS + Sub.Reg. as published: 1e-3."""

    @model_validator(mode="after")
    def _check(self) -> Icis:
        if self.losses.a2w == 0:
            raise PydanticCustomError(
                "losses", "losses.a2w is 0: prediction needs this term, give it a positive weight"
            )
        if self.unseen_descriptors and self.losses.a2a == 0:
            raise PydanticCustomError(
                "losses",
                "unseen_descriptors takes effect through losses.a2a only, which is 0: "
                "set unseen_descriptors: false",
            )
        return self

    def objective(self, problem: InjectionProblem) -> Objective:
        """Return the terms with a positive weight; the span is that of all known rows."""
        from icis.methods.subspace import span

        active = {key: value for key, value in self.losses.model_dump().items() if value > 0}
        subspace = None
        if self.subspace > 0:
            active["subspace"] = self.subspace
            targets = problem.known_head.joined()
            subspace = span(targets, over="batch", instead="set subspace: 0")
        return Objective(active, self.unseen_descriptors, self.depth, subspace)
