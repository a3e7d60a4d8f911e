"""MATLAB files as zero-shot data sets use them (both the old format and 7.3)."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from icis.errors import IcisError


def read_variables(path: Path, wanted: list[str], optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return variables of a .mat file; name those that are missing, and what there is."""
    if not path.is_file():
        raise IcisError(f"{path} does not exist")
    return _read(path, wanted, optional, path)


def read_variables_of(
    data: bytes, path: Path, wanted: list[str], optional: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return variables of a .mat file given by its bytes; ``path`` is its name in errors."""
    with tempfile.NamedTemporaryFile(suffix=".mat") as file:
        file.write(data)
        file.flush()
        return _read(Path(file.name), wanted, optional, path)


def _read(file: Path, wanted: list[str], optional: tuple[str, ...], path: Path) -> dict[str, Any]:
    from pymatreader import read_mat  # brings much of scipy: not for every job's start

    try:
        found = read_mat(str(file), variable_names=[*wanted, *optional])
        missing = [name for name in wanted if name not in found]
        names = sorted(read_mat(str(file))) if missing else []
    except Exception as error:  # scipy and h5py raise a zoo of types on damaged files
        raise IcisError(f"{path} is no readable .mat file: {error}") from error
    if missing:
        there = ", ".join(name for name in names if not name.startswith("_"))
        raise IcisError(f"{path} has no variable {missing[0]!r}; it has: {there}")
    return {name: found[name] for name in [*wanted, *optional] if name in found}


def strings(value: Any) -> list[str]:
    """Return a cell array of strings as a list, also when it holds a single one."""
    # a matrix of characters, which holds a string a row, pads them with spaces
    return [value] if isinstance(value, str) else [str(each).rstrip() for each in value]


def positions(value: Any, count: int, what: str) -> NDArray[np.int64]:
    """Return 1-based positions as 0-based ones; refuse any but whole numbers in 1 … count."""
    array = np.atleast_1d(np.asarray(value)).ravel()
    if array.dtype.kind not in "fiub":
        raise IcisError(f"{what}: expected whole numbers in 1 … {count}, not {array.dtype}")
    bad = np.flatnonzero(~((array >= 1) & (array <= count) & (array == np.floor(array))))
    if len(bad):
        raise IcisError(
            f"{what}: entry {bad[0] + 1} is {array[bad[0]]}, expected a whole number in 1 … {count}"
        )
    return array.astype(np.int64) - 1
