"""Data sets as features in the layout of Xian et al.'s Proposed Splits ("xlsa17")."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from icis.artifacts import file_sha256
from icis.config import Xlsa17Dataset
from icis.datasets.index import SPLITS, ImageIndex, build_index
from icis.datasets.matlab import positions, read_variables, strings
from icis.datasets.paths import expand
from icis.errors import IcisError


def read_xlsa17(config: Xlsa17Dataset) -> tuple[ImageIndex, dict[str, str]]:
    """Return the index of the rows that the splits name, and the hashes of the files read.

    The column ``row`` is the 0-based row of the features file. Labels come from the first
    features file; the others must agree with it when they are read.
    """
    splits_path = expand(config.splits)
    splits = read_variables(
        splits_path, [f"{split}_loc" for split in SPLITS], ("allclasses_names", "att")
    )
    features_path = expand(next(iter(config.features.values())))
    about = read_variables(features_path, ["labels"], ("image_files",))
    labels = np.atleast_1d(np.asarray(about["labels"])).ravel()
    names = _class_names(splits, splits_path)
    class_ids = positions(labels, len(names), f"{features_path}: labels")
    images = _image_names(about, len(labels), features_path)

    rows, split_of = [], []
    for split in SPLITS:
        located = positions(splits[f"{split}_loc"], len(labels), f"{splits_path}: {split}_loc")
        rows.append(located)
        split_of += [split] * len(located)
    row = np.concatenate(rows)
    frame = pl.DataFrame(
        {
            "image": [images[each] for each in row],
            "class": [names[each] for each in class_ids[row]],
            "split": split_of,
            "row": row,
        }
    )
    index = build_index(frame, names, source=str(splits_path))
    return index, {str(path): file_sha256(path) for path in (splits_path, features_path)}


def read_features(config: Xlsa17Dataset, backbone: str, index: ImageIndex) -> NDArray[np.float32]:
    """Return the features [N, D] of the index's rows."""
    path = expand(config.features[backbone])
    about = read_variables(path, ["features", "labels"], ("image_files",))
    features, labels = np.asarray(about["features"]), np.atleast_1d(about["labels"]).ravel()
    numeric = features.dtype.kind in "fiu"
    if not numeric or features.ndim != 2 or features.shape[1] != len(labels):
        raise IcisError(
            f"{path}: features are {list(features.shape)} of {features.dtype}, but there are "
            f"{len(labels)} labels; expected numbers [D, N]"
        )
    row = index.frame["row"].to_numpy()
    if row.max() >= len(labels):
        raise IcisError(f"{path} has {len(labels)} rows, the splits name row {row.max() + 1}")
    names = index.classes.names
    number = {name: class_id for class_id, name in enumerate(names)}
    expected = np.array([number[name] for name in index.frame["class"]])
    given = positions(labels, len(names), f"{path}: labels")[row]
    wrong = np.flatnonzero(given != expected)
    if len(wrong):
        have, want = names[given[wrong[0]]], names[expected[wrong[0]]]
        raise IcisError(f"{path}: row {row[wrong[0]] + 1} is of class {have!r}, not {want!r}")
    with np.errstate(over="ignore"):  # whoever uses them refuses infinite ones
        return np.ascontiguousarray(features.T[row], dtype=np.float32)


def _class_names(splits: dict[str, Any], path: Path) -> list[str]:
    if "allclasses_names" in splits:
        return strings(splits["allclasses_names"])
    # the common FLO file has none: classes are then known by their number
    attributes = np.shape(splits.get("att", ()))
    if len(attributes) != 2:
        raise IcisError(
            f"{path} has neither 'allclasses_names' nor 'att': which classes are there?"
        )
    return [f"class-{number:03d}" for number in range(1, attributes[1] + 1)]


def _image_names(about: dict[str, Any], count: int, path: Path) -> list[str]:
    if "image_files" not in about:
        return [f"row-{number:06d}" for number in range(1, count + 1)]
    names = strings(about["image_files"])
    if len(names) != count:
        raise IcisError(f"{path}: there are {count} labels but {len(names)} image_files")
    times = Counter(names)  # rows may be parts of one image
    return [
        name if times[name] == 1 else f"{name}#{row}" for row, name in enumerate(names, start=1)
    ]
