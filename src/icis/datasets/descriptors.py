"""Descriptors: a vector for every class; those from .mat, .npy, .csv or .parquet files."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from icis.artifacts import column_vectors, read_metadata, read_table, require_finite
from icis.config import FileDescriptors
from icis.datasets.images import parse_lines, parse_table
from icis.datasets.index import Classes
from icis.datasets.matlab import read_variables_of, strings
from icis.datasets.paths import expand
from icis.errors import IcisError

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Descriptors:
    """Vectors [C, d] of a data set's classes, in their order."""

    vectors: Vectors
    classes: Classes

    def rows(self, *, seen: bool) -> Vectors:
        """Return the vectors of the seen classes, or of the unseen ones."""
        chosen: Vectors = self.vectors[np.asarray(self.classes.is_seen) == seen]
        return chosen


def read_descriptors(
    source: FileDescriptors, path: Path, data: bytes, classes: Classes
) -> Descriptors:
    """Read a descriptor file and join it to the classes by name (by order if it has no names)."""
    names, given = _READERS.get(path.suffix, _unknown)(source, path, data)
    if given.dtype.kind not in "fiub" or given.ndim != 2 or not given.size:
        raise IcisError(
            f"{path} holds {list(given.shape)} of {given.dtype}, expected numbers "
            "[classes, components]"
        )
    vectors = given.astype(np.float64)
    if path.suffix == ".mat" and vectors.shape[1] == len(names or classes.names):
        vectors = vectors.T  # xlsa17 stores [d, C]; a file whose rows are the classes is fine too
    if names is not None:
        vectors = _join(names, vectors, classes, path)
    elif len(vectors) != len(classes.names):
        raise IcisError(
            f"{path} has {len(vectors)} rows without names, the data set {len(classes.names)} "
            "classes; name the rows with 'classes: FILE'"
        )
    return checked(vectors, classes, str(path), source.normalize)


def checked(
    vectors: NDArray[np.float64], classes: Classes, what: str, normalize: str
) -> Descriptors:
    """Return vectors [C, d] of the classes in single precision, scaled as ``normalize`` says.

    NaN, infinity, zeros, constant vectors, and the same vector for all, are refused.
    """
    require_finite(vectors, f"{what}: descriptors", classes.names)
    _refuse_constant(vectors, classes, what)
    if normalize == "l2":
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    with np.errstate(over="ignore"):
        single = vectors.astype(np.float32)
    require_finite(single, f"{what}: descriptors as float32", classes.names)
    _refuse_constant(single, classes, what)
    return Descriptors(single, classes)


def load_descriptors(path: Path) -> Descriptors:
    """Read the artifact that the describe stage wrote."""
    vectors: Vectors = column_vectors(read_table(path)["vector"])
    return Descriptors(vectors, Classes.from_metadata(read_metadata(path)))


Named = tuple[list[str] | None, NDArray[Any]]
"""Names of the rows, if they have any, and the rows."""


def _from_mat(source: FileDescriptors, path: Path, data: bytes) -> Named:
    found = read_variables_of(data, path, [source.key], ("allclasses_names",))
    names = strings(found["allclasses_names"]) if "allclasses_names" in found else None
    if source.classes is not None:
        names = _lines(source.classes)
    return names, np.atleast_2d(np.asarray(found[source.key]))


def _from_npy(source: FileDescriptors, path: Path, data: bytes) -> Named:
    try:
        vectors = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise IcisError(f"{path} is no readable .npy file: {error}") from error
    if not isinstance(vectors, np.ndarray):
        raise IcisError(f"{path} holds several arrays (.npz), expected one (.npy)")
    return (_lines(source.classes) if source.classes else None), vectors


def _from_table(source: FileDescriptors, path: Path, data: bytes) -> Named:
    frame = parse_table(data, str(path), text=[source.class_column])
    if source.class_column not in frame.columns:
        raise IcisError(
            f"{path}: there is no column {source.class_column!r}, only "
            f"{', '.join(frame.columns[:8])}; set class_column"
        )
    values = frame.drop(source.class_column)
    for name, dtype in values.schema.items():
        if not dtype.is_numeric():
            raise IcisError(f"{path}: the column {name!r} is {dtype}, not a number")
    names = frame[source.class_column].cast(pl.String).to_list()
    return names, values.cast(pl.Float64).to_numpy()


def _unknown(source: FileDescriptors, path: Path, data: bytes) -> Named:
    raise IcisError(f"{path}: descriptors are read from {', '.join(_READERS)}")


_READERS = {
    ".mat": _from_mat,
    ".npy": _from_npy,
    ".csv": _from_table,
    ".parquet": _from_table,
}


def _lines(name: str) -> list[str]:
    path = expand(name)
    if not path.is_file():
        raise IcisError(f"{path}, the list of class names, does not exist")
    return parse_lines(path.read_bytes(), str(path))


def _join(
    names: list[str], vectors: NDArray[np.float64], classes: Classes, path: Path
) -> NDArray[np.float64]:
    if len(names) != len(vectors):
        raise IcisError(f"{path} has {len(vectors)} rows for {len(names)} class names")
    rows = {name: row for row, name in enumerate(names)}
    if len(rows) != len(names):
        twice = next(name for row, name in enumerate(names) if rows[name] != row)
        raise IcisError(f"{path}: the class {twice!r} has two rows")
    missing = [name for name in classes.names if name not in rows]
    if missing:
        raise IcisError(
            f"{path}: {len(missing)} of {len(classes.names)} classes have no descriptor, "
            f"the first is {missing[0]!r}"
        )
    return vectors[[rows[name] for name in classes.names]]


def _refuse_constant(vectors: NDArray[np.floating], classes: Classes, what: str) -> None:
    zero = np.flatnonzero(~vectors.any(axis=1))
    if len(zero):
        raise IcisError(f"{what}: the descriptor of class {classes.names[zero[0]]!r} is all zeros")
    if vectors.shape[1] > 1:
        flat = np.flatnonzero(np.ptp(vectors, axis=1) == 0)
        if len(flat):
            name, value = classes.names[flat[0]], vectors[flat[0], 0]
            raise IcisError(f"{what}: the descriptor of class {name!r} is constant ({value:g})")
    if len(vectors) > 1 and not np.ptp(vectors, axis=0).any():
        raise IcisError(f"{what}: all classes have the same descriptor, nothing tells them apart")
