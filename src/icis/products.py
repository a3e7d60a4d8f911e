"""Products of a large matrix with a few rows, whose bits do not depend on the number of threads.

PyTorch leaves float32 products on the CPU to MKL, which copies the large matrix first and, on
processors of its own maker, adds up in another order for another number of threads. oneDNN, which
comes with PyTorch too, does neither.

TorchScript compiles everything here but ``libraries``, so it keeps to what that understands.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch.nn import functional


class Libraries(NamedTuple):
    """Which libraries multiply."""

    onednn: bool
    mkl_at_home: bool
    """Whether MKL has kernels for this processor: some are quicker there than oneDNN's."""


def libraries(like: torch.Tensor) -> Libraries:
    """Return the libraries for tensors of a device and type."""
    known = like.device.type == "cpu" and like.dtype == torch.float32
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return Libraries(known and available, known and available and _mkl_at_home())


@cache
def _mkl_at_home() -> bool:
    return str(torch.cpu.get_capabilities().get("cpu_name", "")).startswith("Intel")


def linear(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, by: Libraries
) -> torch.Tensor:
    """Return x Wᵀ + b, [N, out] from [N, in] and [out, in]."""
    if not by.onednn or x.numel() == 0 or weight.numel() == 0:  # it refuses empty products
        return functional.linear(x, weight, bias)
    rows = x.size(0)
    if rows == 1:  # a single row would be added up by threads
        x = x.expand(2, -1)
    if x.size(0) < weight.size(0) and weight.stride(1) == 1:
        # it copies the right-hand matrix, so that is to be the smaller one
        y = torch.ops.mkldnn._linear_pointwise(weight, x, None, "none", [], "").t()
        y = y if bias is None else y.add_(bias)
    else:
        y = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    found: torch.Tensor = y[:rows]
    return found


def outer(u: torch.Tensor, x: torch.Tensor, room: torch.Tensor, by: Libraries) -> torch.Tensor:
    """Return uᵀ x, [out, in] from [N, out] and [N, in]; maybe in ``room``, of the same shape.

    Memory that is asked for anew at every step is given back in between, and costs page faults.
    The few rows N are all that is added up, which MKL does in the same order for any number of
    threads, but for a single column and other layouts. A small product it is quicker to begin.
    """
    large = u.numel() * x.size(1) > 2**21
    if by.onednn and (x.size(1) == 1 or (large and not by.mkl_at_home)):
        return linear(u.t(), x.t(), None, by)
    return torch.mm(u.t(), x.contiguous(), out=room)
