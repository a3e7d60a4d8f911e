"""Encoders and decoders of descriptors and classifier weights, and the losses of their outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn import functional

from icis.products import libraries, linear
from icis.seeding import derive_seed

INITIAL_STD = 0.02
DEEP_UNITS = 1000
COSINE_EPS = 1e-8


class Linear(nn.Linear):
    """nn.Linear whose bits do not depend on the number of threads, without gradients."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x Wᵀ + b, [N, out] from [N, in]."""
        with torch.no_grad():
            return linear(x, self.weight, self.bias, libraries(x))


RowLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def cosine_distance(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return 1 - cosine of each row, [N]."""
    return 1 - functional.cosine_similarity(prediction, target, dim=1, eps=COSINE_EPS)


def squared_error(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the squared error of each row, averaged over its components, [N]."""
    return (prediction - target).square().mean(dim=1)


DISTANCES: dict[str, RowLoss] = {"cosine": cosine_distance, "l2": squared_error}


def layer_sizes(
    dims: Mapping[str, int], *, hidden: int, depth: int
) -> dict[str, list[tuple[int, int]]]:
    """Return inputs and outputs of each network's layers, by the network's name."""
    found = {}
    for space, dim in dims.items():
        found[f"encode_{space}"] = [(dim, hidden)] + [(hidden, hidden)] * (depth == 4)
        deep = [(hidden, DEEP_UNITS), (DEEP_UNITS, dim)]
        found[f"decode_{space}"] = deep if depth >= 3 else [(hidden, dim)]
    return found


def build_networks(dims: Mapping[str, int], *, hidden: int, depth: int, seed: int) -> nn.ModuleDict:
    """Return encoders and decoders of descriptors (a) and classifier weights (w).

    Weights are N(0, 0.02²), biases 0. Each network has a random stream of its own, so that a
    variant without some of them starts the others from the same values.
    """
    networks = nn.ModuleDict()
    for name, sizes in layer_sizes(dims, hidden=hidden, depth=depth).items():
        layers = [layer for size in sizes for layer in (Linear(*size), nn.ReLU())]
        # a decoder's last layer gives values of either sign
        networks[name] = nn.Sequential(*(layers if name.startswith("encode") else layers[:-1]))
    for name, network in networks.items():
        generator = torch.Generator().manual_seed(derive_seed("initial weights", name, seed))
        for layer in network.modules():
            if isinstance(layer, Linear):
                nn.init.normal_(layer.weight, std=INITIAL_STD, generator=generator)
                nn.init.zeros_(layer.bias)
    return networks.requires_grad_(False)
