"""Errors of single images on their way out of a DataLoader's workers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, default_collate

from icis.errors import IcisError


def collate(items: list[Any]) -> Any:
    """Join items into a batch; the first error among them is all there is of theirs."""
    errors = (item for item in items if isinstance(item, IcisError))
    return next(errors, None) or default_collate(items)


def batches(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield a loader's batches; raise an error that one of its items is.

    An error raised in a loader's worker would arrive as the text of its traceback.
    """
    for batch in loader:
        if isinstance(batch, IcisError):
            try:
                raise batch
            finally:
                del batch  # its traceback holds this frame: a cycle would keep the workers alive
        yield batch
