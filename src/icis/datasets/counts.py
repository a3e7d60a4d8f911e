"""Hold a data set's files against the numbers that are published of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icis.datasets.index import SPLITS
from icis.errors import IcisError
from icis.schema import suggest


def check_counts(
    published: Mapping[str, int],
    splits: Mapping[str, Any],
    labels: NDArray[Any],
    classes: int,
    *,
    splits_path: Path,
    labels_path: Path,
) -> None:
    """Refuse files that do not have the published numbers, naming every number that differs."""
    found = _found(splits, labels, classes)
    wrong = []
    for key, expected in published.items():
        if key not in found:
            raise IcisError(f"counts: there is no number {key!r}; {suggest(key, found)}")
        if found[key] != expected:
            if key == "images":
                cause = f"{labels_path} is cut off or another data set's"
            elif key in ("classes", "attributes"):
                cause = f"{splits_path} is another data set's"
            else:
                cause = (
                    f"{splits_path} is another version of the splits (1.0 and 2.0 are often mixed "
                    f"up) or cut off, or {labels_path} is another data set's"
                )
            wrong.append(f"  {key}: published {expected}, found {found[key]}; likely {cause}")
    if wrong:
        lines = "\n".join(wrong)
        raise IcisError(f"{splits_path} does not have the published numbers:\n{lines}")


def _found(splits: Mapping[str, Any], labels: NDArray[Any], classes: int) -> dict[str, int]:
    attributes = np.shape(splits.get("att", ()))
    return {
        "classes": classes,
        "seen": _classes_at(splits["trainval_loc"], labels),
        "unseen": _classes_at(splits["test_unseen_loc"], labels),
        "attributes": attributes[0] if attributes else 0,
        "images": len(labels),
        **{split: np.size(splits[f"{split}_loc"]) for split in SPLITS},
    }


def _classes_at(located: Any, labels: NDArray[Any]) -> int:
    rows = np.ravel(located)
    if rows.dtype.kind not in "fiu":
        return 0
    rows = rows[(rows >= 1) & (rows <= len(labels))].astype(np.int64) - 1
    return len(np.unique(labels[rows]))
