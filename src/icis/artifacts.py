"""Artifacts on disk: Parquet with provenance in the schema metadata, written atomically."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from icis.errors import IcisError, explaining_disk

METADATA_KEY = b"icis"
CHECKSUMS_KEY = b"icis checksums"
"""Where a file has its ``Checksums``, as JSON."""
Checksums = dict[str, list[str]]
"""XXH3 (128 bits, hexadecimal) of the vectors of each row group, by column.

It takes as long as reading memory does, which Parquet's own checksums of pages do not."""
LIBRARIES = ("icis", "numpy", "pillow", "polars", "pyarrow", "scipy", "timm", "torch")


ROW_GROUP = 2048
"""Rows that are read by one thread at a time."""
PART = 1024
"""Rows of vectors that are copied and checked at a time."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; rename it into place when the block ends well.

    Raises DiskError where there is no room for it or it may not be written.
    """
    with explaining_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write indented JSON atomically, keys sorted."""
    write_text(path, json.dumps(data, indent=2, sort_keys=True) + "\n")


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise IcisError(f"{path} cannot be read: {error.strerror}") from error


def provenance(
    artifact: str,
    *,
    fingerprint: str,
    inputs: dict[str, Path],
    sources: dict[str, str] | None = None,
    sha256: Callable[[Path], str] = file_sha256,
    **facts: Any,
) -> dict[str, Any]:
    """Describe how an artifact came to be.

    ``inputs`` are the files read, by role; ``sources`` the hashes of the files that these were
    made from in turn. ``facts`` are whatever else a reader of the artifact should know.
    """
    hashes = input_hashes(inputs, sha256)
    lineage = dict(sources or {}) | {each["path"]: each["sha256"] for each in hashes.values()}
    return {
        "artifact": artifact,
        "fingerprint": fingerprint,
        "inputs": hashes,
        "sources": lineage,
        "versions": library_versions(),
        **facts,
    }


def input_hashes(
    inputs: dict[str, Path], sha256: Callable[[Path], str] = file_sha256
) -> dict[str, dict[str, str]]:
    """Return path and hash of the files that an artifact was made from, by role."""
    return {role: {"path": str(path), "sha256": sha256(path)} for role, path in inputs.items()}


@cache
def library_versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that numbers depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


@cache
def git_commit(folder: Path) -> str:
    """Return the commit of a checkout, with ``-dirty`` where files differ; empty outside of one."""
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def with_metadata(schema: pa.Schema, metadata: dict[str, Any]) -> pa.Schema:
    """Return the schema with the provenance in it."""
    return schema.with_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True).encode()})


def write_table(path: Path, table: pa.Table | pl.DataFrame, metadata: dict[str, Any]) -> None:
    """Write Parquet atomically with provenance metadata."""
    arrow = table.to_arrow() if isinstance(table, pl.DataFrame) else table
    arrow = arrow.replace_schema_metadata(with_metadata(arrow.schema, metadata).metadata)
    with atomic_path(path) as temporary, TableWriter(temporary, arrow.schema) as writer:
        writer.write(arrow)


class TableWriter:
    """Writes a Parquet file part by part, with the checksums of its vectors at the end."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self.writer = pq.ParquetWriter(path, schema, **storage(schema))
        kinds = {field.name: pa.types.is_fixed_size_binary(field.type) for field in schema}
        self.checksums: Checksums = {name: [] for name, vectors in kinds.items() if vectors}

    def __enter__(self) -> Self:
        return self

    def write(self, table: pa.Table) -> None:
        """Add the rows of a table, in groups of ``ROW_GROUP``."""
        table = table.cast(self.schema)
        for start in range(0, len(table), ROW_GROUP):
            part = table.slice(start, ROW_GROUP)
            self.writer.write_table(part)
            for name, found in self.checksums.items():
                found.append(_checksum(column_vectors(part[name])))

    def __exit__(self, *_: object) -> None:
        if any(self.checksums.values()):
            told = json.dumps(self.checksums, sort_keys=True)
            self.writer.add_key_value_metadata({CHECKSUMS_KEY: told})
        self.writer.close()


def _checksum(vectors: NDArray[np.float32]) -> str:
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(vectors).data)


def storage(schema: pa.Schema) -> dict[str, Any]:
    """Return how Parquet stores columns: checksums for all, and vectors as they are.

    They do not compress, reading them would wait for the decoding, and their least and greatest,
    which no checksum covers, mean nothing.
    """
    kinds = {field.name: pa.types.is_fixed_size_binary(field.type) for field in schema}
    others = [name for name, vectors in kinds.items() if not vectors]
    return {
        "compression": {name: "none" if vectors else "zstd" for name, vectors in kinds.items()},
        "use_dictionary": others,
        "write_statistics": others,
        "write_page_checksum": True,
    }


def read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    """Read Parquet; a damaged or missing file is named."""
    _require(path)
    try:
        # not pq.read_table: it brings pyarrow.dataset and pandas, a quarter of a second a process
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table, rows = file.read(columns), file.metadata.num_rows
    except (pa.ArrowException, OSError) as error:
        raise IcisError(f"{path} is not readable Parquet: {error}") from error
    if len(table) != rows:
        raise IcisError(f"{path} is damaged: {len(table)} of its {rows} rows can be read")
    return table


def _require(path: Path) -> None:
    if not path.exists():
        raise IcisError(f"{path} does not exist: the stage that makes it has not run yet")


def read_frame(path: Path) -> pl.DataFrame:
    """Read Parquet into polars."""
    frame = pl.from_arrow(read_table(path))
    assert isinstance(frame, pl.DataFrame)
    return frame


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the provenance metadata of a Parquet file."""
    _require(path)
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise IcisError(f"{path} is not readable Parquet: {error}") from error
    if METADATA_KEY not in metadata:
        raise IcisError(f"{path} was not written by icis: its schema metadata lacks 'icis'")
    try:
        found: dict[str, Any] = json.loads(metadata[METADATA_KEY])
    except ValueError as error:
        raise IcisError(f"{path} is damaged: its metadata is no JSON: {error}") from error
    return found


def read_vectors(path: Path, column: str = "vector") -> NDArray[np.float32]:
    """Read a column of vectors [N, D], row groups side by side, and check them."""
    _require(path)
    try:
        whole = pq.read_metadata(path)
        sizes = [whole.row_group(group).num_rows for group in range(whole.num_row_groups)]
        starts = np.cumsum([0, *sizes])
        width = pq.read_schema(path).field(column).type.byte_width // 4
        vectors = np.empty((whole.num_rows, width), dtype="<f4")
        known = json.loads((whole.metadata or {}).get(CHECKSUMS_KEY, b"{}")).get(column)
        # files of other programs have those of the pages at best, which take three times as long
        options = {"metadata": whole, "page_checksum_verification": known is None}

        def read(groups: range) -> None:
            with pq.ParquetFile(path, memory_map=True, **options) as file:
                for group in groups:
                    own, done = vectors[starts[group] : starts[group + 1]], 0
                    found = xxhash.xxh3_128()
                    for part in file.iter_batches(PART, [group], [column], use_threads=False):
                        piece = own[done : done + len(part)]
                        piece[:] = column_vectors(part.column(0))
                        found.update(piece.data)  # while the caches hold it
                        done += len(part)
                    if done != len(own):
                        raise ValueError(f"row group {group} has {done} of its {len(own)} rows")
                    if known is not None and found.hexdigest() != known[group]:
                        raise ValueError(f"row group {group} does not have its checksum")

        count = min(pa.cpu_count(), 8)
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(read, (range(first, len(sizes), count) for first in range(count))))
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        raise IcisError(f"{path} is not readable Parquet: {error}") from error
    return vectors


def vector_column(vectors: NDArray[np.float32]) -> pa.Array:
    """Return vectors [N, D] as FixedSizeBinary: little-endian float32, D of them a row."""
    data = np.ascontiguousarray(vectors, dtype="<f4")
    width = 4 * data.shape[1]
    return pa.Array.from_buffers(pa.binary(width), len(data), [None, pa.py_buffer(data)])


def column_vectors(column: pa.ChunkedArray) -> NDArray[np.float32]:
    """Return a FixedSizeBinary column as an array [N, D]."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    width = array.type.byte_width // 4
    flat = np.frombuffer(array.buffers()[1] or b"", dtype="<f4")
    start = array.offset * width
    return flat[start : start + len(array) * width].reshape(len(array), width)


def require_finite(vectors: NDArray[Any], what: str, names: Sequence[str]) -> None:
    """Refuse NaN and infinity, naming the first row."""
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise IcisError(
            f"{what}: {len(bad)} of {len(vectors)} rows hold NaN or infinity, "
            f"the first is row {bad[0] + 1} ({names[int(bad[0])]})"
        )
