"""Calibrated stacking and the seen-unseen curve (Chao et al., ECCV 2016, arXiv 1605.04253).

Images of unseen classes are often sent to seen ones. An offset subtracted from the scores of all
seen classes trades the accuracy on seen classes, S, for that on unseen ones, U; the curve of
(S, U) over all offsets, and the area under it, judge a method whatever its bias. A factor of the
unseen classes' rows [weight, bias], and so of their scores, trades likewise: a loss that looks at
directions alone, as the cosine does, leaves their norm to chance. Every accuracy here is a mean
over classes, in percent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import polars as pl
import torch

from icis.errors import IcisError
from icis.metrics import class_counts, harmonic_mean, per_class_accuracy

POINTS = 200
FACTORS = tuple(2 ** (step / 4) for step in range(-24, 25))
"""The factors of a norm that are tried: from 1/64 to 64, four to the octave."""


@dataclass(frozen=True)
class Rivals:
    """Of every image the best seen class and the best unseen one: columns [N], scores [N].

    This is all that an offset needs to know of the scores [N, C]. Where one of the two kinds has
    no class, its score is -inf and its column -1.
    """

    seen: torch.Tensor
    unseen: torch.Tensor
    seen_score: torch.Tensor
    unseen_score: torch.Tensor

    @classmethod
    def of(cls, scores: torch.Tensor, is_seen: torch.Tensor) -> Rivals:
        """Return the rivals of scores [N, C]; ``is_seen`` [C] tells the seen columns."""
        seen, seen_score = _best(scores, is_seen.nonzero().squeeze(1))
        unseen, unseen_score = _best(scores, (~is_seen).nonzero().squeeze(1))
        return cls(seen, unseen, seen_score, unseen_score)

    @classmethod
    def cat(cls, parts: Sequence[Rivals]) -> Rivals:
        """Return the rivals of several batches of images as one."""
        return cls(
            torch.cat([part.seen for part in parts]),
            torch.cat([part.unseen for part in parts]),
            torch.cat([part.seen_score for part in parts]),
            torch.cat([part.unseen_score for part in parts]),
        )

    @property
    def margin(self) -> torch.Tensor:
        """Return by how much the seen class leads [N], as float64: the offset it survives."""
        return self.seen_score.double() - self.unseen_score.double()

    def columns(self, offset: float = 0.0) -> torch.Tensor:
        """Return the predicted columns [N] with an offset taken off the seen classes' scores.

        At equal scores the seen class wins, as in an argmax whose first columns are the seen ones.
        """
        return torch.where(self.margin >= offset, self.seen, self.unseen)


class Contest(NamedTuple):
    """Images of seen and of unseen classes: rivals, and columns [N] of their true classes."""

    on_seen: Rivals
    seen_target: torch.Tensor
    on_unseen: Rivals
    unseen_target: torch.Tensor


def _best(scores: torch.Tensor, columns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return column [N] and score [N] of the best of some columns, on the CPU."""
    if not len(columns):
        none = torch.full((len(scores),), -1)
        return none, torch.full((len(scores),), -math.inf, dtype=scores.dtype)
    best = scores[:, columns].max(dim=1)
    return columns[best.indices].cpu(), best.values.cpu()


def seen_unseen_curve(
    on_seen: Rivals, seen_target: torch.Tensor, on_unseen: Rivals, unseen_target: torch.Tensor
) -> pl.DataFrame:
    """Return the exact curve of (S, U) as the offset goes from -inf to +inf.

    Parameters
    ----------
    on_seen, on_unseen
        Rivals of the test images of seen and of unseen classes.
    seen_target, unseen_target
        Columns of their true classes [N].

    Returns
    -------
    Columns ``offset``, ``seen``, ``unseen`` (percent), a row for every (S, U) that some offset
    gives: the row holds for offsets above the previous row's (-inf for the first) up to and
    including its own; the last one's is +inf. O(N log N) for N images.
    """
    kept = on_seen.seen == seen_target
    gained = on_unseen.unseen == unseen_target
    margins = torch.cat([on_seen.margin[kept], on_unseen.margin[gained]])
    distinct, at = torch.unique(margins, return_inverse=True)
    cut = int(kept.sum())
    lost, won = torch.zeros(2, len(distinct) + 1, dtype=torch.float64)
    lost.index_add_(0, at[:cut], _weights(seen_target)[kept])
    won.index_add_(0, at[cut:] + 1, _weights(unseen_target)[gained])
    return pl.DataFrame(
        {
            "offset": [*distinct.tolist(), math.inf],
            "seen": lost.flip(0).cumsum(0).flip(0).numpy(),
            "unseen": won.cumsum(0).numpy(),
        },
        schema_overrides={"offset": pl.Float64},
    )


def _weights(target: torch.Tensor) -> torch.Tensor:
    """Return what an image's right prediction adds to the mean accuracy over classes, percent."""
    if not len(target):
        raise IcisError("a seen-unseen curve needs test images of seen and of unseen classes")
    count = target.bincount()
    shares: torch.Tensor = 100 / ((count > 0).sum() * count.double())
    return shares[target]


def ausuc(curve: pl.DataFrame) -> float:
    """Return the area under the seen-unseen curve in percent of the unit square.

    By the trapezoid rule over the curve's points, as in the literature. It differs from a step
    function's area only where images of seen and of unseen classes have the same margin.
    """
    return float(np.trapezoid(curve["seen"].to_numpy(), curve["unseen"].to_numpy())) / 100


def at_offset(curve: pl.DataFrame, offset: float) -> tuple[float, float, float]:
    """Return (S, U, H) in percent with an offset taken off the seen classes' scores."""
    if math.isnan(offset):
        raise IcisError("the offset of calibrated stacking is not a number")
    row = int(np.searchsorted(curve["offset"].to_numpy(), offset, side="left"))
    seen, unseen = float(curve["seen"][row]), float(curve["unseen"][row])
    return seen, unseen, harmonic_mean(seen, unseen)


def best_offset(curve: pl.DataFrame) -> float:
    """Return the offset that maximises H on a curve; 0 where H is 0 for every offset.

    The middle of the range of offsets that give this H; of several ranges the one whose middle
    is nearest to 0. Use a curve of *held-out* images: on test images this is a leak.
    """
    seen, unseen = curve["seen"].to_numpy(), curve["unseen"].to_numpy()
    total = seen + unseen
    means = np.divide(2 * seen * unseen, total, out=np.zeros_like(total), where=total > 0)
    best = float(means.max())
    if best <= 0:
        return 0.0
    # neither end of the curve: there S or U, and so H, is 0
    rows = np.flatnonzero(means >= best * (1 - 1e-12))
    upper = curve["offset"].to_numpy()
    low, high = upper[rows - 1], upper[rows]
    middle = low + (high - low) / 2
    middle = np.where(middle > low, middle, high)
    return float(middle[np.argmin(np.abs(middle))])


def at_factor(contest: Contest, factor: float) -> tuple[float, float, float]:
    """Return (S, U, H) in percent with the unseen classes' scores multiplied by a factor above 0.

    For a linear scorer that is what their rows [weight, bias], multiplied, give.
    """
    if not 0 < factor < math.inf:
        raise IcisError(f"a norm can be multiplied by a number above 0, not by {factor}")
    seen, unseen = (
        per_class_accuracy(
            replace(rivals, unseen_score=rivals.unseen_score * factor).columns(), target
        )
        for rivals, target in (contest[:2], contest[2:])
    )
    return seen, unseen, harmonic_mean(seen, unseen)


def best_factor(contests: Sequence[Contest]) -> float:
    """Return that of ``FACTORS`` with the highest mean H over some contests.

    Of several the one nearest to 1. Use contests of *held-out* classes: on test images this is a
    leak.
    """
    if not contests:
        raise IcisError("there is no contest to choose a factor by")
    means = {
        factor: math.fsum(at_factor(contest, factor)[2] for contest in contests)
        for factor in FACTORS
    }
    best = max(means.values())
    equal = [factor for factor, mean in means.items() if mean >= best * (1 - 1e-12)]
    return min(equal, key=lambda factor: abs(math.log(factor)))


def thin(curve: pl.DataFrame, points: int = POINTS) -> pl.DataFrame:
    """Return at most so many of a curve's rows, both ends among them, to store or to draw.

    They are spread evenly along the curve's length, so that no part of it is further than
    (200 / points) percent from a kept point. ``at_offset`` is then as coarse.
    """
    if points < 2:
        raise IcisError(f"a curve needs its two ends, it cannot have {points} points")
    if len(curve) <= points:
        return curve
    steps = np.abs(np.diff(curve.select("seen", "unseen").to_numpy(), axis=0)).sum(axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    rows = np.searchsorted(along, np.linspace(0, along[-1], points))
    return curve[np.unique(rows)]


def class_accuracies(
    columns: torch.Tensor, target: torch.Tensor, classes: tuple[str, ...]
) -> pl.DataFrame:
    """Return ``class`` and ``accuracy`` (percent) of every class with images, by column.

    ``columns`` [N] are the predictions, ``target`` [N] the true classes, both columns of
    ``classes``. The mean of ``accuracy`` is ``metrics.per_class_accuracy``.
    """
    if columns.shape != target.shape:
        raise IcisError(f"{len(columns)} predictions do not fit {len(target)} labels")
    count, right = class_counts(columns, target)
    present = count.nonzero().squeeze(1)
    return pl.DataFrame(
        {
            "class": [classes[column] for column in present.tolist()],
            "accuracy": (100 * right / count)[present].tolist(),
        },
        schema={"class": pl.String, "accuracy": pl.Float64},
    )
