"""Linear layers and their Adam, for large weights and few rows.

With 16 rows a batch, a training step costs what its passes over the weights' memory cost. So no
whole gradient is ever written: it is formed a block at a time, as a product of two thin matrices,
and used up by Adam while it is still in the cache. The numbers are those of nn.Linear and
torch.optim.Adam, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from icis.adam import Adam
from icis.products import linear, outer

BLOCK = 2**19
"""Components of a weight updated at once on the CPU; with moments and gradient 8 MiB."""


class Linear(nn.Linear):
    """nn.Linear that keeps the two factors of its weight's gradient instead of the gradient.

    It trains with ``BlockwiseAdam`` only, and is used once a step.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.weight.requires_grad_(False)  # autograd leaves it alone
        self.factors: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x Wᵀ + b, [N, out] from [N, in]."""
        y: torch.Tensor = _Product.apply(x, self.bias, self)  # type: ignore[no-untyped-call]
        return y


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, bias: torch.Tensor, layer: Linear) -> torch.Tensor:
        ctx.layer, ctx.x = layer, x.detach()
        return linear(x, layer.weight, bias)

    @staticmethod
    def backward(ctx: Any, *upstreams: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (upstream,) = upstreams
        ctx.layer.factors.append((upstream, ctx.x))
        below = linear(upstream, ctx.layer.weight.t()) if ctx.needs_input_grad[0] else None
        return below, upstream.sum(dim=0), None


class _Block:
    """Some rows of a weight with their moments."""

    def __init__(self, weight: torch.Tensor, rows: slice) -> None:
        self.rows, self.adam = rows, Adam([weight[rows]])

    def update(self, gradient: torch.Tensor, learning_rate: float) -> None:
        self.adam.step([gradient], learning_rate)


class BlockwiseAdam:
    """Adam with betas (0.9, 0.999) and no weight decay over ``Linear`` layers."""

    def __init__(self, layers: Iterable[Linear], *, learning_rate: float) -> None:
        self.layers = [(layer, _blocks(layer.weight.detach())) for layer in layers]
        biases = [layer.bias for layer, _ in self.layers]
        self.biases = torch.optim.Adam(biases, lr=learning_rate, fused=True)

    @property
    def learning_rate(self) -> float:
        """Return the learning rate, which a schedule of ``biases`` changes for the weights too."""
        return float(self.biases.param_groups[0]["lr"])

    @torch.no_grad()
    def step(self) -> None:
        """Update all weights and biases after a backward pass, and forget its gradients."""
        for layer, blocks in self.layers:
            [(upstream, x)] = layer.factors
            x = x.contiguous()
            for block in blocks:
                gradient = outer(upstream[:, block.rows], x)
                block.update(gradient, self.learning_rate)
            layer.factors.clear()
        self.biases.step()
        self.biases.zero_grad()


def _blocks(weight: torch.Tensor) -> list[_Block]:
    outputs, inputs = weight.shape
    size = max(BLOCK // inputs, 1) if weight.device.type == "cpu" else outputs
    return [_Block(weight, slice(row, row + size)) for row in range(0, outputs, size)]
