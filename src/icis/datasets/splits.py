"""Which version of the Proposed Splits a file is, and the split of trainval for tuning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from icis.datasets.index import SPLITS, Classes
from icis.datasets.matlab import positions, read_variables
from icis.errors import IcisError

V1: Final = "xlsa17-1.0"
V2: Final = "xlsa17-2.0"
Version = Literal["xlsa17-1.0", "xlsa17-2.0", "cannot be told"]
TUNING = ("train_loc", "val_loc")


def recognise_split(variables: Mapping[str, Any]) -> Version:
    """Tell version 1.0 from 2.0, which differ in train_loc and val_loc only.

    In 1.0 these hold images of test_seen; in 2.0 they are parts of trainval.
    """
    if any(key not in variables for key in TUNING):
        return "cannot be told"
    tuning = _numbers(variables["train_loc"]) | _numbers(variables["val_loc"])
    if tuning & _numbers(variables["test_seen_loc"]):
        return V1
    inside = tuning and tuning <= _numbers(variables["trainval_loc"])
    return V2 if inside else "cannot be told"


def _numbers(value: Any) -> set[Any]:
    return {*np.ravel(value).tolist()}


def split_version(stated: str, variables: Mapping[str, Any], path: Path) -> str:
    """Return the version for the record; refuse a stated one that the file contradicts."""
    found = recognise_split(variables)
    if stated == "recognise":
        if found != "cannot be told":
            return found
        lacking = [key for key in TUNING if key not in variables]
        why = f"the file has no {lacking[0]}" if lacking else "train_loc and val_loc fit neither"
        return f"xlsa17 (1.0 or 2.0: {why})"
    if stated not in (V1, V2):  # a split of one's own
        return stated
    if found == "cannot be told":
        return f"{stated} (as stated; the file cannot tell)"
    if stated != found:
        raise IcisError(
            f"{path} is {found}, judging by its train_loc and val_loc, but split_version says "
            f"{stated}; use the file of that version, or set split_version: recognise"
        )
    return stated


def tuning_split(path: Path | str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the 0-based rows of train_loc and val_loc, to tune on; refuse those of version 1.0."""
    path = Path(path)
    found = read_variables(path, [f"{split}_loc" for split in SPLITS], TUNING)
    lacking = [key for key in TUNING if key not in found]
    if lacking:
        raise IcisError(
            f"{path} has no {lacking[0]}; make the tuning split from the class lists "
            "(trainclasses1.txt, valclasses1.txt)"
        )
    many = np.iinfo(np.int32).max  # how many images there are, this file does not say
    rows = {key: positions(value, many, f"{path}: {key}") for key, value in found.items()}
    train, val = (rows[key] for key in TUNING)
    both = np.union1d(train, val)
    for split in ("test_seen", "test_unseen"):
        shared = len(np.intersect1d(both, rows[f"{split}_loc"]))
        if shared:
            raise IcisError(
                f"{path}: train_loc and val_loc hold {shared} of the "
                f"{len(rows[f'{split}_loc'])} images of {split}: tuning on them is tuning on the "
                "test. Use version 2.0 of the splits, or the class lists (trainclasses1.txt, "
                "valclasses1.txt)"
            )
    shared = len(np.intersect1d(train, val))
    if shared:
        raise IcisError(f"{path}: {shared} images are in both train_loc and val_loc")
    outside = len(np.setdiff1d(both, rows["trainval_loc"]))
    if outside:
        raise IcisError(f"{path}: {outside} images of train_loc and val_loc are not in trainval")
    return train, val


def tuning_split_from_lists(
    folder: Path | str, number: int, classes: Classes
) -> tuple[list[str], list[str]]:
    """Return the training and validation classes of official tuning split 1, 2 or 3.

    They come from ``trainclasses<N>.txt`` and ``valclasses<N>.txt``, in the data set's order; a
    class that is not seen, or in both, is refused.
    """
    if number not in (1, 2, 3):
        raise IcisError(f"there is no tuning split {number}; there are 1, 2, 3")
    train, val = (
        _class_list(Path(folder) / f"{part}classes{number}.txt", classes)
        for part in ("train", "val")
    )
    both = sorted(train & val)
    if both:
        raise IcisError(
            f"{folder}: {both[0]!r} is in both trainclasses{number}.txt and valclasses{number}.txt"
        )
    return [name for name in classes.seen if name in train], [
        name for name in classes.seen if name in val
    ]


def class_list(path: Path) -> list[str]:
    """Return the class names in a text file, one a line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise IcisError(f"{path} is no readable list of classes: {error}") from error
    return [line.strip() for line in lines if line.strip()]


def _class_list(path: Path, classes: Classes) -> set[str]:
    names = class_list(path)
    if not names:
        raise IcisError(f"{path} names no class")
    for name in names:
        if name not in classes.seen:
            kind = "an unseen class" if name in classes.unseen else "no class of the data set"
            raise IcisError(f"{path}: {name!r} is {kind}; tuning takes seen classes only")
    return {*names}
