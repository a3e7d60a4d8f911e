"""Data sets in the layout of Xian et al.'s Proposed Splits ("xlsa17"): features or images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from icis.artifacts import file_sha256
from icis.config import Xlsa17Dataset
from icis.datasets.counts import check_counts
from icis.datasets.index import SPLITS, ImageIndex, build_index
from icis.datasets.matlab import positions, read_variables, strings
from icis.datasets.paths import expand
from icis.datasets.splits import TUNING, split_version
from icis.datasets.xlsa17_images import Located, locate_images, unique_names
from icis.errors import IcisError

NUMBERED = re.compile(r"row-\d+")
"""The name of an image that has none."""
PART = re.compile(r"#\d+$")
"""What tells the parts of an image apart."""
Read = tuple[ImageIndex, dict[str, str], dict[str, Any]]
"""An index, the hashes of the files read, and facts for the index's metadata."""


def read_xlsa17(config: Xlsa17Dataset) -> Read:
    """Return the index of the rows that the splits name, hashes and facts.

    The column ``row`` is the 0-based row of the labels file, to which all features files must
    agree when they are read. With ``images``, ``image`` is a path inside that folder; where rows
    are objects, ``file``, ``left``, ``top``, ``right``, ``bottom`` tell them apart.
    """
    splits_path, labels_path = expand(config.splits), expand(config.labels_file)
    optional = ("allclasses_names", "att", *TUNING)
    splits = read_variables(splits_path, [f"{split}_loc" for split in SPLITS], optional)
    about = read_variables(labels_path, ["labels"], ("image_files",))
    labels = np.atleast_1d(np.asarray(about["labels"])).ravel()
    names = _class_names(splits, splits_path)
    check_counts(
        config.counts, splits, labels, len(names), splits_path=splits_path, labels_path=labels_path
    )
    version = split_version(config.split_version, splits, splits_path)
    class_ids = positions(labels, len(names), f"{labels_path}: labels")
    row, split_of = _located(splits, len(labels), splits_path)

    classes = [names[each] for each in class_ids]
    listed = _image_files(about, len(labels), labels_path)
    if config.images is None:
        images = unique_names(listed) if listed else _numbered(len(labels))
        located = Located(pl.DataFrame({"image": images}, schema={"image": pl.String}))
    else:
        located = locate_images(config, listed, classes, names, row)
    columns = located.rows[row]
    frame = columns.select(
        "image",
        pl.Series("class", [classes[each] for each in row], pl.String),
        pl.Series("split", split_of, pl.String),
        pl.Series("row", row, pl.Int64),
        *columns.columns[1:],
    )
    index = build_index(frame, names, source=str(splits_path))
    sources = {str(path): file_sha256(path) for path in (splits_path, labels_path)}
    facts: dict[str, Any] = {"split_version": version}
    if located.unlisted is not None:
        facts["images_not_listed"] = located.unlisted
    return index, sources | located.sources, facts


def _located(splits: dict[str, Any], count: int, path: Path) -> tuple[NDArray[np.int64], list[str]]:
    """Return the rows that are in a split, and in which."""
    rows, split_of = [], []
    for split in SPLITS:
        located = positions(splits[f"{split}_loc"], count, f"{path}: {split}_loc")
        rows.append(located)
        split_of += [split] * len(located)
    return np.concatenate(rows), split_of


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
    _check_images(_image_files(about, len(labels), path) or [], index.frame, path)
    with np.errstate(over="ignore"):  # whoever uses them refuses infinite ones
        return np.ascontiguousarray(features.T[row], dtype=np.float32)


def _check_images(listed: list[str], frame: pl.DataFrame, path: Path) -> None:
    """Refuse a features file whose rows are other images than those of the labels file."""
    there = frame["file" if "file" in frame.columns else "image"]
    for row, image in zip(frame["row"], there, strict=True) if listed else ():
        ours, theirs = _base_name(image), _base_name(listed[row])
        if ours != theirs and not NUMBERED.fullmatch(image):
            raise IcisError(
                f"{path}: row {row + 1} is of the image {theirs}, in the labels file it is {ours}; "
                "both files must have the same order"
            )


def _base_name(image: str) -> str:
    return PART.sub("", image.replace("\\", "/").rsplit("/", 1)[-1]).casefold()


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


def _image_files(about: dict[str, Any], count: int, path: Path) -> list[str] | None:
    if "image_files" not in about:
        return None
    names = strings(about["image_files"])
    if len(names) != count:
        raise IcisError(f"{path}: there are {count} labels but {len(names)} image_files")
    return names


def _numbered(count: int) -> list[str]:
    return [f"row-{number:06d}" for number in range(1, count + 1)]
