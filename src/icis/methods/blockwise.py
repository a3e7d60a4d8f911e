"""Linear layers and their Adam, for large weights and few rows.

With 16 rows a batch, a training step costs what its passes over the weights' memory cost. So no
whole gradient is ever written: it is formed a block at a time, as a product of two thin matrices,
and used up by Adam while it is still in the cache. The numbers are those of nn.Linear and
torch.optim.Adam, up to rounding.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.adam import adam

BLOCK = 2**18
"""Components of a weight updated at once on the CPU; with moments and gradient 4 MiB."""


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
        y = super().forward(x)
        if y.requires_grad:  # through the bias at least
            rows = x.detach()
            y.register_hook(  # type: ignore[no-untyped-call]
                lambda upstream: self.factors.append((upstream, rows))
            )
        return y


class _Block:
    """Some rows of a weight with their moments."""

    def __init__(self, weight: torch.Tensor, rows: slice) -> None:
        self.rows, self.weight = rows, weight[rows]
        self.first, self.second = torch.zeros_like(self.weight), torch.zeros_like(self.weight)
        self.steps = torch.zeros((), dtype=torch.float32, device=weight.device)

    def update(self, gradient: torch.Tensor, learning_rate: float) -> None:
        adam(
            [self.weight], [gradient], [self.first], [self.second], [], [self.steps],
            foreach=False, fused=True, amsgrad=False, maximize=False,
            lr=learning_rate, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0,
        )  # fmt: skip


class BlockwiseAdam:
    """Adam with betas (0.9, 0.999) and no weight decay over ``Linear`` layers."""

    def __init__(self, layers: Iterable[Linear], *, learning_rate: float) -> None:
        self.layers = [(layer, _blocks(layer.weight.detach())) for layer in layers]
        biases = [layer.bias for layer, _ in self.layers]
        self.biases = torch.optim.Adam(biases, lr=learning_rate, fused=True)
        largest = max(block.weight.numel() for _, blocks in self.layers for block in blocks)
        self.memory = torch.empty(largest, device=biases[0].device)

    @property
    def learning_rate(self) -> float:
        """Return the learning rate, which a schedule of ``biases`` changes for the weights too."""
        return float(self.biases.param_groups[0]["lr"])

    @torch.no_grad()
    def step(self) -> None:
        """Update all weights and biases after a backward pass, and forget its gradients."""
        for layer, blocks in self.layers:
            [(upstream, x)] = layer.factors
            for block in blocks:
                gradient = self.memory[: block.weight.numel()].view_as(block.weight)
                torch.mm(upstream[:, block.rows].t(), x, out=gradient)
                block.update(gradient, self.learning_rate)
            layer.factors.clear()
        self.biases.step()
        self.biases.zero_grad()


def _blocks(weight: torch.Tensor) -> list[_Block]:
    outputs, inputs = weight.shape
    size = max(BLOCK // inputs, 1) if weight.device.type == "cpu" else outputs
    return [_Block(weight, slice(row, row + size)) for row in range(0, outputs, size)]
