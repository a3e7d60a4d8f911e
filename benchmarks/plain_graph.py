"""wDAE's graph network, written the plain way: layers of nn, autograd, Adam one tensor at a time.

As benchmarks/plain.py it is written from the paper's facts and shares no code with the package.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from benchmarks.plain import Progress, adam

COPIES = 4


def activation(width: int, dropout: float) -> nn.Sequential:
    """Return batch normalisation, dropout and LeakyReLU of rows."""
    return nn.Sequential(nn.BatchNorm1d(width), nn.Dropout(dropout), nn.LeakyReLU(0.01))


class Messages(nn.Module):
    """The weighted sum over a node's neighbours j of activation(W x_i + W x_j)."""

    def __init__(self, inputs: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, hidden, bias=False)
        self.activation = activation(hidden, dropout)

    def forward(self, x: torch.Tensor, found: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Return the messages [N, hidden] of nodes [N, inputs], neighbours and shares [N, K]."""
        each = self.linear(x)
        pairs = each[:, None] + each[found]
        heard = self.activation(pairs.flatten(0, 1)).view_as(pairs)
        return (shares[:, :, None] * heard).sum(dim=1)


class Graph(nn.Module):
    """Two rounds of messages; the second gives residual and gate."""

    def __init__(self, width: int, *, factor: int = 3, dropout: float = 0.7) -> None:
        super().__init__()
        hidden = factor * width
        self.first = Messages(width, hidden, dropout)
        self.update = nn.Linear(width + hidden, hidden, bias=False)
        self.activation = activation(hidden, dropout)
        self.second = Messages(width + hidden, hidden, dropout)
        self.output = nn.Linear(width + 2 * hidden, 2 * width)

    def forward(self, graphs: torch.Tensor, neighbours: int, temperature: float) -> torch.Tensor:
        """Return refined graphs [B, C, D + 1]."""
        found, shares = edges(graphs, neighbours, temperature)
        rows = graphs.flatten(0, 1)
        fresh = self.activation(self.update(torch.cat([rows, self.first(rows, found, shares)], 1)))
        x = torch.cat([rows, fresh], 1)
        residual, gate = self.output(torch.cat([x, self.second(x, found, shares)], 1)).chunk(2, 1)
        return (rows + gate.sigmoid() * residual).view_as(graphs)


def edges(
    graphs: torch.Tensor, neighbours: int, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the most alike other classes of each class, as nodes, and their shares, [B * C, K]."""
    count, classes, _ = graphs.shape
    itself = torch.eye(classes, dtype=torch.bool)
    alike = (temperature * graphs @ graphs.mT).masked_fill(itself, -torch.inf).softmax(dim=2)
    shares, found = alike.topk(neighbours, dim=2)
    found = found + classes * torch.arange(count)[:, None, None]
    shares = shares / shares.sum(dim=2, keepdim=True)
    return found.flatten(0, 1), shares.flatten(0, 1)


def train_graph(
    network: Graph,
    clean: torch.Tensor,
    predicted: torch.Tensor,
    *,
    epochs: int,
    neighbours: int = 10,
    temperature: float = 5.0,
    noise: float = 0.08,
    learning_rate: float = 1e-5,
    progress: Progress | None = None,
) -> list[float]:
    """Train on clean and predicted rows [P, D + 1], a step an epoch; return the losses.

    A step takes four copies of the clean rows, each with another quarter of them predicted.
    """
    optimizer = adam(network.parameters(), learning_rate)
    losses = []
    for epoch in range(1, epochs + 1):
        graphs = clean.repeat(COPIES, 1, 1)
        for copy, rows in enumerate(torch.randperm(len(clean)).chunk(COPIES)):
            graphs[copy, rows] = predicted[rows]
        optimizer.zero_grad()
        answer = network(graphs + noise * torch.randn_like(graphs), neighbours, temperature)
        loss = functional.mse_loss(answer, graphs)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if progress:
            progress(epoch, losses[-1])
    return losses
