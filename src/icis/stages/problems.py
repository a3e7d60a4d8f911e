"""The problems that a cell's method solves: one a seed, and the same with held-out classes."""

from __future__ import annotations

from pathlib import Path

import torch

from icis.datasets.descriptors import Descriptors, load_descriptors
from icis.errors import IcisError
from icis.heads import Head, class_rows
from icis.holdout import hold_out
from icis.methods import InjectionProblem
from icis.seeding import derive_seed
from icis.seen_heads import load_seen_head
from icis.shelf import Shelf


def load_problem(
    heads: Path, described: Path, seed: int, *, head_described: Path | None = None,
    n_seen: int | None = None, shelf: Shelf | None = None,
) -> InjectionProblem:  # fmt: skip
    """Return the method's whole input, the descriptors in the order of the head's rows.

    ``head_described`` are the descriptors of a given head's classes. With ``n_seen`` the method
    learns from that many seen classes only. With a shelf, files are read once for many problems.
    """
    shelf = shelf or Shelf()
    head = load_seen_head(heads, seed, shelf=shelf)
    descriptors = shelf.get(load_descriptors, described)
    if head_described is not None:
        own = shelf.get(load_descriptors, head_described)
        seen = _rows_of(head, own, head_described)
    elif head.classes != descriptors.classes.seen:
        raise IcisError(f"{heads} and {described} name other seen classes: make both anew")
    else:
        seen = torch.from_numpy(descriptors.rows(seen=True))
    return InjectionProblem(
        head,
        seen,
        torch.from_numpy(descriptors.rows(seen=False)),
        descriptors.classes.unseen,
        pairs=None if n_seen is None else draw(len(head.classes), n_seen, seed, "known classes"),
    )


def _rows_of(head: Head, described: Descriptors, path: Path) -> torch.Tensor:
    try:
        rows = class_rows(described.classes.names, head.classes)
    except IcisError as error:
        raise IcisError(f"{path} does not fit the given head: {error}") from error
    return torch.from_numpy(described.vectors[rows])


def draw(classes: int, count: int, seed: int, purpose: str) -> tuple[int, ...]:
    """Return the row numbers of some classes, drawn by the seed; a larger draw has the smaller."""
    if count > classes:
        raise IcisError(
            f"the experiment asks for {count} seen classes, but there are only {classes}: "
            f"set n_seen to {classes} or less"
        )
    generator = torch.Generator().manual_seed(derive_seed(purpose, seed))
    order: list[int] = torch.randperm(classes, generator=generator).tolist()
    return tuple(sorted(order[:count]))


def held_out_problem(problem: InjectionProblem, part: float, seed: int) -> InjectionProblem:
    """Return the problem with part of the known classes treated as unseen, their rows as truth.

    Which ones depends on the seed alone, so that all methods are judged on the same.
    """
    known = len(problem.known_head.classes)
    count = max(1, round(part * known))
    if known - count < 2:
        raise IcisError(f"holding out {count} of {known} classes leaves fewer than 2 to learn from")
    return hold_out(problem, draw(known, count, seed, "held-out classes"))
