"""The image index: every image with class and split, and the classes, seen or unseen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from icis.artifacts import read_frame, read_metadata
from icis.errors import IcisError
from icis.schema import suggest

SPLITS = ("trainval", "test_seen", "test_unseen")


@dataclass(frozen=True)
class Classes:
    """Class names in the data set's order, with their part in the split."""

    names: tuple[str, ...]
    is_seen: tuple[bool, ...]

    @property
    def seen(self) -> tuple[str, ...]:
        """Return the seen classes, in order."""
        return tuple(name for name, seen in zip(self.names, self.is_seen, strict=True) if seen)

    @property
    def unseen(self) -> tuple[str, ...]:
        """Return the unseen classes, in order."""
        return tuple(name for name, seen in zip(self.names, self.is_seen, strict=True) if not seen)

    def as_metadata(self) -> dict[str, Any]:
        """Return plain data for an artifact's metadata."""
        return {"names": list(self.names), "is_seen": list(self.is_seen)}

    @classmethod
    def from_metadata(cls, metadata: dict[str, Any]) -> Classes:
        """Read what ``as_metadata`` gave."""
        data = metadata["classes"]
        return cls(tuple(data["names"]), tuple(data["is_seen"]))


@dataclass(frozen=True)
class ImageIndex:
    """A row an image: ``image`` (a unique name), ``class``, ``split``, the reader's own columns."""

    frame: pl.DataFrame
    classes: Classes


def build_index(
    frame: pl.DataFrame, names: list[str], *, source: str, test_only: bool = False
) -> ImageIndex:
    """Check image, class and split of every row and tell seen from unseen classes.

    Seen are the classes with trainval images; with ``test_only`` all classes are, and all images
    test_seen. Every fault names the row or class.
    """
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise IcisError(f"{source}: the class name {repeated[0]!r} stands twice in the class list")
    _check_rows(frame, names, source)
    counts = {
        split: Counter(frame.filter(pl.col("split") == split)["class"].to_list())
        for split in SPLITS
    }
    if test_only:
        other = frame.filter(pl.col("split") != "test_seen")
        if len(other) or not len(frame):
            found = other["split"][0] if len(other) else "no image"
            raise IcisError(f"{source}: with test_only all images are test_seen; there is {found}")
        return ImageIndex(frame, Classes(tuple(names), (True,) * len(names)))
    is_seen = []
    for name in names:
        trainval, test_seen, test_unseen = (counts[split][name] for split in SPLITS)
        if test_unseen and (trainval or test_seen):
            raise IcisError(
                f"{source}: class {name!r} has {trainval + test_seen} images in trainval or "
                f"test_seen and {test_unseen} in test_unseen; a class is seen or unseen"
            )
        if test_seen and not trainval:
            raise IcisError(
                f"{source}: the seen class {name!r} has test_seen images but none in trainval"
            )
        if not (trainval or test_unseen):
            raise IcisError(
                f"{source}: class {name!r} has no image, so nothing says whether it is seen; "
                "give it images or take it from the class list"
            )
        is_seen.append(bool(trainval))
    classes = Classes(tuple(names), tuple(is_seen))
    for split, kind in (("trainval", "seen"), ("test_seen", "seen"), ("test_unseen", "unseen")):
        if not counts[split]:
            raise IcisError(f"{source}: there is no {split} image, so no {kind} class to work with")
    return ImageIndex(frame, classes)


def _check_rows(frame: pl.DataFrame, names: list[str], source: str) -> None:
    numbered = frame.select("image", "class", "split").with_row_index("row", 1)
    for column in ("image", "class", "split"):
        empty = numbered.filter(pl.col(column).is_null())
        if len(empty):
            raise IcisError(f"{source}: row {empty['row'][0]} has no {column}")
    wrong = numbered.filter(~pl.col("split").is_in(list(SPLITS)))
    if len(wrong):
        value, row = wrong["split"][0], wrong["row"][0]
        raise IcisError(f"{source}: row {row} has the split {value!r}; {suggest(value, SPLITS)}")
    foreign = frame.filter(~pl.col("class").is_in(names))
    if len(foreign):
        raise IcisError(
            f"{source}: image {foreign['image'][0]!r} has the class {foreign['class'][0]!r}, "
            "which the class list lacks"
        )
    twice = frame.filter(pl.col("image").is_duplicated())
    if len(twice):
        splits = ", ".join(twice.filter(pl.col("image") == twice["image"][0])["split"])
        raise IcisError(f"{source}: image {twice['image'][0]!r} is listed twice ({splits})")


def load_index(path: Path) -> tuple[ImageIndex, dict[str, Any]]:
    """Read an index and its metadata."""
    metadata = read_metadata(path)
    return ImageIndex(read_frame(path), Classes.from_metadata(metadata)), metadata
