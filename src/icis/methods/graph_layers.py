"""The layers of wDAE's graph network: dropout, activations and messages between nodes.

On the CPU, messages in float32 are worked out in parts that stay in the cache, and no tensor of
pairs [N * K, F] is formed: BatchNorm is done once a node, as its scale and shift of x_i + x_j are
those of x_i and of x_j. Everywhere else, ``Messages.plain`` says what is meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

SLOPE = 0.01
"""Of LeakyReLU below zero."""

COLUMNS, VALUES = 800, 240_000
"""At most so many columns a part, and values a buffer (1 MB, for the cache)."""


class SeededDropout(nn.Module):
    """Dropout that draws from a generator of its own, so that the global one stays untouched.

    On the CPU, numpy's SFC64 with the generator's first seed draws 16 bits a value, 20 times as
    fast as the generator does.
    """

    def __init__(self, probability: float, generator: torch.Generator) -> None:
        super().__init__()
        self.probability, self.generator = probability, generator
        self.words = np.random.SFC64(generator.initial_seed())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Zero a part of x [N, F] in training and scale the rest up; otherwise return x itself."""
        if not self.training or self.probability == 0:
            return x
        kept = 1 - self.probability
        if x.device.type == "cpu":
            return x * self.draw(*x.shape).to(x.dtype).div_(kept)
        return x * torch.empty_like(x).bernoulli_(kept, generator=self.generator).div_(kept)

    def draw(self, rows: int, columns: int) -> torch.Tensor:
        """Return 1 where a value is kept and 0 elsewhere, uint8 [rows, columns] on the CPU."""
        threshold = round((1 - self.probability) * 2**16)
        kept = np.empty((rows, columns), dtype=np.bool_)
        words = -(-columns // 4)  # a row begins with a word, so that parts of rows change no draw
        step = max(1, VALUES // words)
        for start in range(0, rows, step):
            part = kept[start : start + step]
            drawn = np.asarray(self.words.random_raw(len(part) * words)).view(np.uint16)
            np.less(drawn.reshape(len(part), -1)[:, :columns], threshold, out=part)
        return torch.from_numpy(kept.view(np.uint8))


class Joined(nn.Linear):
    """nn.Linear of rows in parts [N, in_k] side by side, which are never put together.

    No gradient is worked out for a part that asks for none.
    """

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        """Return [parts] Wᵀ + b, [N, out]."""
        y: torch.Tensor = _JoinedProduct.apply(self.weight, self.bias, *parts)  # type: ignore[no-untyped-call]
        return y


class _JoinedProduct(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, weight: torch.Tensor, bias: torch.Tensor | None, *parts: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(weight, *parts)
        ctx.widths = [part.shape[1] for part in parts]
        first, *others = torch.split(weight, ctx.widths, dim=1)
        y = functional.linear(parts[0], first, bias)
        for part, columns in zip(parts[1:], others, strict=True):
            y.addmm_(part, columns.t())
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradient = gradients[0]
        weight, *parts = ctx.saved_tensors
        of_weight = torch.empty_like(weight)
        for part, columns in zip(parts, torch.split(of_weight, ctx.widths, dim=1), strict=True):
            torch.mm(gradient.t(), part, out=columns)
        _, with_bias, *wanted = ctx.needs_input_grad
        of_parts = [
            gradient @ columns if wants else None
            for wants, columns in zip(wanted, torch.split(weight, ctx.widths, dim=1), strict=True)
        ]
        return of_weight, gradient.sum(dim=0) if with_bias else None, *of_parts


class Activation(nn.Module):
    """LeakyReLU(Dropout(BatchNorm(x))) of rows [N, F]."""

    def __init__(self, width: int, dropout: SeededDropout) -> None:
        super().__init__()
        self.norm, self.dropout = nn.BatchNorm1d(width), dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activations [N, F]."""
        return functional.leaky_relu(self.dropout(self.norm(x)), SLOPE)


class Messages(nn.Module):
    """m_i = Σ_j a_ij · LeakyReLU(Dropout(BatchNorm(W x_i + W x_j))) over the neighbours j of i."""

    def __init__(self, width_in: int, width: int, dropout: SeededDropout) -> None:
        super().__init__()
        self.linear = Joined(width_in, width, bias=False)
        self.activation = Activation(width, dropout)

    def forward(
        self, x: Sequence[torch.Tensor], neighbours: torch.Tensor, shares: torch.Tensor
    ) -> torch.Tensor:
        """Return messages [N, F] for nodes [N, E] with neighbours and shares a_ij [N, K].

        The nodes are in parts, side by side.
        """
        projected = self.linear(*x)  # once a node: the pairs only add
        quick = projected.device.type == "cpu" and projected.dtype == torch.float32
        # the quick way has no gradient for the shares, which those of edges() do not ask for
        way = self.quick if quick and not shares.requires_grad else self.plain
        return way(projected, neighbours, shares)

    def plain(
        self, projected: torch.Tensor, neighbours: torch.Tensor, shares: torch.Tensor
    ) -> torch.Tensor:
        """Return the messages [N, F] of projected nodes [N, F] by way of all pairs."""
        there = projected.index_select(0, neighbours.flatten()).view(*neighbours.shape, -1)
        pairs = self.activation((projected[:, None] + there).flatten(0, 1))
        return torch.bmm(shares[:, None], pairs.unflatten(0, neighbours.shape)).squeeze(1)

    def quick(
        self, projected: torch.Tensor, neighbours: torch.Tensor, shares: torch.Tensor
    ) -> torch.Tensor:
        """Return the same up to rounding, with the same draws; float32 on the CPU only."""
        normed = norm_of_pairs(self.activation.norm, projected, neighbours)
        dropout, kept = self.activation.dropout, None
        if dropout.training and dropout.probability > 0:
            kept = dropout.draw(neighbours.numel(), projected.shape[1])
            shares = shares / (1 - dropout.probability)  # LeakyReLU leaves a factor where it is
        messages: torch.Tensor = _PairSums.apply(normed, neighbours, shares, kept)  # type: ignore[no-untyped-call]
        return messages


def norm_of_pairs(
    norm: nn.BatchNorm1d, projected: torch.Tensor, neighbours: torch.Tensor
) -> torch.Tensor:
    """Return y [N, F] with y_i + y_j = BatchNorm(x_i + x_j) over all pairs, for x [N, F].

    In training, by the statistics of the pairs, with which the running ones are updated.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    if not norm.training:
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return (projected - norm.running_mean / 2) * scale + norm.bias / 2
    normed, mean, variance = _PairNorm.apply(  # type: ignore[no-untyped-call]
        projected, norm.weight, norm.bias, neighbours, norm.eps
    )
    pairs, momentum = neighbours.numel(), norm.momentum
    assert momentum is not None
    with torch.no_grad():
        norm.running_mean.lerp_(mean, momentum)
        norm.running_var.lerp_(variance * (pairs / (pairs - 1)), momentum)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked += 1
    found: torch.Tensor = normed
    return found


class _PairNorm(torch.autograd.Function):
    """BatchNorm of x_i + x_j in training, from sums over the nodes.

    With ``around`` the sum of (x_i + x_j) over the pairs that node n is in, either way, the sum of
    (x_i + x_j)² over all pairs is that of x_n · around_n over the nodes.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        neighbours: torch.Tensor,
        eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return y [N, F], and mean and biased variance of the pairs [F], without gradients."""
        others, offsets, counts = _both_ways(neighbours)
        counts = counts[:, None].to(x.dtype)
        pairs = neighbours.numel()
        half = (counts.t() @ x).squeeze(0) / (2 * pairs)  # of the pairs' mean
        centred = x - half
        around = functional.embedding_bag(others, centred, offsets, mode="sum")
        around.addcmul_(counts, centred)
        variance = (centred * around).sum(dim=0).div_(pairs).clamp_min_(0)
        inverse = (variance + eps).rsqrt()
        ctx.save_for_backward(centred, around, counts, inverse, weight)
        mean = 2 * half
        ctx.mark_non_differentiable(mean, variance)
        return torch.addcmul(bias / 2, centred, inverse * weight), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradient = gradients[0]
        centred, around, counts, inverse, weight = ctx.saved_tensors
        pairs = counts.sum() / 2
        of_weight = inverse * (gradient * centred).sum(dim=0)
        of_bias = gradient.sum(dim=0) / 2
        of_x = torch.addcmul(gradient, around, of_weight * inverse / -pairs)
        of_x.addcmul_(counts, of_bias / -pairs).mul_(inverse * weight)
        return of_x, of_weight, of_bias, None, None


def _both_ways(neighbours: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the other ends of each node's pairs, [2NK], where a node's begin, [N], their number.

    A node's pairs are those with its neighbours and those with nodes whose neighbour it is.
    """
    nodes, each = neighbours.shape
    here = torch.arange(nodes).repeat_interleave(each)
    there = neighbours.flatten()
    ends = torch.cat([here, there])
    counts = torch.bincount(ends, minlength=nodes)
    others = torch.cat([there, here])[ends.argsort(stable=True)]
    return others, counts.cumsum(0) - counts, counts


class _PairSums(torch.autograd.Function):
    """Σ_j a_ij · kept_ij · LeakyReLU(y_i + y_j), [N, F], for y [N, F]; pairs are formed anew."""

    @staticmethod
    def forward(
        ctx: Any,
        y: torch.Tensor,
        neighbours: torch.Tensor,
        shares: torch.Tensor,
        kept: torch.Tensor | None,
    ) -> torch.Tensor:
        ctx.save_for_backward(y, neighbours, shares, kept)
        sums = torch.zeros_like(y)
        slots, weights = neighbours.t().contiguous(), shares.t()[:, :, None]
        y = y.detach()  # other threads do not know that no gradient is wanted here

        def add(columns: slice) -> None:
            for nodes, slot, pairs, mask in _pairs(y, slots, kept, columns):
                functional.leaky_relu_(pairs, SLOPE).mul_(weights[slot, nodes])
                sums[nodes, columns].addcmul_(pairs, mask)

        _each_part(add, y.shape[1])
        return sums

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradient = gradients[0]
        y, neighbours, shares, kept = ctx.saved_tensors
        slots, weights = neighbours.t().contiguous(), shares.t()[:, :, None]
        of_y = torch.zeros_like(y)
        y = y.detach()

        def add(columns: slice) -> None:
            for nodes, slot, pairs, mask in _pairs(y, slots, kept, columns):
                pull = mask.mul_(gradient[nodes, columns]).mul_(weights[slot, nodes])
                torch.ops.aten.leaky_relu_backward.grad_input(
                    pull, pairs, SLOPE, False, grad_input=pull
                )
                of_y[nodes, columns].add_(pull)
                of_y[:, columns].index_add_(0, slots[slot, nodes], pull)

        _each_part(add, y.shape[1])
        return of_y, None, None, None


def _pairs(
    y: torch.Tensor, slots: torch.Tensor, kept: torch.Tensor | None, columns: slice
) -> Iterator[tuple[slice, int, torch.Tensor, torch.Tensor]]:
    """Yield some nodes, the number of a neighbour, y_i + y_j [n, columns] and what is kept of it.

    The last two (the latter as floats) may be written over, and are, with the next ones.
    """
    y = y[:, columns]
    step = max(1, VALUES // y.shape[1])
    room, mask_room = y.new_empty(2, step, y.shape[1])
    masks = None if kept is None else kept.view(len(y), len(slots), -1)[:, :, columns]
    for start in range(0, len(y), step):
        nodes = slice(start, min(start + step, len(y)))
        pairs, mask = room[: nodes.stop - start], mask_room[: nodes.stop - start]
        for slot, others in enumerate(slots):
            torch.index_select(y, 0, others[nodes], out=pairs)
            pairs.add_(y[nodes])
            if masks is None:
                mask.fill_(1)
            else:
                mask.copy_(masks[nodes, slot])
            yield nodes, slot, pairs, mask


def _each_part(work: Callable[[slice], None], width: int) -> None:
    """Do the work on each part of the columns; the parts do not depend on the number of threads.

    A thread takes whole parts: if all joined in each of the many short operations, they would wait
    for one another at every one, and for milliseconds where other processes run.
    """
    parts, threads = -(-width // COLUMNS), torch.get_num_threads()
    ends = [width * part // parts for part in range(parts + 1)]
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(work, (slice(*both) for both in pairwise(ends))))
    finally:
        torch.set_num_threads(threads)  # what a thread sets is what later ones start with
