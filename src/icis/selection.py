"""Model selection without images: cross-validation over the seen classes.

Some seen classes play the unseen ones: a method gets the rest of the seen head and all
descriptors, and what it injects is compared with the true rows of the held-out classes. No image
and no real unseen class takes part. What the seen head knows of the held-out classes remains,
though: its rows were trained together with theirs.

Where trainval images of the seen classes are at hand and given, they judge too, though no method
sees them.

The criteria, with a predicted and a true row [weight, bias] for each held-out class:

``held_out_cosine``
    Mean cosine between the two rows.
``retrieval``
    Percent of held-out classes whose predicted row has their own true row as the nearest, by
    cosine, among the held-out ones.
``norm_ratio``
    Mean norm of the predicted rows over that of the true ones, in the joint head: above 1 the
    classes are favoured, below 1 the seen ones are. A diagnostic, not to be selected by.
``pseudo_accuracy``
    Percent of held-out classes whose true weight vector, scaled to length 1 and given to the
    scorer of the held-out classes in place of an image's features, is recognised. Any scorer has
    it; the others need a linear one.

``image_accuracy``
    With trainval images only: per-class accuracy in percent on those of the held-out classes,
    these alone to choose from; what T1 is to unseen classes. The held-out classes' own rows were
    trained on these images, but the method does not know these rows.

``pseudo_accuracy`` takes a class's true weight vector for the direction of its typical image. It
is no estimate of the accuracy on images: there is one pseudo-image a class, without any spread,
biases and softmax weigh otherwise than on features of natural length, only the few held-out
classes compete, and no seen one. Use it to rank methods, not to report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
import torch
from torch.nn.functional import normalize

from icis.errors import IcisError
from icis.evaluation import accuracy
from icis.holdout import held_out_cosine, hold_out, joined_rows, predicted_rows, truth_of
from icis.metrics import LabelledFeatures
from icis.seeding import derive_seed

if TYPE_CHECKING:
    from icis.methods.base import Injection, InjectionProblem, Method

CRITERIA = ("pseudo_accuracy", "held_out_cosine", "retrieval")
"""What can be selected by: the higher, the better."""
WITH_IMAGES = "image_accuracy"
"""What can be selected by too, where images are given."""
MEASURES = (*CRITERIA, "norm_ratio")
FOLD = {"fold": pl.Int64, "criterion": pl.String, "value": pl.Float64}
RUN = {"candidate": pl.String, "seed": pl.Int64, **FOLD}

Folds = int | Sequence[Sequence[int]]
"""How many parts of the known classes, or the parts themselves, as their numbers."""


# --- folds --------------------------------------------------------------------------------------


def folds(classes: int, k: int, seed: int) -> list[list[int]]:
    """Return a partition of the rows 0..classes-1 into k parts, drawn by the seed.

    Their sizes differ by at most one; the rows of each are in ascending order.
    """
    if not 2 <= k <= classes:
        raise IcisError(f"{classes} classes cannot be parted into {k} folds: take 2 to {classes}")
    generator = torch.Generator().manual_seed(derive_seed("class folds", seed))
    order: list[int] = torch.randperm(classes, generator=generator).tolist()
    return [sorted(order[fold::k]) for fold in range(k)]


# --- criteria -----------------------------------------------------------------------------------


def retrieval(injection: Injection, problem: InjectionProblem) -> float | None:
    """Return the percent of held-out classes whose predicted row is nearest to their true row.

    Nearest by cosine, among the true rows of all held-out classes; None without rows.
    """
    truth = truth_of(problem)
    rows = predicted_rows(injection, truth.classes)
    if rows is None:
        return None
    return _percent_right(normalize(rows) @ normalize(joined_rows(truth)).T)


def norm_ratio(injection: Injection, problem: InjectionProblem) -> float | None:
    """Return the mean norm of the predicted rows over that of the true ones, None without rows."""
    truth = truth_of(problem)
    rows = predicted_rows(injection, truth.classes)
    if rows is None:
        return None
    return float(rows.norm(dim=1).mean() / joined_rows(truth).norm(dim=1).mean())


def pseudo_accuracy(injection: Injection, problem: InjectionProblem, *, device: str) -> float:
    """Return the percent of held-out classes recognised by their true weight vector of length 1.

    See the module's docstring for what this is and what it is not.
    """
    truth = truth_of(problem)
    scorer = injection.unseen or injection.joint
    scorer = scorer.restrict(truth.classes).to(device)
    return _percent_right(scorer.scores(normalize(truth.weight).to(device)).cpu())


def image_accuracy(
    injection: Injection, problem: InjectionProblem, images: LabelledFeatures, *, device: str
) -> float:
    """Return the per-class accuracy in percent on images of the held-out classes, among these.

    ``images`` may hold other classes' too: they are left out.
    """
    truth = truth_of(problem)
    own = images.of_classes(truth.classes)
    if not own.classes:
        raise IcisError(f"there is no image of the {len(truth.classes)} held-out classes")
    scorer = injection.unseen or injection.joint
    return accuracy(scorer.restrict(truth.classes), own, device=device)


def criteria(
    injection: Injection,
    problem: InjectionProblem,
    *,
    device: str,
    images: LabelledFeatures | None = None,
) -> dict[str, float]:
    """Return all of ``MEASURES`` that the injection's scorers have, and what images tell."""
    found = {
        "pseudo_accuracy": pseudo_accuracy(injection, problem, device=device),
        "held_out_cosine": held_out_cosine(injection, problem),
        "retrieval": retrieval(injection, problem),
        "norm_ratio": norm_ratio(injection, problem),
    }
    if images is not None:
        found[WITH_IMAGES] = image_accuracy(injection, problem, images, device=device)
    return {name: value for name, value in found.items() if value is not None}


def _percent_right(scores: torch.Tensor) -> float:
    """Return the percent of rows [U, U] whose highest score is on the diagonal and nowhere else.

    A tie is no recognition: scores that tell nothing would otherwise get the first class right.
    """
    if not scores.isfinite().all():
        raise IcisError("some scores of held-out classes are NaN or infinite")
    best = scores == scores.max(dim=1, keepdim=True).values
    return float((best.diagonal() & (best.sum(dim=1) == 1)).double().mean()) * 100


# --- cross-validation ---------------------------------------------------------------------------


def cross_validate(
    problem: InjectionProblem,
    method: Method,
    *,
    folds: Folds = 5,
    seed: int,
    images: LabelledFeatures | None = None,
    device: str = "cpu",
    progress: Callable[[], object] | None = None,
) -> pl.DataFrame:
    """Run a method with each fold of the known classes held out in turn.

    Returns ``fold`` (from 0), ``criterion``, ``value``. The folds, where only their number is
    given, and the method's own randomness depend on ``seed`` alone, so that methods are compared
    on the same. ``images`` are trainval images that judge, too. ``progress`` is called after each
    fold.
    """
    rows = []
    if isinstance(folds, int):
        folds = _folds(len(problem.known_head.classes), folds, seed)
    for fold, held in enumerate(folds):
        reduced = hold_out(problem, held)
        injection = method.inject(reduced, seed=seed, device=device, progress=None)
        found = criteria(injection, reduced, device=device, images=images)
        rows += [(fold, name, value) for name, value in found.items()]
        if progress:
            progress()
    return pl.DataFrame(rows, schema=FOLD, orient="row")


_folds = folds  # the name that a parameter hides


def compare(
    problems: Mapping[int, InjectionProblem],
    candidates: Mapping[str, Method],
    *,
    folds: Folds = 5,
    images: LabelledFeatures | None = None,
    device: str = "cpu",
    progress: Callable[[], object] | None = None,
) -> pl.DataFrame:
    """Cross-validate every candidate on the problem of every seed.

    Returns ``candidate``, ``seed``, ``fold``, ``criterion``, ``value``.
    """
    frames = [pl.DataFrame(schema=RUN)]
    for name, method in candidates.items():
        for seed, problem in problems.items():
            try:
                found = cross_validate(
                    problem, method, folds=folds, seed=seed, images=images, device=device,
                    progress=progress,
                )  # fmt: skip
            except IcisError as error:
                raise IcisError(f"candidate {name!r}, seed {seed}: {error}") from error
            labels = {"candidate": pl.lit(name), "seed": pl.lit(seed, pl.Int64)}
            frames.append(found.with_columns(**labels).select(*RUN))
    return pl.concat(frames)


@dataclass(frozen=True)
class Selected:
    """The outcome of a comparison by one criterion.

    ``means`` and ``errors`` (standard errors of the means, None for a single value) are taken
    over all folds of all seeds, by candidate. The folds' training classes overlap, so that a
    standard error is rather too small. ``within`` names the candidates, in their order, whose
    mean is no more than the best one's standard error below the best mean: list candidates from
    the simplest on, and its first is the choice of the one-standard-error rule (Breiman et al.,
    1984). ``frame`` holds every value of every criterion.
    """

    best: str
    criterion: str
    means: dict[str, float]
    errors: dict[str, float | None]
    within: tuple[str, ...]
    frame: pl.DataFrame


def choose(frame: pl.DataFrame, criterion: str = CRITERIA[0]) -> Selected:
    """Return the candidate with the highest mean of a criterion in a frame of ``compare``.

    Of candidates with the same mean the one that comes first in the frame.
    """
    check_criterion(criterion, images=WITH_IMAGES in frame["criterion"])
    found = summaries(frame, criterion)
    lacking = [name for name in frame["candidate"].unique(maintain_order=True) if name not in found]
    if lacking:
        raise IcisError(
            f"the scorer of {lacking[0]!r} is not linear and has no {criterion}: "
            f"select by {CRITERIA[0]}"
        )
    if not found:
        raise IcisError("there is no candidate to select from")
    means = {name: mean for name, (mean, _) in found.items()}
    best = max(means, key=means.__getitem__)
    reach = means[best] - (found[best][1] or 0.0)
    within = tuple(name for name, mean in means.items() if mean >= reach)
    errors = {name: error for name, (_, error) in found.items()}
    return Selected(best, criterion, means, errors, within, frame)


def check_criterion(criterion: str, *, images: bool = False) -> None:
    """Refuse a criterion that nothing can be selected by; ``images``: whether any are given."""
    if criterion == WITH_IMAGES and not images:
        raise IcisError(f"{WITH_IMAGES} needs trainval images, and none are given: add --images")
    if criterion not in (*CRITERIA, WITH_IMAGES):
        known = ", ".join((*CRITERIA, WITH_IMAGES))
        raise IcisError(f"there is no criterion {criterion!r} to select by; there are: {known}")


def summaries(frame: pl.DataFrame, criterion: str) -> dict[str, tuple[float, float | None]]:
    """Return mean and standard error of a criterion by candidate, for those that have it."""
    found = {}
    of_criterion = frame.filter(pl.col("criterion") == criterion)
    for (name,), rows in of_criterion.group_by("candidate", maintain_order=True):
        values = torch.tensor(rows["value"].to_list(), dtype=torch.float64)
        error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None
        found[str(name)] = (float(values.mean()), error)
    return found


def select(
    problem: InjectionProblem,
    candidates: Mapping[str, Method],
    *,
    criterion: str = CRITERIA[0],
    folds: int = 5,
    seeds: Sequence[int] = (0,),
    device: str = "cpu",
) -> Selected:
    """Cross-validate the candidates on one problem and choose among them.

    A seed parts the classes and is the methods' own. See ``compare`` for a problem a seed.
    """
    problems = dict.fromkeys(seeds, problem)
    return choose(compare(problems, candidates, folds=folds, device=device), criterion)
