"""Products of a large matrix with a few rows, whose bits do not depend on the number of threads.

PyTorch leaves float32 products on the CPU to MKL, which copies the large matrix first and, on
processors of its own maker, adds up in another order for another number of threads. oneDNN, which
comes with PyTorch too, does neither.
"""

from __future__ import annotations

from functools import cache

import torch
from torch.nn import functional

SMALL = 2**21
"""Multiplications of an outer product that MKL is quicker to begin on any processor."""


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return x Wᵀ + b, [N, out] from [N, in] and [out, in]; keeps nothing for autograd."""
    with torch.no_grad():
        return linear_by(x, weight, bias, by_onednn(x, weight))


def linear_by(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, onednn: bool
) -> torch.Tensor:
    """Return ``linear`` by oneDNN or not. TorchScript compiles this."""
    if not onednn:
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


def outer(u: torch.Tensor, x: torch.Tensor, room: torch.Tensor | None = None) -> torch.Tensor:
    """Return uᵀ x, [out, in] from [N, out] and [N, in]; maybe in ``room``, of the same shape.

    Memory that is asked for anew at every step is given back in between, and costs page faults.
    The few rows N are all that is added up, which MKL does in the same order for any number of
    threads, but for a single column and other layouts.
    """
    with torch.no_grad():
        return outer_by(u, x, room, outer_by_onednn(u, x))


def outer_by(
    u: torch.Tensor, x: torch.Tensor, room: torch.Tensor | None, onednn: bool
) -> torch.Tensor:
    """Return ``outer`` by oneDNN or not. TorchScript compiles this."""
    if onednn:
        return linear_by(u.t(), x.t(), None, True)
    x = x.contiguous()
    return torch.mm(u.t(), x) if room is None else torch.mm(u.t(), x, out=room)


def outer_by_onednn(u: torch.Tensor, x: torch.Tensor) -> bool:
    """Return whether oneDNN is the one for ``outer``."""
    large = len(u) * u.shape[1] * x.shape[1] > SMALL
    return (x.shape[1] == 1 or (large and not _at_home())) and by_onednn(u.t(), x.t())


def by_onednn(x: torch.Tensor, weight: torch.Tensor) -> bool:
    """Return whether oneDNN is the one for ``linear``."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and x.numel() * weight.numel() > 0  # it refuses empty products
    )


@cache
def _at_home() -> bool:
    """Return whether MKL has kernels for this processor: they are quicker there than oneDNN's."""
    return str(torch.cpu.get_capabilities().get("cpu_name", "")).startswith("Intel")
