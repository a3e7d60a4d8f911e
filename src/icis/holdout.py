"""Seen classes held out as pseudo-unseen: their problem, and how near a prediction comes.

Apart from selection, because injected heads depend on this and not on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cosine_similarity

from icis.errors import IcisError
from icis.heads import Head
from icis.methods.base import InjectionProblem

if TYPE_CHECKING:
    from icis.methods.base import Injection


def hold_out(problem: InjectionProblem, rows: Sequence[int]) -> InjectionProblem:
    """Return the problem in which some of the known classes play the unseen ones.

    ``rows`` are rows of ``problem.known_head``. The seen head and its descriptors are the other
    known classes', ``truth`` the true rows. The real unseen classes play no part.
    """
    known, descriptors = problem.known_head, problem.known_descriptors
    held = list(rows)
    if len({*held}) != len(held) or not {*held} <= {*range(len(known.classes))}:
        raise IcisError(f"rows to hold out must differ and be below {len(known.classes)}: {held}")
    kept = sorted({*range(len(known.classes))} - {*held})
    if not held or not kept:
        raise IcisError(f"{len(held)} of {len(known.classes)} known classes cannot be held out")
    truth = known.restrict(tuple(known.classes[row] for row in held))
    rest = known.restrict(tuple(known.classes[row] for row in kept))
    return InjectionProblem(
        rest, descriptors[kept], descriptors[held], truth.classes, truth=truth
    )  # fmt: skip


def predicted_rows(injection: Injection, classes: tuple[str, ...]) -> torch.Tensor | None:
    """Return the rows [U, D + 1] of the joint head for some classes; None if it is not linear."""
    joint = injection.joint
    return joint.restrict(classes).joined().double().cpu() if isinstance(joint, Head) else None


def held_out_cosine(injection: Injection, problem: InjectionProblem) -> float | None:
    """Return the mean cosine between predicted and true rows [weight, bias], None without rows."""
    truth = truth_of(problem)
    rows = predicted_rows(injection, truth.classes)
    return None if rows is None else float(cosine_similarity(rows, joined_rows(truth)).mean())


def truth_of(problem: InjectionProblem) -> Head:
    """Return the true rows of held-out classes."""
    if problem.truth is None:
        raise IcisError("the problem has no held-out classes: their true rows are not known")
    return problem.truth


def joined_rows(truth: Head) -> torch.Tensor:
    """Return rows [weight, bias] in double precision, [U, D + 1]."""
    return truth.joined().double().cpu()
