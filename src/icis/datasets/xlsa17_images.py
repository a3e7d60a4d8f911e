"""The image files of a data set in xlsa17 layout: found by name, held against the labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from icis.artifacts import file_sha256
from icis.config import Xlsa17Dataset
from icis.datasets.class_folders import ClassFolders, check_folders, check_labels
from icis.datasets.joining import image_names, join_images
from icis.datasets.objects import list_files, object_boxes
from icis.datasets.paths import expand
from icis.datasets.sources import PART_COLUMNS, open_source
from icis.errors import IcisError


@dataclass(frozen=True)
class Located:
    """A row an image, with the hashes of the files; ``unlisted``: images that no row names."""

    rows: pl.DataFrame
    sources: dict[str, str] = field(default_factory=dict)
    unlisted: int | None = None


def unique_names(files: Sequence[str]) -> list[str]:
    """Return a name of its own for every row: rows may be parts of one image."""
    times = Counter(files)
    return [
        name if times[name] == 1 else f"{name}#{row}" for row, name in enumerate(files, start=1)
    ]


def locate_images(
    config: Xlsa17Dataset,
    listed: Sequence[str] | None,
    labels: Sequence[str],
    names: Sequence[str],
    used: NDArray[np.int64],
) -> Located:
    """Find the file of every row, and the box where rows are objects.

    ``labels`` are the classes of all rows, ``names`` the class list, ``used`` the rows that are in
    the splits.
    """
    source = str(expand(config.labels_file))
    if listed is None:
        raise IcisError(f"{source} has no image_files, by which images are found; leave images out")
    root = expand(config.images or "")
    images = open_source(root)
    present = image_names(images.names())
    files = join_images(listed, present, source=source, root=root)
    folders = ClassFolders(names)
    check_labels(files, labels, folders, source=source)
    in_splits = sorted({files[row] for row in used})
    check_folders(present, in_splits, folders, source=str(expand(config.splits)), root=root)

    columns: dict[str, Sequence[str] | Sequence[int | None]] = {"image": unique_names(files)}
    hashes: dict[str, str] = {}
    if config.boxes is not None:
        folder = expand(config.boxes)
        boxes = object_boxes(folder, listed, labels, source=source)
        columns |= _part_columns(files, boxes)
        hashes = {str(path): file_sha256(path) for path in list_files(folder)}
    elif len({*files}) < len(files):
        columns |= _part_columns(files, None)
    types = {"image": pl.String, "file": pl.String} | dict.fromkeys(PART_COLUMNS, pl.Int64)
    rows = pl.DataFrame(columns, schema={key: types[key] for key in columns})
    unlisted = len(present) - len({*files})
    return Located(rows, hashes | images.fingerprint(in_splits), unlisted)


def _part_columns(
    files: Sequence[str], boxes: Sequence[tuple[int, int, int, int]] | None
) -> dict[str, Sequence[str] | Sequence[int | None]]:
    """Return the columns that tell a row's file and box; no box is the whole image."""
    sides: dict[str, Sequence[int | None]] = {
        side: [None] * len(files) if boxes is None else [box[number] for box in boxes]
        for number, side in enumerate(PART_COLUMNS)
    }
    return {"file": files, **sides}
