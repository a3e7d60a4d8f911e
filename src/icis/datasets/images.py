"""Data sets of images: a folder or a tar, with a table of splits."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from icis.config import ImagesDataset
from icis.datasets.index import ImageIndex, build_index
from icis.datasets.paths import expand
from icis.datasets.sources import ImageSource, open_source
from icis.errors import IcisError


def read_images(config: ImagesDataset) -> tuple[ImageIndex, dict[str, str]]:
    """Return the index of the listed images, and the hashes of all files that it depends on."""
    root = expand(config.root)
    source = open_source(root)
    files = {config.splits: read_beside(config.splits, source, root)}
    columns = {
        config.file_column: "image",
        config.class_column: "class",
        config.split_column: "split",
    }
    frame = parse_table(files[config.splits], config.splits, text=list(columns))
    for column in columns:
        if column not in frame.columns:
            raise IcisError(
                f"{config.splits}: there is no column {column!r}, only {', '.join(frame.columns)}; "
                "set file_column, class_column, split_column"
            )
    frame = frame.select(pl.col(old).cast(pl.String).alias(new) for old, new in columns.items())
    names = sorted(frame["class"].drop_nulls().unique().to_list())
    if config.class_list is not None:
        files[config.class_list] = read_beside(config.class_list, source, root)
        names = parse_lines(files[config.class_list], config.class_list)
    index = build_index(frame, names, source=config.splits, test_only=config.test_only)
    for name in frame["image"]:
        if not source.has(name):
            raise IcisError(f"{config.splits} lists {name!r}, which {root} lacks")
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    return index, hashes | source.fingerprint(sorted(frame["image"]))


def read_beside(name: str, source: ImageSource, root: Path) -> bytes:
    """Return the bytes of a file given by its path, or by its name inside the source."""
    path = expand(name)
    if path.is_file():
        return path.read_bytes()
    if not path.is_absolute() and source.has(name):
        return source.read(name)
    raise IcisError(f"{name} is neither a file here nor inside {root}")


def parse_lines(data: bytes, name: str) -> list[str]:
    """Return the names in a text file, one a line; text after a tab is ignored."""
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise IcisError(f"{name} is no text in UTF-8: {error}") from error
    return [line.split("\t")[0] for line in lines if line.strip()]


def parse_table(data: bytes, name: str, *, text: Sequence[str] = ()) -> pl.DataFrame:
    """Read a CSV or Parquet table from its bytes; a CSV's columns ``text`` are not numbers."""
    try:
        if name.endswith(".parquet"):
            return pl.read_parquet(io.BytesIO(data))
        types = dict.fromkeys(text, pl.String)
        frame = pl.read_csv(io.BytesIO(data), infer_schema_length=None, schema_overrides=types)
        return frame.filter(~pl.all_horizontal(pl.all().is_null()))  # empty lines
    except (pl.exceptions.PolarsError, OSError) as error:
        raise IcisError(f"{name} is no readable table: {error}") from error
