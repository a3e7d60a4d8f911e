"""The norm heuristics: predicted rows brought to the scale of the seen head's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from icis.errors import IcisError
from icis.heads import Head, class_rows

if TYPE_CHECKING:
    from icis.methods.base import Injection, InjectionProblem
    from icis.scorers import Scorer

GZSL_FACTOR = 10


def rescaled(
    injection: Injection, problem: InjectionProblem, kind: Literal["gzsl", "transfer"]
) -> Injection:
    """Return an injection with the rows of the unseen classes rescaled, all else as it was."""
    unseen = injection.unseen or injection.joint.restrict(problem.unseen_classes)
    joint, unseen = _linear(injection.joint), _linear(unseen)
    if kind == "gzsl":
        # the unseen classes alone stay as predicted: the heuristic is one against the seen rows
        joint = shrink(joint, problem.unseen_classes)
    else:
        joint = match_norms(joint, problem.unseen_classes, problem.seen_head)
        unseen = match_norms(unseen, problem.unseen_classes, problem.seen_head)
    return replace(injection, joint=joint, unseen=unseen)


def shrink(head: Head, classes: tuple[str, ...]) -> Head:
    """Divide the rows [weight, bias] of some classes by 10 times their mean norm."""
    rows = head.restrict(classes).joined().double()
    norm = GZSL_FACTOR * float(rows.norm(dim=1).mean())
    _require_scale(norm, "rows")
    return _replace(head, Head.from_joined(rows / norm, classes))


def match_norms(head: Head, classes: tuple[str, ...], reference: Head) -> Head:
    """Give some classes' weights the mean row norm, their biases the norm, of another head's.

    Weight and bias scale apart; the biases' norm is that of the whole vector, so it does not
    depend on the number of classes.
    """
    part = head.restrict(classes)
    weight, bias = part.weight.double(), part.bias.double()
    norm, wanted = (float(each.double().norm(dim=1).mean()) for each in (weight, reference.weight))
    _require_scale(norm, "weights")
    weight = weight * (wanted / norm)
    norm, wanted = float(bias.norm()), float(reference.bias.double().norm())
    if wanted or norm:  # a head without biases has none to scale
        _require_scale(norm, "biases")
        bias = bias * (wanted / norm)
    return _replace(head, Head(weight, bias, classes))


def _require_scale(norm: float, what: str) -> None:
    if norm == 0:
        raise IcisError(
            f"the predicted {what} are all zero and have no norm to rescale: set rescale: none, or "
            "use other descriptors"
        )


def _replace(head: Head, part: Head) -> Head:
    rows = class_rows(head.classes, part.classes)
    weight, bias = head.weight.clone(), head.bias.clone()
    weight[rows], bias[rows] = part.weight.to(weight.dtype), part.bias.to(bias.dtype)
    return Head(weight, bias, head.classes)


def _linear(scorer: Scorer) -> Head:
    if not isinstance(scorer, Head):
        raise IcisError(f"a {type(scorer).__name__} has no weights to rescale: set rescale: none")
    return scorer
