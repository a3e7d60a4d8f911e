"""Encoders, decoders and their training: the core of ICIS and of the MLP (PAPER: section 3.2).

A row is a class: rows below S are the seen classes with a target [weight, bias], the rows from
S on are unseen descriptors without one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from icis.errors import IcisError
from icis.heads import Head
from icis.methods.base import Injection, InjectionProblem, Progress
from icis.methods.training import TrainedMethod
from icis.seeding import derive_seed

INITIAL_STD = 0.02
DEEP_UNITS = 1000
COSINE_EPS = 1e-8
ENDPOINTS = {"a2a": ("a", "a"), "w2w": ("w", "w"), "a2w": ("a", "w"), "w2a": ("w", "a")}
"""From which space each term encodes, and into which it decodes."""

RowLoss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def cosine_distance(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return 1 - cosine of each row, [N]."""
    return 1 - functional.cosine_similarity(prediction, target, dim=1, eps=COSINE_EPS)


def squared_error(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the squared error of each row, averaged over its components, [N]."""
    return (prediction - target).square().mean(dim=1)


DISTANCES: dict[str, RowLoss] = {"cosine": cosine_distance, "l2": squared_error}


def build_networks(dims: Mapping[str, int], *, hidden: int, depth: int, seed: int) -> nn.ModuleDict:
    """Return encoders and decoders of descriptors (a) and classifier weights (w).

    Weights are N(0, 0.02²), biases 0. Each network has a random stream of its own, so that a
    variant without some of them starts the others from the same values.
    """
    networks = nn.ModuleDict()
    for space, dim in dims.items():
        encoder: list[nn.Module] = [nn.Linear(dim, hidden), nn.ReLU()]
        if depth == 4:
            encoder += [nn.Linear(hidden, hidden), nn.ReLU()]
        decoder: list[nn.Module] = [nn.Linear(hidden, dim)]
        if depth >= 3:
            decoder = [nn.Linear(hidden, DEEP_UNITS), nn.ReLU(), nn.Linear(DEEP_UNITS, dim)]
        networks[f"encode_{space}"] = nn.Sequential(*encoder)
        networks[f"decode_{space}"] = nn.Sequential(*decoder)
    for name, network in networks.items():
        generator = torch.Generator().manual_seed(derive_seed("initial weights", name, seed))
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=INITIAL_STD, generator=generator)
                nn.init.zeros_(layer.bias)
    return networks


def shuffled_epochs(rows: int, batch_size: int, seed: int) -> Iterator[list[torch.Tensor]]:
    """Yield epoch after epoch of batches of row numbers; the last batch may be short."""
    generator = torch.Generator().manual_seed(derive_seed("batch order", seed))
    while True:
        yield list(torch.split(torch.randperm(rows, generator=generator), batch_size))


@dataclass
class SlopeStop:
    """The paper's stop: from the 22nd epoch on, 5 epochs in a row with a slope below a threshold.

    The slope is minus the difference between the mean loss of the last 10 epochs and of the 10
    before, divided by 10.
    """

    threshold: float
    flat: int = 0

    def __call__(self, losses: list[float]) -> bool:
        """Take all epoch losses so far, once an epoch; return whether to stop."""
        if len(losses) < 22:
            return False
        slope = -(sum(losses[-10:]) / 10 - sum(losses[-20:-10]) / 10) / 10
        self.flat = self.flat + 1 if slope < self.threshold else 0
        return self.flat >= 5


@dataclass(frozen=True)
class Reconstruction:
    """The four terms over a batch of rows.

    ``descriptors`` [S + U', d] and ``targets`` [S, D + 1] stand in row order; ``losses`` names
    the active terms with their weights.
    """

    networks: nn.ModuleDict
    descriptors: torch.Tensor
    targets: torch.Tensor
    losses: Mapping[str, float]
    row_loss: RowLoss

    def active_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that an active term trains."""
        used = {f"encode_{ENDPOINTS[term][0]}" for term in self.losses}
        used |= {f"decode_{ENDPOINTS[term][1]}" for term in self.losses}
        return [p for name, net in self.networks.items() if name in used for p in net.parameters()]

    def terms(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return each active term of a batch.

        a2a is the mean over all rows of the batch, the others over its seen rows (a sum divided
        by at least 1, so a batch without seen rows gives 0).
        """
        seen_at = (rows < len(self.targets)).nonzero().squeeze(1)
        device = self.targets.device
        a_all = self.descriptors[rows.to(device)]
        w = self.targets[rows[seen_at].to(device)]
        seen_at = seen_at.to(device)
        truth = {"a": a_all[seen_at], "w": w}
        needed = {ENDPOINTS[term][0] for term in self.losses}
        latent_all = self.networks["encode_a"](a_all) if "a" in needed else None
        latent = {}
        if latent_all is not None:
            latent["a"] = latent_all[seen_at]
        if "w" in needed:
            latent["w"] = self.networks["encode_w"](w)

        found: dict[str, torch.Tensor] = {}
        if "a2a" in self.losses and latent_all is not None:
            found["a2a"] = self.row_loss(self.networks["decode_a"](latent_all), a_all).mean()
        if "w2a" in self.losses:
            decoded = self.networks["decode_a"](latent["w"])
            found["w2a"] = _mean_or_zero(self.row_loss(decoded, truth["a"]))
        into_w = [term for term in ("a2w", "w2w") if term in self.losses]
        # one product for both terms: the decoder's weight passes through the caches once
        stacked = torch.cat([latent[ENDPOINTS[term][0]] for term in into_w])
        for term, part in zip(
            into_w, self.networks["decode_w"](stacked).chunk(len(into_w)), strict=True
        ):
            found[term] = _mean_or_zero(self.row_loss(part, w))
        return {term: found[term] for term in self.losses}

    def predict(self, descriptors: torch.Tensor) -> torch.Tensor:
        """Return [weight, bias] predicted for descriptors [N, d]."""
        with torch.no_grad():
            decoded: torch.Tensor = self.networks["decode_w"](
                self.networks["encode_a"](descriptors)
            )
        return decoded


def _mean_or_zero(row_losses: torch.Tensor) -> torch.Tensor:
    return row_losses.sum() / max(len(row_losses), 1)


def train(
    model: Reconstruction,
    epochs: Iterable[list[torch.Tensor]],
    *,
    learning_rate: float,
    max_epochs: int,
    stop: Callable[[list[float]], bool],
    progress: Progress | None = None,
) -> dict[str, list[float]]:
    """Train with Adam until the stop says so; return each term's mean over an epoch's batches.

    The entry ``loss`` is the weighted sum, the value that the stop looks at.
    """
    optimizer = torch.optim.Adam(model.active_parameters(), lr=learning_rate, fused=True)
    history: dict[str, list[float]] = {"loss": [], **{term: [] for term in model.losses}}
    weights = torch.tensor(list(model.losses.values()), device=model.targets.device)
    for epoch, batches in enumerate(epochs, start=1):
        sums = torch.zeros(len(history), device=model.targets.device, dtype=torch.float64)
        for rows in batches:
            optimizer.zero_grad(set_to_none=True)
            terms = torch.stack(list(model.terms(rows).values()))
            loss = terms @ weights
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            sums += torch.cat([loss.detach()[None], terms.detach()])
        for term, value in zip(history, (sums / len(batches)).tolist(), strict=True):
            history[term].append(value)
        if not math.isfinite(history["loss"][-1]):
            raise IcisError(
                f"the loss became {history['loss'][-1]} in epoch {epoch}: lower the learning rate"
            )
        if progress:
            progress(epoch, history["loss"][-1])
        if epoch >= max_epochs or stop(history["loss"]):
            break
    return history


def fit_injection(
    problem: InjectionProblem,
    method: TrainedMethod,
    *,
    losses: Mapping[str, float],
    use_unseen: bool,
    depth: int,
    seed: int,
    device: str,
    progress: Progress | None,
) -> Injection:
    """Train on a problem and append the predicted rows below the seen head's."""
    targets = problem.seen_head.joined().to(device)
    seen, unseen = problem.seen_descriptors.to(device), problem.unseen_descriptors.to(device)
    rows = torch.cat([seen, unseen]) if use_unseen else seen
    dims = {"a": seen.shape[1], "w": targets.shape[1]}
    networks = build_networks(dims, hidden=method.hidden, depth=depth, seed=seed).to(device)
    model = Reconstruction(networks, rows, targets, losses, DISTANCES[method.distance])
    assert method.batch_size is not None, "resolve() fills in the data set's batch size"
    history = train(
        model,
        shuffled_epochs(len(rows), method.batch_size, seed),
        learning_rate=method.learning_rate,
        max_epochs=method.max_epochs,
        stop=SlopeStop(method.threshold),
        progress=progress,
    )
    predicted = Head.from_joined(model.predict(unseen).cpu(), problem.unseen_classes)
    return Injection(problem.seen_head.append(predicted), history=history)
