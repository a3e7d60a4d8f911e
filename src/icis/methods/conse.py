"""ConSE: convex combination of seen descriptors (Norouzi et al., ICLR 2014)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from icis.errors import IcisError
from icis.methods.base import Injection, InjectionProblem, Method, Progress


class Conse(Method):
    """Classify by the cosine between class descriptors and the expected seen descriptor.

    The seen head's softmax weighs the seen descriptors. No training; the scorer is not linear.
    """

    method: Literal["conse"] = "conse"
    top: Annotated[int, Field(ge=0)] = 0
    """How many of the most probable seen classes take part; 0 means all (as the paper runs it)."""

    def fit(
        self, problem: InjectionProblem, *, seed: int, device: str, progress: Progress | None = None
    ) -> Injection:
        """Return the scorer of seen and unseen classes."""
        from icis.scorers import ConseScorer

        seen = problem.seen_head.classes
        if self.top > len(seen):
            raise IcisError(
                f"ConSE: top is {self.top}, but there are only {len(seen)} seen classes"
            )
        import torch

        descriptors = torch.cat([problem.seen_descriptors, problem.unseen_descriptors])
        classes = seen + problem.unseen_classes
        return Injection(
            ConseScorer(problem.seen_head, problem.seen_descriptors, descriptors, classes, self.top)
        )
