"""The steps of a training on (descriptor, weight) pairs, an epoch as one operation.

Gradients are written down rather than left to autograd, so that TorchScript can compile all of it:
from Python the steps of seeds that run side by side would wait for its lock.
"""

# no annotations from __future__: TorchScript does not resolve those of a NamedTuple
from collections.abc import Mapping
from itertools import chain, islice
from typing import NamedTuple

import torch
from torch import nn

from icis.compiled import compiled
from icis.layers import Layer, in_blocks, move_layer
from icis.methods.networks import COSINE_EPS
from icis.methods.subspace import Subspace
from icis.products import Libraries, libraries, linear

TERMS = ("a2a", "w2w", "a2w", "w2a", "subspace")


class Pairs(NamedTuple):
    """What is learnt: descriptors [S + U', d] and targets [S, D + 1], in row order.

    ``weights`` are those of ``TERMS``, 0 for a term that is left out. ``span`` is the subspace's
    basis, [D + 1, k] and transposed (no components without one).
    """

    descriptors: torch.Tensor
    targets: torch.Tensor
    weights: list[float]
    cosine: bool
    span: list[torch.Tensor]
    over_rows: bool


class PairSteps:
    """Steps of Adam on the weighted sum of the terms, which change the networks in place.

    ``networks`` are those of ``build_networks``, by name. ``encode_w`` and ``decode_a`` may be left
    out where no active term needs them; else they then stay as they are.
    """

    def __init__(
        self,
        networks: Mapping[str, nn.Module],
        descriptors: torch.Tensor,
        targets: torch.Tensor,
        *,
        losses: Mapping[str, float],
        cosine: bool,
        subspace: Subspace | None,
    ) -> None:
        basis = targets.new_zeros(targets.shape[1], 0) if subspace is None else subspace.basis
        self.pairs = Pairs(
            descriptors,
            targets,
            [losses.get(term, 0.0) for term in TERMS],
            cosine,
            [basis, basis.t().contiguous()],
            subspace is not None and subspace.over == "rows",
        )
        names = ("encode_a", "encode_w", "decode_a", "decode_w")
        parameters = [_parameters(networks[name]) if name in networks else [] for name in names]
        layers = iter(in_blocks([*chain(*parameters)]))
        self.networks = [[*islice(layers, len(own))] for own in parameters]
        self.active = torch.tensor([TERMS.index(term) for term in losses])

    @torch.no_grad()
    def __call__(self, batches: list[torch.Tensor], rates: list[float]) -> torch.Tensor:
        """Take a step on each batch of row numbers, each at a rate of its own.

        Return the active terms before each step, [K, T], in the order of ``losses``.
        """
        by = libraries(self.pairs.targets)
        found: torch.Tensor = compiled(epoch)(self.pairs, self.networks, batches, rates, by)
        return found[:, self.active.to(found.device)]


def _parameters(network: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
    linear_layers = [each for each in network.modules() if isinstance(each, nn.Linear)]
    return [(each.weight.detach(), each.bias.detach()) for each in linear_layers]


# --- what TorchScript compiles: it keeps to what that understands -----------------------------


def epoch(
    pairs: Pairs,
    networks: list[list[Layer]],
    batches: list[torch.Tensor],
    rates: list[float],
    by: Libraries,
) -> torch.Tensor:
    """Take the steps; return all terms before each, [K, 5], 0 for one that is left out."""
    found: list[torch.Tensor] = []
    for number in range(len(batches)):
        networks[0][0].step.add_(1)  # that of all layers
        found.append(step(pairs, networks, batches[number], rates[number], by))
    return torch.stack(found)


def step(
    pairs: Pairs, networks: list[list[Layer]], rows: torch.Tensor, rate: float, by: Libraries
) -> torch.Tensor:
    """Take a step on a batch of row numbers [B]; return the terms before it, [5].

    a2a and subspace are taken over all rows of the batch, the others are means over its seen rows
    (a sum divided by at least 1, so a batch without seen rows gives 0 and the gradient 0).
    """
    encode_a, encode_w, decode_a, decode_w = networks[0], networks[1], networks[2], networks[3]
    a2a, w2w, a2w, w2a, subspace = pairs.weights
    is_seen = rows < pairs.targets.size(0)
    # seen rows first: each term's rows are then a slice
    known, new = rows[is_seen].to(pairs.targets.device), rows[~is_seen].to(pairs.targets.device)
    a, w = pairs.descriptors[torch.cat([known, new])], pairs.targets[known]
    batch, seen = a.size(0), w.size(0)

    values_a = outputs(encode_a, a, True, by)
    latent_a = values_a[-1]
    values_w, latent_w = [w], latent_a[:0]
    if w2w + w2a > 0:
        values_w = outputs(encode_w, w, True, by)
        latent_w = values_w[-1]

    from_a = batch if subspace > 0 else seen
    from_w = seen if w2w > 0 else 0
    into_w, below = through(
        decode_w, latent_a[:from_a], latent_w[:from_w], w, [a2w, w2w, subspace], pairs, rate, by
    )
    above_a, above_w = torch.zeros_like(latent_a), torch.zeros_like(latent_w)
    above_a[:from_a] += below[:from_a]
    above_w[:from_w] += below[from_a:]
    into_a = torch.zeros_like(into_w)
    if a2a + w2a > 0:
        from_a = batch if a2a > 0 else 0
        from_w = seen if w2a > 0 else 0
        into_a, below = through(
            decode_a, latent_a[:from_a], latent_w[:from_w], a, [a2a, w2a, 0.0], pairs, rate, by
        )
        above_a[:from_a] += below[:from_a]
        above_w[:from_w] += below[from_a:]

    move(encode_a, values_a, below_relu(above_a, latent_a), False, rate, by)
    if w2w + w2a > 0:
        move(encode_w, values_w, below_relu(above_w, latent_w), False, rate, by)
    return torch.stack([into_a[0], into_w[1], into_w[0], into_a[1], into_w[2]])


def outputs(
    layers: list[Layer], x: torch.Tensor, encodes: bool, by: Libraries
) -> list[torch.Tensor]:
    """Return x [N, in] and what each layer makes of it; the last one has a ReLU if it encodes."""
    values = [x]
    for number in range(len(layers)):
        layer = layers[number]
        x = linear(x, layer.weight, layer.bias.values[0], by)
        if encodes or number + 1 < len(layers):
            x = x.relu_()
        x = x.contiguous()
        values.append(x)
    return values


def through(
    decoder: list[Layer],
    from_a: torch.Tensor,
    from_w: torch.Tensor,
    truth: torch.Tensor,
    weights: list[float],
    pairs: Pairs,
    rate: float,
    by: Libraries,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Take a decoder's step on latents of descriptors and of weights, [N, h] and [M, h].

    Return the terms with three ``weights`` [3] (from descriptors, from weights, subspace) and the
    loss's gradient by all latents, [N + M, h]. One product for both: the decoder's weight passes
    through the caches once.
    """
    values = outputs(decoder, torch.cat([from_a, from_w]), False, by)
    split, both = from_a.size(0), min(from_a.size(0), truth.size(0))
    found, above = values[-1], torch.zeros_like(values[-1])
    terms = torch.zeros(3, dtype=found.dtype, device=found.device)
    if weights[0] > 0:
        terms[0] = reconstruction(found[:both], truth[:both], weights[0], pairs, above[:both])
    if weights[1] > 0:
        known = truth[: from_w.size(0)]
        terms[1] = reconstruction(found[split:], known, weights[1], pairs, above[split:])
    if weights[2] > 0:
        terms[2] = from_span(found[:split], weights[2], pairs, above[:split], by)
    return terms, move(decoder, values, above, True, rate, by)


def reconstruction(
    found: torch.Tensor,
    truth: torch.Tensor,
    weight: float,
    pairs: Pairs,
    above: torch.Tensor,
    eps: float = COSINE_EPS,
) -> torch.Tensor:
    """Return the mean distance of rows [N, n], and add its gradient times ``weight`` to ``above``.

    With unit vectors x' and y', 1 - cosine has the gradient ((x' · y') x' - y') / |x|.
    """
    rows = max(found.size(0), 1)
    if not pairs.cosine:
        difference = found - truth
        above.add_(difference, alpha=2 * weight / (rows * found.size(1)))
        return difference.square().mean(dim=1).sum() / rows
    length: torch.Tensor = torch.linalg.vector_norm(found, dim=1, keepdim=True)
    bound = length.clamp(min=eps)
    unit = found / bound
    aim = truth / torch.linalg.vector_norm(truth, dim=1, keepdim=True).clamp(min=eps)
    cosines: torch.Tensor = (unit * aim).sum(dim=1, keepdim=True)
    # a shorter row than eps is divided by eps, whatever its length
    gradient = (unit * (cosines * (length > eps)) - aim) / bound
    above.add_(gradient, alpha=weight / rows)
    return (1 - cosines).sum() / rows


def from_span(
    found: torch.Tensor, weight: float, pairs: Pairs, above: torch.Tensor, by: Libraries
) -> torch.Tensor:
    """Return the distance of rows [N, D + 1] to the span; add its gradient times ``weight``.

    As ``Subspace.distance``. A residual is its own projection off the span, so the gradient of its
    length is the residual over the length, 0 at 0.
    """
    basis, transposed = pairs.span
    residual = found - linear(linear(found, transposed, None, by), basis, None, by)
    if pairs.over_rows:
        lengths: torch.Tensor = torch.linalg.vector_norm(residual, dim=1, keepdim=True)
        unit = (residual / lengths).masked_fill_(lengths == 0, 0)
        above.add_(unit, alpha=weight / found.size(0))
        return lengths.mean()
    whole: torch.Tensor = torch.linalg.vector_norm(residual)
    above.add_((residual / whole).masked_fill_(whole == 0, 0), alpha=weight)
    return whole


def below_relu(above: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
    """Return the gradient before a ReLU, from that after it and its output."""
    found: torch.Tensor = torch.ops.aten.threshold_backward(above, output, 0)
    return found


def move(
    layers: list[Layer],
    values: list[torch.Tensor],
    above: torch.Tensor,
    further: bool,
    rate: float,
    by: Libraries,
) -> torch.Tensor:
    """Move a network's layers by the loss's gradient with respect to its output [N, out].

    Return the gradient with respect to its input, if it is needed ``further`` on.
    """
    for number in range(len(layers) - 1, -1, -1):
        layer, x = layers[number], values[number]
        below = move_layer(layer, x, above, further or number > 0, rate, by)
        above = below_relu(below, x) if number > 0 else below
    return above
