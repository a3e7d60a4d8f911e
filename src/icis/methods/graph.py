"""The denoising graph network of wDAE-GNN: class weights in, refined class weights out.

After Gidaris & Komodakis, "Generating Classification Weights with GNN Denoising Autoencoders for
Few-Shot Learning" (CVPR 2019), as the image-free setting adapts them (PAPER: Baselines). A node is
a class, its value a row [weight, bias] of size D + 1; B graphs of C classes are one [B, C, D + 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from icis.adam import Adam
from icis.errors import IcisError
from icis.methods.base import Progress
from icis.methods.graph_layers import Activation, Joined, Messages, SeededDropout
from icis.seeding import derive_seed

COPIES = 4
"""Graphs a step, and into how many parts the classes are split: each copy lacks one part."""


class DenoisingGraph(nn.Module):
    """``layers`` rounds of messages; the last one returns in + sigmoid(gate) · residual.

    A hidden layer gives [x_i; LeakyReLU(Dropout(BatchNorm(V [x_i; m_i])))], the last one a linear
    map (with bias) of [x_i; m_i] to residual and gate, D + 1 components each.
    """

    def __init__(
        self, width: int, *, layers: int, factor: int, dropout: float, seed: int, device: str
    ) -> None:
        super().__init__()
        hidden = factor * width
        generator = torch.Generator(device).manual_seed(derive_seed("graph dropout", seed))
        drop = SeededDropout(dropout, generator)
        widths = [width + layer * hidden for layer in range(layers)]
        self.messages = nn.ModuleList(Messages(each, hidden, drop) for each in widths)
        self.updates = nn.ModuleList(
            Joined(each + hidden, hidden, bias=False) for each in widths[:-1]
        )
        self.activations = nn.ModuleList(Activation(hidden, drop) for _ in widths[:-1])
        self.output = Joined(widths[-1] + hidden, 2 * width)
        self._initialise(seed)
        self.to(device)

    def _initialise(self, seed: int) -> None:
        """Draw linear layers from U(±1/√inputs), PyTorch's default; BatchNorm starts at 1, 0."""
        generator = torch.Generator().manual_seed(derive_seed("graph initial weights", seed))
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                for values in layer.parameters():
                    bound = 1 / math.sqrt(layer.in_features)
                    nn.init.uniform_(values, -bound, bound, generator=generator)

    def forward(
        self, rows: torch.Tensor, neighbours: torch.Tensor, shares: torch.Tensor
    ) -> torch.Tensor:
        """Return refined rows [N, D + 1] for rows [N, D + 1] and their edges [N, K]."""
        x = [rows]  # side by side
        for messages, update, activation in zip(
            self.messages, self.updates, self.activations, strict=False
        ):
            x.append(activation(update(*x, messages(x, neighbours, shares))))
        last = self.output(*x, self.messages[-1](x, neighbours, shares))
        residual, gate = last.chunk(2, dim=1)
        refined: torch.Tensor = rows + torch.sigmoid(gate) * residual
        return refined


def edges(
    graphs: torch.Tensor, *, neighbours: int, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the neighbours (numbers of nodes) and shares a_ij, [B * C, K], of graphs [B, C, D+1].

    a_i = softmax_j(temperature · ⟨x_i, x_j⟩), j ≠ i, restricted to the K largest and renormalised:
    which is the softmax over the K largest products.
    """
    count, classes, _ = graphs.shape
    products = temperature * graphs @ graphs.transpose(1, 2)
    products.diagonal(dim1=1, dim2=2).fill_(-math.inf)
    largest, found = products.topk(neighbours, dim=2)
    found = found + classes * torch.arange(count, device=graphs.device)[:, None, None]
    return found.flatten(0, 1), largest.softmax(dim=2).flatten(0, 1)


def replaced_quarters(classes: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield, epoch after epoch, which copy each class is replaced in, [C]: a random partition."""
    generator = torch.Generator().manual_seed(derive_seed("graph quarters", seed))
    while True:
        copies = torch.empty(classes, dtype=torch.long)
        order = torch.randperm(classes, generator=generator)
        copies[order] = torch.arange(classes) % COPIES
        yield copies


def corrupted(clean: torch.Tensor, predicted: torch.Tensor, copies: torch.Tensor) -> torch.Tensor:
    """Return [4, C, D + 1]: copies of the clean rows, class c predicted in copy ``copies[c]``."""
    graphs = clean.repeat(COPIES, 1, 1)
    rows = torch.arange(len(clean), device=clean.device)
    graphs[copies.to(clean.device), rows] = predicted
    return graphs


@contextmanager
def stepping(network: nn.Module, learning_rate: float) -> Iterator[None]:
    """Let Adam move each parameter as soon as its gradient is there, and let go of the gradient.

    All gradients together would take as much memory as the parameters.
    """

    def hook(adam: Adam) -> Callable[[torch.Tensor], None]:
        def step(values: torch.Tensor) -> None:
            assert values.grad is not None
            adam.step([values.grad], learning_rate)
            values.grad = None

        return step

    handles = [
        values.register_post_accumulate_grad_hook(hook(Adam([values])))  # type: ignore[no-untyped-call]
        for values in network.parameters()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def train_graph(
    network: DenoisingGraph,
    clean: torch.Tensor,
    predicted: torch.Tensor,
    *,
    refine: Callable[[DenoisingGraph, torch.Tensor], torch.Tensor],
    noise: float,
    target: Literal["published", "clean"],
    learning_rate: float,
    max_epochs: int,
    stop: Callable[[list[float]], bool],
    seed: int,
    progress: Progress | None = None,
) -> list[float]:
    """Train on clean and predicted rows [P, D + 1], a step an epoch; return the losses.

    ``refine`` maps graphs [B, C, D + 1] to the network's answer. The noise is part of the input
    only: with the noise in the target as well, the residual would have nothing to learn.
    """
    noises = torch.Generator().manual_seed(derive_seed("graph noise", seed))
    quarters = replaced_quarters(len(clean), seed)
    losses: list[float] = []
    network.train()
    with stepping(network, learning_rate):
        for epoch in range(1, max_epochs + 1):
            graphs = corrupted(clean, predicted, next(quarters))
            # drawn on the CPU: the same values on every device
            draw = torch.randn(graphs.shape, generator=noises, dtype=clean.dtype).to(clean.device)
            answer = refine(network, graphs + noise * draw)
            aim = graphs if target == "published" else clean.expand_as(graphs)
            loss = functional.mse_loss(answer, aim)
            loss.backward()  # type: ignore[no-untyped-call]
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise IcisError(
                    f"the graph network's loss became {losses[-1]} in epoch {epoch}: "
                    "lower the learning rate"
                )
            if progress:
                progress(epoch, losses[-1])
            if stop(losses):
                break
    return losses
