"""Linear layers that Adam moves a block at a time, for large weights and few rows.

With 16 rows a batch, a training step costs what its passes over the weights' memory cost. So no
whole gradient is ever written: on the way back a block of a layer's rows is taken into the cache
once, for the product with the gradient from above, for its own gradient and for Adam.
"""

# no annotations from __future__: TorchScript does not resolve those of a NamedTuple
from collections.abc import Sequence
from typing import NamedTuple

import torch

from icis.adam import adam_update
from icis.products import Libraries, linear, outer

BLOCK = 2**18
"""Components of a weight updated at once on the CPU; with moments and gradient 4 MiB."""
ROWS = 128
"""Of a block, at most: of more rows MKL's product has other bits for another number of threads."""


class Moved(NamedTuple):
    """Parameters with what Adam keeps of them, and a place for their gradient.

    Lists of one tensor, since Adam takes lists. All places are in the same memory.
    """

    values: list[torch.Tensor]
    first: list[torch.Tensor]
    second: list[torch.Tensor]
    step: list[torch.Tensor]
    room: torch.Tensor


class Layer(NamedTuple):
    """Weight [out, in], bias [out] and blocks of the weight's rows, the latter two with their Adam.

    ``step`` is the number of Adam's step: one tensor for all layers of a training, to be counted up
    before each.
    """

    weight: torch.Tensor
    bias: Moved
    blocks: list[Moved]
    step: torch.Tensor


def in_blocks(layers: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[Layer]:
    """Return the layers of a training by weight and bias, which are changed in place."""
    weights, biases = zip(*layers, strict=True)
    step = torch.zeros((), device=weights[0].device)
    sizes = [max(_rows(weight) * weight.shape[1], len(weight)) for weight in weights]
    room = weights[0].new_empty(max(sizes))
    return [
        Layer(
            weight,
            _moved(bias, len(bias), step, room)[0],
            _moved(weight, _rows(weight), step, room),
            step,
        )
        for weight, bias in zip(weights, biases, strict=True)
    ]


def _moved(values: torch.Tensor, rows: int, step: torch.Tensor, room: torch.Tensor) -> list[Moved]:
    """Return parameters in blocks of so many rows."""
    whole = values, torch.zeros_like(values), torch.zeros_like(values)
    parts = zip(*(torch.split(each, rows) for each in whole), strict=True)
    return [
        Moved([part], [first], [second], [step], room[: part.numel()].view(part.shape))
        for part, first, second in parts
    ]


def _rows(weight: torch.Tensor) -> int:
    """Return how many rows of a weight are a block."""
    outputs, inputs = weight.shape
    if weight.device.type != "cpu":
        return outputs
    blocks = -(-outputs // min(max(BLOCK // inputs, 1), ROWS))
    return -(-outputs // blocks)  # of equal size, as ``chunk`` splits the outputs


# --- what TorchScript compiles: it keeps to what that understands -----------------------------


def move_layer(
    layer: Layer, x: torch.Tensor, above: torch.Tensor, further: bool, rate: float, by: Libraries
) -> torch.Tensor:
    """Move a layer by the loss's gradient ``above`` by its output [N, out], from its input [N, in].

    Return the gradient by its input, ``above`` times the weight as it was, [N, in], if it is needed
    ``further`` on.
    """
    # MKL adds up a single row by threads
    on_the_way = further and by.mkl_at_home and x.size(0) > 1
    below = torch.zeros_like(x) if on_the_way else x
    if further and not on_the_way:
        below = linear(above, layer.weight.t(), None, by)
    parts = above.chunk(len(layer.blocks), dim=1)  # as the weight was split
    for number in range(len(layer.blocks)):
        block, part = layer.blocks[number], parts[number]
        if on_the_way:
            below.addmm_(part, block.values[0])
        update(block, outer(part, x, block.room, by), rate)
    update(layer.bias, above.sum(dim=0), rate)
    return below


def update(moved: Moved, gradient: torch.Tensor, rate: float) -> None:
    """Let Adam move parameters."""
    adam_update(moved.values, [gradient], moved.first, moved.second, moved.step, rate)
