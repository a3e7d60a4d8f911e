"""Heads that exist already: a classifier's last layer from a file, or a backbone's own."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file

from icis.artifacts import file_sha256
from icis.config import GivenHead
from icis.datasets.files import IMAGENET, is_array
from icis.datasets.images import parse_lines
from icis.datasets.paths import expand
from icis.describing.names import imagenet_wnids
from icis.errors import IcisError
from icis.heads import Head


def head_classes(config: GivenHead) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the class names of a given head's rows, and the hash of the file they stand in.

    ImageNet's names stand in timm: its version takes the place of a hash.
    """
    assert config.classes is not None
    if config.classes == IMAGENET:
        return imagenet_wnids(), {"timm ImageNetInfo": version("timm")}
    if is_array(config):
        path = _file(config)
        names = _array(_arrays(path), config.classes, path)
        return tuple(map(str, names.ravel())), {str(config.file): file_sha256(path)}
    path = expand(config.classes)
    if not path.is_file():
        raise IcisError(f"{path}, the list of the head's class names, does not exist")
    names = parse_lines(path.read_bytes(), str(path))
    return tuple(names), {config.classes: file_sha256(path)}


def read_arrays(config: GivenHead) -> tuple[Any, Any, dict[str, str]]:
    """Return weight and bias from a given head's file, and the file's hash."""
    path = _file(config)
    arrays = _arrays(path)
    weight, bias = (_array(arrays, name, path) for name in (config.weight, config.bias))
    return weight, bias, {str(config.file): file_sha256(path)}


def to_head(weight: Any, bias: Any, names: tuple[str, ...], source: str) -> Head:
    """Return arrays as a head; refuse what is not finite numbers of fitting shapes."""
    tensors = []
    for what, array in (("weight", weight), ("bias", bias)):
        if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
            raise IcisError(f"{source}: the {what} holds something else than finite numbers")
        tensors.append(torch.from_numpy(np.array(array, dtype=np.float32)))
    try:
        return Head(tensors[0], tensors[1], names)
    except IcisError as error:
        raise IcisError(f"{source}: {error}") from error


def without(head: Head, classes: tuple[str, ...]) -> Head:
    """Return a head without the rows of some classes, of which it need not have any."""
    rest = tuple(name for name in head.classes if name not in set(classes))
    if len(rest) < 2:
        raise IcisError(f"without the unseen classes the given head has {len(rest)} rows left")
    return head.restrict(rest)


def _file(config: GivenHead) -> Path:
    assert config.file is not None
    path = expand(config.file)
    if not path.is_file():
        raise IcisError(f"{path}, the given head, does not exist")
    return path


def _arrays(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                return dict(archive)
        arrays: dict[str, Any] = load_file(path)
        return arrays
    except (OSError, ValueError, EOFError, SafetensorError) as error:
        raise IcisError(f"{path} is no readable head: {error}") from error


def _array(arrays: dict[str, Any], name: str, path: Path) -> Any:
    if name not in arrays:
        raise IcisError(f"{path} has no array {name!r}, only {', '.join(sorted(arrays))}")
    return arrays[name]
