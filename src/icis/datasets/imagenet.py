"""ImageNet's validation images, in any of the layouts that people have them in."""

from __future__ import annotations

import hashlib
import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from icis.config import ImageNetDataset
from icis.datasets.index import ImageIndex, build_index
from icis.datasets.joining import image_names, path_parts
from icis.datasets.matlab import read_variables_of, strings
from icis.datasets.paths import expand
from icis.datasets.sources import ImageSource, open_source
from icis.errors import IcisError

SOLUTION = "LOC_val_solution.csv"
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
WNID = re.compile(r"n\d{8}")
VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})(?!\d)", re.IGNORECASE)
LEAVES = 1000
"""The development kit numbers the classes of the challenge first, their parents after them."""


@dataclass
class Files:
    """What lies in the root: the images, and the files of labels that were read."""

    root: Path
    source: ImageSource
    names: list[str]
    images: list[str]
    hashes: dict[str, str] = field(default_factory=dict)

    def find(self, name: str) -> str | None:
        """Return the one file of this name, anywhere inside."""
        found = [each for each in self.names if path_parts(each)[-1] == name]
        if len(found) > 1:
            raise IcisError(f"{self.root} has {name} twice: {found[0]}, {found[1]}; leave one")
        return found[0] if found else None

    def read(self, name: str) -> bytes:
        """Return a file's bytes, and keep its hash."""
        data = self.source.read(name)
        self.hashes[f"{self.root}/{name}"] = hashlib.sha256(data).hexdigest()
        return data


def read_imagenet(config: ImageNetDataset) -> tuple[ImageIndex, dict[str, str]]:
    """Return the index of the validation images (classes: wnids), and the hashes of the files."""
    root = expand(config.root)
    source = open_source(root)
    names = source.names()
    files = Files(root, source, names, image_names(names))
    solution, truth = files.find(SOLUTION), files.find(GROUND_TRUTH)
    if solution is not None:
        classes = _by_number(files, _solution(files, solution), SOLUTION)
    elif truth is not None:
        classes = _by_number(files, _ground_truth(files, truth), GROUND_TRUTH)
    else:
        classes = _by_folder(files)
    images = sorted(classes)
    frame = pl.DataFrame({"image": images, "class": [classes[each] for each in images]})
    frame = frame.with_columns(split=pl.lit("test_seen"))
    wnids = sorted({*classes.values()})
    index = build_index(frame, wnids, source=str(root), test_only=True)
    return index, files.hashes | source.fingerprint(images)


def _folder_wnid(image: str) -> str | None:
    folders = path_parts(image)[:-1]
    return folders[-1] if folders and WNID.fullmatch(folders[-1]) else None


def _by_folder(files: Files) -> dict[str, str]:
    """Take each image's class from its folder."""
    found = {image: _folder_wnid(image) for image in files.images}
    classes = {image: wnid for image, wnid in found.items() if wnid is not None}
    if not classes:
        raise IcisError(
            f"{files.root}: looked for folders named by wnid (n01440764/*.JPEG), for {SOLUTION} "
            f"and for {GROUND_TRUTH} with {META}, and found none of them beside "
            f"{len(files.images)} images; put one there, or sort the images into wnid folders"
        )
    parents = sorted({"/".join(path_parts(image)[:-2]) or "." for image in classes})
    if len(parents) > 1:
        raise IcisError(
            f"{files.root}: wnid folders lie in {len(parents)} places ({', '.join(parents[:3])}); "
            "set root to the folder of the validation images alone"
        )
    stray = [image for image, wnid in found.items() if wnid is None]
    if stray:
        raise IcisError(
            f"{files.root}: {len(stray)} images lie in no wnid folder, the first is {stray[0]!r}; "
            "sort them in, or set root to the folder of the wnid folders"
        )
    return classes


def _by_number(files: Files, wnids: dict[int, str], labels: str) -> dict[str, str]:
    """Join labels to images by the number in the image's name."""
    images: dict[int, str] = {}
    for image in files.images:
        match = VALIDATION.match(path_parts(image)[-1])
        if match:
            number = int(match[1])
            if number in images:
                raise IcisError(f"{files.root}: {images[number]} and {image} are the same image")
            images[number] = image
    absent, unknown = sorted(wnids.keys() - images.keys()), sorted(images.keys() - wnids.keys())
    if absent:
        raise IcisError(
            f"{files.root}: {len(absent)} of the {len(wnids)} images of {labels} are absent, the "
            f"first is ILSVRC2012_val_{absent[0]:08d}.JPEG; put all of them there"
        )
    if unknown:
        raise IcisError(
            f"{files.root}: {labels} says nothing of {len(unknown)} images, the first is "
            f"{images[unknown[0]]!r}; is it cut off?"
        )
    for number, image in images.items():
        folder = _folder_wnid(image)
        if folder not in (None, wnids[number]):
            raise IcisError(f"{files.root}: {image!r} is {wnids[number]} according to {labels}")
    return {image: wnids[number] for number, image in images.items()}


def _solution(files: Files, name: str) -> dict[int, str]:
    """Read Kaggle's table: the first word of a prediction is the wnid."""
    what = f"{files.root}/{name}"
    try:
        table = pl.read_csv(io.BytesIO(files.read(name)), infer_schema=False)
    except pl.exceptions.PolarsError as error:
        raise IcisError(f"{what} is no readable table: {error}") from error
    for column in ("ImageId", "PredictionString"):
        if column not in table.columns:
            raise IcisError(f"{what} has no column {column!r}, only {', '.join(table.columns)}")
    found: dict[int, str] = {}
    for row, (image, prediction) in enumerate(
        table.select("ImageId", "PredictionString").iter_rows(), start=1
    ):
        match, words = VALIDATION.match(image or ""), (prediction or "").split()
        if match is None or not words or not WNID.fullmatch(words[0]):
            raise IcisError(
                f"{what}: row {row} is {image!r}, {prediction!r}; expected an image like "
                "ILSVRC2012_val_00000001 and a wnid like n01440764 first"
            )
        if found.setdefault(int(match[1]), words[0]) != words[0]:
            raise IcisError(f"{what}: row {row} gives {image} another wnid than a row before it")
    return found


def _ground_truth(files: Files, name: str) -> dict[int, str]:
    """Read the development kit: line k is the number of image k's class."""
    what = f"{files.root}/{name}"
    meta = files.find(META)
    if meta is None:
        raise IcisError(f"{what} needs {META} of the same development kit, which is not there")
    wnids = _wnids(files.read(meta), Path(f"{files.root}/{meta}"))
    found = {}
    lines = files.read(name).decode("utf-8", errors="replace").splitlines()
    for number, line in enumerate((each for each in lines if each.strip()), start=1):
        text = line.strip()
        if not text.isdecimal() or int(text) not in wnids:
            raise IcisError(
                f"{what}: line {number} is {text!r}, expected the number of a class of {META} "
                f"in 1 … {LEAVES}"
            )
        found[number] = wnids[int(text)]
    return found


def _wnids(data: bytes, path: Path) -> dict[int, str]:
    synsets: Any = read_variables_of(data, path, ["synsets"])["synsets"]
    try:
        numbers = [int(each) for each in _column(synsets["ILSVRC2012_ID"])]
        names = strings(synsets["WNID"])
        pairs = dict(zip(numbers, names, strict=True))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise IcisError(
            f"{path}: synsets has no ILSVRC2012_ID and WNID: it is no file of ImageNet 2012"
        ) from error
    return {number: name for number, name in pairs.items() if 1 <= number <= LEAVES}


def _column(value: Any) -> Any:
    return value if isinstance(value, list) else [value]
