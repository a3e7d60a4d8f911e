"""The objects of aPascal & aYahoo: boxes in images, from the lists that come with attributes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from icis.datasets.class_folders import plain
from icis.datasets.joining import path_parts
from icis.datasets.sources import Box
from icis.errors import IcisError

LISTS = ("apascal_train.txt", "apascal_test.txt", "ayahoo_test.txt")
"""A line an object: image, class, x1 y1 x2 y2 (from 1, both ends included), attributes."""

Key = tuple[str, str]


def object_boxes(
    folder: Path, files: Sequence[str], classes: Sequence[str], *, source: str
) -> list[Box]:
    """Return each row's box: the k-th row of an image and class has the k-th line of the two.

    ``files`` are paths, of which the last component counts.
    """
    lines = _read_lists(folder)
    taken: Counter[Key] = Counter()
    boxes, lacking = [], []
    for row, (file, name) in enumerate(zip(files, classes, strict=True), start=1):
        key = _key(path_parts(file)[-1], name)
        if taken[key] < len(lines[key]):
            boxes.append(lines[key][taken[key]])
        else:
            lacking.append((row, file, name))
        taken[key] += 1
    if lacking:
        row, file, name = lacking[0]
        known = len(lines[_key(path_parts(file)[-1], name)])
        raise IcisError(
            f"{source}: {len(lacking)} of {len(files)} rows have no box in the lists of {folder}; "
            f"the first is row {row}, {name!r} in {file!r}, of which the lists have {known}"
        )
    left = {key: len(found) - taken[key] for key, found in lines.items()}
    over = {key: count for key, count in left.items() if count > 0}
    if over:
        name, file = next(iter(over))[::-1]
        raise IcisError(
            f"{folder}: the lists have {sum(over.values())} objects more than {source} has rows, "
            f"the first is {name!r} in {file!r}; is that file cut off?"
        )
    return boxes


def list_files(folder: Path) -> list[Path]:
    """Return the lists of objects; an absent one is named."""
    paths = [folder / name for name in LISTS]
    for path in paths:
        if not path.is_file():
            raise IcisError(
                f"{path} does not exist; boxes should name the folder of {', '.join(LISTS)}"
            )
    return paths


def _key(file: str, name: str) -> Key:
    return file.casefold(), plain(name)


def _read_lists(folder: Path) -> defaultdict[Key, list[Box]]:
    found = defaultdict(list)
    for path in list_files(folder):
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                file, name, box = _parse(line, f"{path}: line {number}")
                found[_key(path_parts(file)[-1], name)].append(box)
    return found


def _parse(line: str, where: str) -> tuple[str, str, Box]:
    fields = line.split()
    try:
        file, name = fields[:2]
        x1, y1, x2, y2 = (int(each) for each in fields[2:6])
    except ValueError as error:
        raise IcisError(
            f"{where}: expected image, class, x1 y1 x2 y2 in whole numbers and attributes, "
            f"not {line[:60].strip()!r}"
        ) from error
    if x2 < x1 or y2 < y1:
        raise IcisError(f"{where}: the box {x1} {y1} {x2} {y2} of {file} is empty")
    return file, name, (x1 - 1, y1 - 1, x2, y2)
