"""Names → pixels, in parallel and in order."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from icis.backbones import decode, pixel_transform
from icis.datasets.sources import ImageSource
from icis.errors import IcisError

PREFETCHED = 2
"""Chunks that each worker process decodes ahead of a GPU."""


@dataclass(frozen=True)
class Decoded:
    """Images side by side: uint8 [B, H, W, 3], the rows of the index that they are.

    Where ``unreadable`` names some, their pixels are undefined. ``seconds`` is the time that it
    took, summed over the cores at work.
    """

    rows: range
    pixels: torch.Tensor
    unreadable: list[str]
    seconds: float

    def pin_memory(self) -> Decoded:
        """Return the same in page-locked memory, from which copies to a GPU do not block."""
        return replace(self, pixels=self.pixels.pin_memory())


class Chunks(Dataset[Decoded]):
    """Rows of an index, a chunk an item; an unreadable image is named, not raised."""

    def __init__(
        self, source: ImageSource, names: Sequence[str], data: dict[str, Any], rows: list[range]
    ) -> None:
        self.source, self.names, self.rows = source, names, rows
        self.transform = pixel_transform(data)
        self.height, self.width = data["input_size"][-2:]

    def __len__(self) -> int:
        """Return the number of chunks."""
        return len(self.rows)

    def __getitem__(self, chunk: int) -> Decoded:
        """Return one chunk, decoded by this thread alone."""
        return self.decoded(chunk)

    def decoded(
        self, chunk: int, each: Callable[..., Iterable[str | None]] = map, cores: int = 1
    ) -> Decoded:
        """Return one chunk; ``each`` is ``map`` or that of a pool with ``cores`` threads."""
        started = time.perf_counter()
        rows = self.rows[chunk]
        pixels = np.empty((len(rows), self.height, self.width, 3), dtype=np.uint8)
        found = list(each(partial(self._fill, pixels, rows), range(len(rows))))
        unreadable = [message for message in found if message is not None]
        seconds = cores * (time.perf_counter() - started)
        return Decoded(rows, torch.from_numpy(pixels), unreadable, seconds)

    def _fill(self, pixels: NDArray[np.uint8], rows: range, place: int) -> str | None:
        try:
            pixels[place] = self.transform(decode(self.source, self.names[rows[place]]))
        except IcisError as error:
            return str(error)
        return None


def alternating(chunks: Chunks, threads: int) -> Iterator[Decoded]:
    """Yield chunk after chunk, each decoded when it is asked for, by a pool of threads.

    For the CPU, where decoding and the model share the cores: each in turn has them all. Pillow
    lets go of the interpreter's lock while it decodes and resizes.
    """
    with ThreadPoolExecutor(threads) as pool:
        for chunk in range(len(chunks)):
            yield chunks.decoded(chunk, pool.map, threads)


def ahead(chunks: Chunks, workers: int, *, pin: bool) -> Iterator[Decoded]:
    """Yield chunk after chunk, decoded by worker processes while a GPU runs the model."""
    loader: DataLoader[Any] = DataLoader(
        chunks,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=PREFETCHED,
        pin_memory=pin,
        generator=torch.Generator(),  # or it would draw a seed from the global one
    )
    yield from loader
