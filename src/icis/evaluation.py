"""Features x scorer → predictions → metrics. Knows nothing of methods."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from icis.errors import IcisError
from icis.metrics import LabelledFeatures, harmonic_mean, label_columns, per_class_accuracy
from icis.scorers import Scorer

CHUNK = 8192


@dataclass(frozen=True)
class Prediction:
    """Per image: the column of the highest score, and the entropy (nats) of the softmax."""

    columns: torch.Tensor
    entropy: torch.Tensor


def predict(scorer: Scorer, features: torch.Tensor, *, device: str = "cpu") -> Prediction:
    """Score features [N, D] chunk by chunk; memory does not grow with N.

    Scores that are NaN or infinite are refused: the head or the features are broken.
    """
    scorer = scorer.to(device)
    columns, entropies = [], []
    for chunk in torch.split(features, CHUNK):
        scores = scorer.scores(chunk.to(device))
        if not scores.isfinite().all():
            raise IcisError("some scores are NaN or infinite: the head or the features hold such")
        log_p = scores.log_softmax(dim=1)
        columns.append(scores.argmax(dim=1).cpu())
        entropies.append(-(log_p.exp() * log_p).sum(dim=1).cpu())
    return Prediction(torch.cat(columns), torch.cat(entropies))


def accuracy(scorer: Scorer, images: LabelledFeatures, *, device: str = "cpu") -> float:
    """Return the per-class accuracy in percent of a scorer on labelled features."""
    target = label_columns(scorer.classes, images.classes)
    return per_class_accuracy(predict(scorer, images.vectors, device=device).columns, target)


def evaluate(
    joint: Scorer,
    unseen: Scorer,
    *,
    test_seen: LabelledFeatures,
    test_unseen: LabelledFeatures,
    device: str = "cpu",
) -> dict[str, float]:
    """Return T1, S, U, H in percent, the mean entropy over all test images, and chance levels.

    ``unseen`` scores the unseen classes alone (I-ZSL), ``joint`` all classes (I-GZSL).
    """
    seen_target = label_columns(joint.classes, test_seen.classes)
    unseen_target = label_columns(joint.classes, test_unseen.classes)
    on_seen = predict(joint, test_seen.vectors, device=device)
    on_unseen = predict(joint, test_unseen.vectors, device=device)
    seen = per_class_accuracy(on_seen.columns, seen_target)
    novel = per_class_accuracy(on_unseen.columns, unseen_target)
    return {
        "T1": accuracy(unseen, test_unseen, device=device),
        "U": novel,
        "S": seen,
        "H": harmonic_mean(seen, novel),
        "entropy": float(torch.cat([on_seen.entropy, on_unseen.entropy]).double().mean()),
        "chance_T1": 100 / len(unseen.classes),
        "chance_all": 100 / len(joint.classes),
    }
