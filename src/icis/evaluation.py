"""Features x scorer → predictions → metrics. Knows nothing of methods."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl
import torch

from icis.calibration import (
    Contest,
    Rivals,
    at_factor,
    at_offset,
    ausuc,
    class_accuracies,
    seen_unseen_curve,
)
from icis.errors import IcisError
from icis.heads import class_rows
from icis.metrics import LabelledFeatures, harmonic_mean, per_class_accuracy
from icis.scorers import Scorer

CHUNK = 8192
CLASSES = ["class", "seen", "accuracy", "zsl"]


@dataclass(frozen=True)
class Prediction:
    """Per image: the column of the highest score, and the entropy (nats) of the softmax.

    ``rivals`` are the best seen and the best unseen class of each, where they were asked for.
    """

    columns: torch.Tensor
    entropy: torch.Tensor
    rivals: Rivals | None = None


@dataclass(frozen=True)
class Evaluation:
    """What is known of a joint scorer after one look at the test images.

    ``curve`` is its seen-unseen curve (``calibration.seen_unseen_curve``; None without images of
    seen classes). ``classes`` has a row for every class with test images: ``class``, ``seen``,
    ``accuracy`` among all classes, ``zsl`` among the unseen ones alone (null for seen classes),
    both in percent. ``contest`` is what the curve was made from.
    """

    metrics: dict[str, float]
    curve: pl.DataFrame | None
    classes: pl.DataFrame
    contest: Contest | None = None


def predict(
    scorer: Scorer,
    features: torch.Tensor,
    *,
    is_seen: torch.Tensor | None = None,
    device: str = "cpu",
) -> Prediction:
    """Score features [N, D] chunk by chunk; the memory for scores does not grow with N.

    With ``is_seen`` [C], which columns are seen classes, the prediction holds the rivals too.
    Scores that are NaN or infinite are refused: the head or the features are broken.
    """
    columns, entropies, rivals = [], [], []
    for scores in _scores(scorer, features, device):
        log_p = scores.log_softmax(dim=1)
        columns.append(scores.argmax(dim=1).cpu())
        entropies.append(-(log_p.exp() * log_p).sum(dim=1).cpu())
        if is_seen is not None:
            rivals.append(Rivals.of(scores, is_seen.to(scores.device)))
    both = Rivals.cat(rivals) if rivals else None
    return Prediction(torch.cat(columns), torch.cat(entropies), both)


def _scores(scorer: Scorer, features: torch.Tensor, device: str) -> Iterator[torch.Tensor]:
    scorer = scorer.to(device)
    for chunk in torch.split(features, CHUNK):
        scores = scorer.scores(chunk.to(device))
        # the sum of some large scores is infinite, too
        if not scores.sum().isfinite() and not scores.isfinite().all():
            raise IcisError("some scores are NaN or infinite: the head or the features hold such")
        yield scores


def accuracy(scorer: Scorer, images: LabelledFeatures, *, device: str = "cpu") -> float:
    """Return the per-class accuracy in percent of a scorer on labelled features."""
    target = images.columns(scorer.classes)
    return per_class_accuracy(predict(scorer, images.vectors, device=device).columns, target)


def evaluate(
    joint: Scorer,
    unseen: Scorer | tuple[str, ...],
    *,
    test_seen: LabelledFeatures | None,
    test_unseen: LabelledFeatures,
    offset: float | None = None,
    factor: float | None = None,
    device: str = "cpu",
) -> dict[str, float]:
    """Return the metrics of ``examine`` alone."""
    return examine(
        joint, unseen, test_seen=test_seen, test_unseen=test_unseen, offset=offset, factor=factor,
        device=device,
    ).metrics  # fmt: skip


def examine(
    joint: Scorer,
    unseen: Scorer | tuple[str, ...],
    *,
    test_seen: LabelledFeatures | None,
    test_unseen: LabelledFeatures,
    offset: float | None = None,
    factor: float | None = None,
    device: str = "cpu",
) -> Evaluation:
    """Score every test image once with the joint scorer, and say all that follows.

    Parameters
    ----------
    joint
        Scores all classes (I-GZSL); its classes that are not unseen ones are the seen ones.
    unseen
        Scores the unseen classes alone (I-ZSL). Their names alone: by the joint scorer's scores,
        which are then not computed a second time.
    test_seen, test_unseen
        Test images of seen and of unseen classes. Without the former (None), what needs them is
        left out: S, H, AUSUC, bias_gap and the calibrated accuracies.
    offset
        Of calibrated stacking, taken off the seen classes' scores; chosen without test images.
    factor
        Of the unseen classes' scores, for a linear ``joint`` that of their rows' norm; chosen
        likewise.

    Returns
    -------
    Metrics in percent, all means over classes: T1, U, S, H; AUSUC, the area under the seen-unseen
    curve; bias_gap = S - U; to_seen, the share of the unseen classes' images sent to a seen class;
    the chance levels; with an offset S_cal, U_cal, H_cal, with a factor S_norm, U_norm,
    H_norm. Besides these the offset, the factor (norm_factor), and the entropy in nats, the mean
    over all test images.
    """
    novel = unseen if isinstance(unseen, tuple) else unseen.classes
    is_seen = torch.ones(len(joint.classes), dtype=torch.bool)
    is_seen[class_rows(joint.classes, novel)] = False
    target = test_unseen.columns(joint.classes)
    seen_target = None if test_seen is None else test_seen.columns(joint.classes)
    own_target = test_unseen.columns(novel)
    on_unseen = predict(joint, test_unseen.vectors, is_seen=is_seen, device=device)
    alone = _alone(joint, unseen, test_unseen, on_unseen, device)
    metrics = {
        "T1": per_class_accuracy(alone, own_target),
        "U": per_class_accuracy(on_unseen.columns, target),
        "to_seen": _sent_to_seen(on_unseen.columns, is_seen, target),
        "chance_T1": 100 / len(novel),
        "chance_all": 100 / len(joint.classes),
    }
    entropy, curve, contest = on_unseen.entropy, None, None
    classes = [_unseen_classes(joint, on_unseen.columns, target, novel, alone, own_target)]
    if test_seen is not None and seen_target is not None:
        on_seen = predict(joint, test_seen.vectors, is_seen=is_seen, device=device)
        entropy = torch.cat([on_seen.entropy, entropy])
        contest = _contest(on_seen, seen_target, on_unseen, target)
        curve = seen_unseen_curve(*contest)
        seen = per_class_accuracy(on_seen.columns, seen_target)
        metrics |= _on_seen(seen, metrics["U"], curve, offset)
        if factor is not None:
            s_norm, u_norm, h_norm = at_factor(contest, factor)
            metrics |= {"norm_factor": factor, "S_norm": s_norm, "U_norm": u_norm, "H_norm": h_norm}
        classes.insert(0, _seen_classes(joint, on_seen.columns, seen_target))
    metrics["entropy"] = float(entropy.double().mean())
    return Evaluation(metrics, curve, pl.concat(classes), contest)


def _seen_classes(joint: Scorer, columns: torch.Tensor, target: torch.Tensor) -> pl.DataFrame:
    """Return the rows of ``Evaluation.classes`` for the seen classes."""
    among_all = class_accuracies(columns, target, joint.classes)
    return among_all.with_columns(seen=True, zsl=pl.lit(None, pl.Float64)).select(CLASSES)


def _unseen_classes(
    joint: Scorer,
    columns: torch.Tensor,
    target: torch.Tensor,
    novel: tuple[str, ...],
    alone: torch.Tensor,
    own_target: torch.Tensor,
) -> pl.DataFrame:
    """Return the rows of ``Evaluation.classes`` for the unseen classes."""
    among_all = class_accuracies(columns, target, joint.classes)
    zsl = class_accuracies(alone, own_target, novel).rename({"accuracy": "zsl"})
    both = among_all.join(zsl, on="class", how="left", maintain_order="left")
    return both.with_columns(seen=False).select(CLASSES)


def _alone(
    joint: Scorer,
    unseen: Scorer | tuple[str, ...],
    images: LabelledFeatures,
    on_unseen: Prediction,
    device: str,
) -> torch.Tensor:
    """Return what each image is among the unseen classes alone, as positions [N] in these."""
    if not isinstance(unseen, tuple):
        return predict(unseen, images.vectors, device=device).columns
    assert on_unseen.rivals is not None
    position = torch.full((len(joint.classes),), -1)
    position[class_rows(joint.classes, unseen)] = torch.arange(len(unseen))
    return position[on_unseen.rivals.unseen]


def _sent_to_seen(columns: torch.Tensor, is_seen: torch.Tensor, target: torch.Tensor) -> float:
    """Return the share of images predicted as some seen class, the mean over classes, percent."""
    return per_class_accuracy(torch.where(is_seen[columns], target, -1), target)


def _on_seen(
    seen: float, novel: float, curve: pl.DataFrame, offset: float | None
) -> dict[str, float]:
    """Return the metrics that need images of seen classes."""
    metrics = {
        "S": seen,
        "H": harmonic_mean(seen, novel),
        "AUSUC": ausuc(curve),
        "bias_gap": seen - novel,
    }
    if offset is not None:
        s_cal, u_cal, h_cal = at_offset(curve, offset)
        metrics |= {"offset": offset, "S_cal": s_cal, "U_cal": u_cal, "H_cal": h_cal}
    return metrics


def _contest(
    on_seen: Prediction,
    seen_target: torch.Tensor,
    on_unseen: Prediction,
    unseen_target: torch.Tensor,
) -> Contest:
    assert on_seen.rivals is not None
    assert on_unseen.rivals is not None
    return Contest(on_seen.rivals, seen_target, on_unseen.rivals, unseen_target)
