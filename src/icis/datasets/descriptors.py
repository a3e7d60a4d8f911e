"""Descriptors: a vector for every class, from .mat, .npy, .csv or .parquet."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from icis.artifacts import column_vectors, read_metadata, read_table, require_finite
from icis.config import DescriptorSource
from icis.datasets.images import parse_table
from icis.datasets.index import Classes
from icis.datasets.matlab import read_variables, strings
from icis.errors import IcisError

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Descriptors:
    """Vectors [C, d] of a data set's classes, in their order."""

    vectors: Vectors
    classes: Classes

    def rows(self, *, seen: bool) -> Vectors:
        """Return the vectors of the seen classes, or of the unseen ones."""
        return self.vectors[np.asarray(self.classes.is_seen) == seen]


def read_descriptors(
    source: DescriptorSource, path: Path, data: bytes, classes: Classes
) -> Descriptors:
    """Read a descriptor file and join it to the classes by name (by order if it has no names)."""
    names, vectors = _READERS.get(path.suffix, _unknown)(source, path, data)
    if names is None:
        if len(vectors) != len(classes.names):
            raise IcisError(
                f"{path} has {len(vectors)} rows without names, the data set {len(classes.names)} "
                "classes; name the rows with 'classes: FILE'"
            )
    else:
        vectors = _join(names, vectors, classes, path)
    vectors = vectors.astype(np.float64)
    require_finite(vectors, f"{path}: descriptors", classes.names)
    _refuse_constant(vectors, classes, path)
    if source.normalize == "l2":
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return Descriptors(vectors.astype(np.float32), classes)


def load_descriptors(path: Path) -> Descriptors:
    """Read the artifact that the describe stage wrote."""
    vectors = column_vectors(read_table(path)["vector"])
    return Descriptors(vectors, Classes.from_metadata(read_metadata(path)))


Named = tuple[list[str] | None, NDArray[np.floating]]


def _from_mat(source: DescriptorSource, path: Path, data: bytes) -> Named:
    found = read_variables(path, [source.key], ("allclasses_names",))
    names = strings(found["allclasses_names"]) if "allclasses_names" in found else None
    if source.classes is not None:
        names = _lines(source.classes)
    vectors = np.asarray(found[source.key], dtype=np.float64)
    # xlsa17 stores [d, C]; a file whose rows are the classes is taken as it is
    if names is None or vectors.shape[1] == len(names):
        vectors = vectors.T
    return names, vectors


def _from_npy(source: DescriptorSource, path: Path, data: bytes) -> Named:
    try:
        vectors = np.load(io.BytesIO(data), allow_pickle=False)
    except ValueError as error:
        raise IcisError(f"{path} is no readable .npy file: {error}") from error
    if vectors.ndim != 2:
        raise IcisError(f"{path} holds {list(vectors.shape)}, expected [classes, components]")
    return (_lines(source.classes) if source.classes else None), vectors


def _from_table(source: DescriptorSource, path: Path, data: bytes) -> Named:
    frame = parse_table(data, path.name)
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


def _unknown(source: DescriptorSource, path: Path, data: bytes) -> Named:
    raise IcisError(f"{path}: descriptors are read from {', '.join(_READERS)}")


_READERS = {
    ".mat": _from_mat,
    ".npy": _from_npy,
    ".csv": _from_table,
    ".parquet": _from_table,
}


def _lines(name: str) -> list[str]:
    from icis.datasets.paths import expand

    path = expand(name)
    if not path.is_file():
        raise IcisError(f"{path}, the list of class names, does not exist")
    return [line.split("\t")[0] for line in path.read_text().splitlines() if line.strip()]


def _join(
    names: list[str], vectors: NDArray[np.floating], classes: Classes, path: Path
) -> NDArray[np.floating]:
    if len(names) != len(vectors):
        raise IcisError(f"{path} has {len(vectors)} rows for {len(names)} class names")
    rows = {name: row for row, name in enumerate(names)}
    if len(rows) != len(names):
        twice = next(name for row, name in enumerate(names) if rows[name] != row)
        raise IcisError(f"{path}: the class {twice!r} has two rows")
    missing = [name for name in classes.names if name not in rows]
    if missing:
        raise IcisError(f"{path}: {len(missing)} classes have no descriptor, first {missing[0]!r}")
    return vectors[[rows[name] for name in classes.names]]


def _refuse_constant(vectors: NDArray[np.floating], classes: Classes, path: Path) -> None:
    zero = np.flatnonzero(~vectors.any(axis=1))
    if len(zero):
        raise IcisError(f"{path}: the descriptor of class {classes.names[zero[0]]!r} is all zeros")
    if vectors.shape[1] > 1:
        flat = np.flatnonzero(np.ptp(vectors, axis=1) == 0)
        if len(flat):
            name, value = classes.names[flat[0]], vectors[flat[0], 0]
            raise IcisError(f"{path}: the descriptor of class {name!r} is constant ({value:g})")
    if len(vectors) > 1 and not np.ptp(vectors, axis=0).any():
        raise IcisError(f"{path}: all classes have the same descriptor, nothing tells them apart")
