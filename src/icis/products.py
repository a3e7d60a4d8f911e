"""Products of a large matrix with a few rows.

PyTorch leaves float32 products on the CPU to MKL, which copies the large matrix first and takes
one core for it. oneDNN, which comes with PyTorch too, does neither.
"""

from __future__ import annotations

import torch
from torch.nn import functional

SMALL = 2**21
"""Multiplications of a product that MKL is quicker to begin."""


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return x Wᵀ + b, [N, out] from [N, in] and [out, in]; keeps nothing for autograd."""
    with torch.no_grad():
        if _by_onednn(x, len(weight)):
            y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
            return y
        return functional.linear(x, weight, bias)


def outer(u: torch.Tensor, x: torch.Tensor, room: torch.Tensor) -> torch.Tensor:
    """Return uᵀ x, [out, in] from [N, out] and [N, in]; maybe in ``room``, of the same shape.

    Memory that is asked for anew at every step is given back in between, and costs page faults.
    """
    with torch.no_grad():
        if _by_onednn(u.t(), x.shape[1]):  # it can only write where it likes
            return linear(u.t(), x.t())
        return torch.mm(u.t(), x, out=room)


def _by_onednn(x: torch.Tensor, outputs: int) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and x.numel() * outputs > SMALL  # it refuses empty products, too
    )
