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
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from icis.errors import IcisError
from icis.heads import Head
from icis.methods.base import Injection, InjectionProblem, Progress
from icis.methods.blockwise import BlockwiseAdam, Linear
from icis.methods.networks import DISTANCES, RowLoss, build_networks
from icis.methods.subspace import Subspace
from icis.methods.training import TrainedMethod
from icis.seeding import derive_seed

ENDPOINTS = {
    "a2a": ("a", "a"),
    "w2w": ("w", "w"),
    "a2w": ("a", "w"),
    "w2a": ("w", "a"),
    "subspace": ("a", "w"),
}
"""From which space each term encodes, and into which it decodes."""


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
    """The four terms over a batch of rows, and the predictions' distance to a subspace.

    ``descriptors`` [S + U', d] and ``targets`` [S, D + 1] stand in row order; ``losses`` names
    the active terms with their weights; the term ``subspace`` needs the field of that name.
    """

    networks: nn.ModuleDict
    descriptors: torch.Tensor
    targets: torch.Tensor
    losses: Mapping[str, float]
    row_loss: RowLoss
    subspace: Subspace | None = None

    def trained_networks(self) -> set[str]:
        """Return the names of the networks that an active term trains."""
        ends = [ENDPOINTS[term] for term in self.losses]
        return {f"encode_{start}" for start, _ in ends} | {f"decode_{end}" for _, end in ends}

    def trained_layers(self) -> list[Linear]:
        """Return the layers that an active term trains."""
        nets = [net for name, net in self.networks.items() if name in self.trained_networks()]
        return [layer for net in nets for layer in net.modules() if isinstance(layer, Linear)]

    def terms(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return each active term of a batch.

        a2a and subspace are taken over all rows of the batch, the others are means over its seen
        rows (a sum divided by at least 1, so a batch without seen rows gives 0).
        """
        is_seen = rows < len(self.targets)
        # seen rows first: each term's rows are then a slice
        rows = torch.cat([rows[is_seen], rows[~is_seen]]).to(self.targets.device)
        seen = int(is_seen.sum())
        a, w = self.descriptors[rows], self.targets[rows[:seen]]
        latent_a, latent_w = self._encode("a", a), self._encode("w", w)

        from_a = latent_a if "subspace" in self.losses else latent_a[:seen]
        into_a = self._decode("a", {"a2a": latent_a, "w2a": latent_w})
        into_w = self._decode("w", {"a2w": from_a, "w2w": latent_w})
        truth = {"a2a": a, "w2a": a[:seen], "a2w": w, "w2w": w}
        found = {
            term: _mean_or_zero(self.row_loss(decoded[: len(truth[term])], truth[term]))
            for term, decoded in (into_a | into_w).items()
        }
        if "subspace" in self.losses:
            assert self.subspace is not None
            found["subspace"] = self.subspace.distance(into_w["a2w"])
        return {term: found[term] for term in self.losses}

    def predict(self, descriptors: torch.Tensor) -> torch.Tensor:
        """Return [weight, bias] predicted for descriptors [N, d]."""
        return self._pass("a", "w", descriptors)

    def held_out(self, descriptors: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
        """Return the mean row losses of classes not learnt from, descriptors [N, d] and [N, D + 1].

        ``held_out_w2a``, from weights to descriptors, is there if that path is trained.
        """
        found = {"held_out": self.row_loss(self.predict(descriptors), truth).mean().item()}
        if {"encode_w", "decode_a"} <= self.trained_networks():
            back = self.row_loss(self._pass("w", "a", truth), descriptors)
            found["held_out_w2a"] = back.mean().item()
        return found

    def _encode(self, space: str, rows: torch.Tensor) -> torch.Tensor:
        # without a term that encodes them, the rows pass as they are and nobody looks at them
        used = f"encode_{space}" in self.trained_networks()
        return self.networks[f"encode_{space}"](rows) if used else rows

    def _decode(self, space: str, latents: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return what the active of some terms decode.

        One product for all of them: the decoder's weight passes through the caches once.
        """
        active = {term: latent for term, latent in latents.items() if term in self.losses}
        if not active:
            return {}
        decoded = self.networks[f"decode_{space}"](torch.cat([*active.values()]))
        parts = decoded.split([len(latent) for latent in active.values()])
        return dict(zip(active, parts, strict=True))

    def _pass(self, start: str, end: str, rows: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            latent = self.networks[f"encode_{start}"](rows)
            decoded: torch.Tensor = self.networks[f"decode_{end}"](latent)
        return decoded


def _mean_or_zero(row_losses: torch.Tensor) -> torch.Tensor:
    return row_losses.sum() / max(len(row_losses), 1)


def one_cycle(optimizer: torch.optim.Optimizer, peak: float, steps: int) -> LRScheduler:
    """Return the one-cycle schedule of torch over so many steps, the momentum left as it is.

    Smith & Topin, 2019 (arXiv 1708.07120), as torch has it: from peak/25 up to the peak over 30 %
    of the steps, then down to peak/250000, both along a cosine.
    """
    total = max(steps, 2)  # a cycle of one step would be its end: no rate
    return OneCycleLR(optimizer, peak, total_steps=total, cycle_momentum=False)


def train(
    model: Reconstruction,
    epochs: Iterable[list[torch.Tensor]],
    *,
    learning_rate: float,
    max_epochs: int,
    stop: Callable[[list[float]], bool],
    cycle: int | None = None,
    progress: Progress | None = None,
    watch: Callable[[], Mapping[str, float]] | None = None,
) -> dict[str, list[float]]:
    """Train with Adam until the stop says so; return each term's mean over an epoch's batches.

    The entry ``loss`` is the weighted sum, the value that the stop looks at. ``cycle`` is the
    number of steps of a one-cycle schedule whose peak is ``learning_rate``; without it the rate is
    constant. What ``watch`` returns after each epoch is only recorded.
    """
    optimizer = BlockwiseAdam(model.trained_layers(), learning_rate=learning_rate)
    schedule = None if cycle is None else one_cycle(optimizer.biases, learning_rate, cycle)
    names = ["loss", *model.losses]
    history: dict[str, list[float]] = {name: [] for name in names}
    weights = torch.tensor(list(model.losses.values()), device=model.targets.device)
    for epoch, batches in enumerate(epochs, start=1):
        sums = torch.zeros(len(names), device=model.targets.device, dtype=torch.float64)
        for rows in batches:
            terms = torch.stack(list(model.terms(rows).values()))
            loss = terms @ weights
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            if schedule:
                schedule.step()
            sums += torch.cat([loss.detach()[None], terms.detach()])
        for name, value in zip(names, (sums / len(batches)).tolist(), strict=True):
            history[name].append(value)
        for name, value in (watch() if watch else {}).items():
            history.setdefault(name, []).append(value)
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
    subspace: Subspace | None = None,
) -> Injection:
    """Train on a problem and append the predicted rows below the seen head's."""
    targets = problem.known_head.joined().to(device)
    seen, unseen = problem.known_descriptors.to(device), problem.unseen_descriptors.to(device)
    rows = torch.cat([seen, unseen]) if use_unseen else seen
    dims = {"a": seen.shape[1], "w": targets.shape[1]}
    networks = build_networks(dims, hidden=method.hidden, depth=depth, seed=seed).to(device)
    if subspace is not None:
        subspace = subspace.to(device)
    row_loss = DISTANCES[method.distance]
    model = Reconstruction(networks, rows, targets, losses, row_loss, subspace)
    truth = None if problem.truth is None else problem.truth.joined().to(device)
    assert method.batch_size is not None, "resolve() fills in the data set's batch size"
    cycle = None
    if method.schedule == "one-cycle":
        cycle = method.max_epochs * math.ceil(len(rows) / method.batch_size)
    history = train(
        model,
        shuffled_epochs(len(rows), method.batch_size, seed),
        learning_rate=method.learning_rate,
        max_epochs=method.max_epochs,
        stop=SlopeStop(method.threshold),
        cycle=cycle,
        progress=progress,
        watch=None if truth is None else lambda: model.held_out(unseen, truth),
    )
    predicted = Head.from_joined(model.predict(unseen).cpu(), problem.unseen_classes)
    return Injection(
        problem.seen_head.append(predicted),
        history=history,
        seen_predictions=model.predict(seen).cpu(),
    )
