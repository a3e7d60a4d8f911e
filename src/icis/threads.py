"""Independent pieces of work side by side: seeds, or cells.

A small training gains little from a second core; two trainings at once gain nearly all of it. The
numbers are the same: a piece that has one thread of PyTorch's gives what it gives with several (of
what icis.products multiplies bit for bit, of other products up to rounding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_threads(work: Callable[[T], R], items: Iterable[T], *, device: str) -> list[R]:
    """Return ``work(item)`` of each item, in their order.

    On the CPU as many run at a time as PyTorch has threads, each with one of them; on a GPU, and
    within such a piece, one after the other. An error is raised when all have ended.
    """
    import torch

    items = list(items)
    count = torch.get_num_threads()
    if device != "cpu" or count == 1 or len(items) < 2:
        return [work(item) for item in items]
    torch.set_num_threads(1)
    try:
        # a new thread starts with its parent's setting for denormals
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, items))
    finally:
        torch.set_num_threads(count)


@contextmanager
def one_thread() -> Iterator[None]:
    """Give PyTorch one thread: what small steps are fastest with."""
    import torch

    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(count)
