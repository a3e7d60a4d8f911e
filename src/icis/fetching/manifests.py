"""The list of a source's files with their sizes and hashes, as a Parquet file."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from icis import layout
from icis.artifacts import read_table, write_table
from icis.errors import IcisError
from icis.fetching.receipts import content, read_receipt
from icis.fetching.unpacking import Member


def write_manifest(name: str, members: Iterable[Member]) -> None:
    """Write the list of a source's files: columns path, size, sha256, sorted by path."""
    rows = sorted(members, key=lambda member: member.path)
    table = pa.table(
        {
            "path": pa.array([row.path for row in rows], pa.string()),
            "size": pa.array([row.size for row in rows], pa.int64()),
            "sha256": pa.array([row.sha256 for row in rows], pa.string()),
        }
    )
    write_table(layout.manifest(name), table, {"artifact": "fetched_files", "source": name})


def read_manifest(name: str) -> dict[str, Member]:
    """Return the list of a source's files by their paths; refuse one that is not the receipt's.

    Raises
    ------
    IcisError
        The source was not fetched; the list is damaged.
    """
    receipt = read_receipt(name)
    if receipt is None:
        raise IcisError(f"{name} was not fetched; run: icis data fetch {name}")
    rows = read_table(layout.manifest(name), ["path", "size", "sha256"]).to_pylist()
    members = {row["path"]: Member(row["path"], row["size"], row["sha256"]) for row in rows}
    if content(members.values()) != receipt.content:
        raise IcisError(
            f"{layout.manifest(name)} does not belong to {layout.receipt(name)}; delete both and "
            f"run: icis data fetch {name}"
        )
    return members
