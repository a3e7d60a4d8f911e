"""The steps of a seen head's training, an epoch as one operation.

A step is a handful of operations of some ten microseconds. From Python they would wait for its lock
wherever seeds run side by side, which cost as much as a second core gives.
"""

from __future__ import annotations

import torch

from icis.adam import Adam, adam_update
from icis.compiled import compiled
from icis.products import Libraries, libraries, linear, outer


class HeadSteps:
    """Steps of Adam on the mean cross-entropy of a head, weight [S, D] and bias [S], in place."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self.adam, self.room = Adam([weight, bias]), torch.empty_like(weight)

    @torch.no_grad()
    def __call__(self, x: torch.Tensor, y: torch.Tensor, batches: torch.Tensor) -> float:
        """Take a step on each batch [K, B] of rows of features [N, D] and classes [N].

        Return the mean of the losses before the steps.
        """
        adam = self.adam
        likelihoods = compiled(epoch)(
            x, y, batches, adam.values, adam.first, adam.second, adam.counts, self.room,
            self.learning_rate, libraries(x),
        )  # fmt: skip
        return -float(likelihoods.mean(dtype=torch.float64))


def epoch(
    x: torch.Tensor,
    y: torch.Tensor,
    batches: torch.Tensor,
    head: list[torch.Tensor],
    first: list[torch.Tensor],
    second: list[torch.Tensor],
    counts: list[torch.Tensor],
    room: torch.Tensor,
    learning_rate: float,
    by: Libraries,
) -> torch.Tensor:
    """Take the steps; return the logarithms of the likelihoods before each, [K, B, 1].

    The gradient is written down, (softmax - onehot) / B times x: autograd's overhead would be most
    of a step of this size. TorchScript compiles this, so it keeps to what that understands.
    """
    targets = y[batches].unsqueeze(2)
    minus = torch.full_like(targets[0], -1, dtype=x.dtype)
    found: list[torch.Tensor] = []
    for number in range(batches.size(0)):
        images, target = x.index_select(0, batches[number]), targets[number]
        log_p = linear(images, head[0], head[1], by).log_softmax(dim=1)
        found.append(log_p.gather(1, target))
        delta = log_p.exp_().scatter_add_(1, target, minus).mul_(1 / images.size(0))
        counts[0].add_(1)  # one tensor for both
        gradients = [outer(delta, images, room, by), delta.sum(dim=0)]
        adam_update(head, gradients, first, second, counts, learning_rate)
    return torch.stack(found)
