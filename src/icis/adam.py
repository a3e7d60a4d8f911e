"""Adam (Kingma & Ba, 2015) as one operation, without the class torch.optim.Adam.

Its steps here are short and many: what the class does around the operation would cost more than the
operation.
"""

from __future__ import annotations

import torch

Tensors = list[torch.Tensor]


def adam_update(
    values: Tensors,
    gradients: Tensors,
    first: Tensors,
    second: Tensors,
    counts: Tensors,
    learning_rate: float,
) -> None:
    """Take one step in place, with betas (0.9, 0.999), eps 1e-8 and no weight decay.

    ``first`` and ``second`` are the moments, of the values' shapes; ``counts`` (float, scalar) say
    which step it is, from 1. All lie on one device, which is not waited for. TorchScript compiles
    it.
    """
    with torch.no_grad():
        torch._fused_adam_(
            values, gradients, first, second, [], counts,
            lr=learning_rate, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8,
            amsgrad=False, maximize=False,
        )  # fmt: skip


class Adam:
    """Adam over some tensors whose gradients are at hand."""

    def __init__(self, values: Tensors) -> None:
        self.values = values
        self.first = [torch.zeros_like(each) for each in self.values]
        self.second = [torch.zeros_like(each) for each in self.values]
        self.count = torch.zeros((), device=values[0].device)

    @property
    def counts(self) -> Tensors:
        """Return the number of the step once for each of the values: one tensor for all."""
        return [self.count] * len(self.values)

    def step(self, gradients: Tensors, learning_rate: float) -> None:
        """Take one step by gradients in the order of the values; see ``adam_update``."""
        self.count.add_(1)
        adam_update(self.values, gradients, self.first, self.second, self.counts, learning_rate)
