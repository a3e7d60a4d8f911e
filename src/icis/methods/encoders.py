"""Encoders, decoders and their training: the core of ICIS and of the MLP (PAPER: section 3.2).

A row is a class: rows below S are the seen classes with a target [weight, bias], the rows from
S on are unseen descriptors without one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Literal

import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from icis.errors import IcisError
from icis.heads import Head
from icis.methods.base import Injection, InjectionProblem, Progress
from icis.methods.networks import DISTANCES, build_networks
from icis.methods.steps import PairSteps
from icis.methods.subspace import Subspace
from icis.methods.training import Objective, TrainedMethod
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


class Course:
    """The course of a training, epoch by epoch.

    ``history`` holds the mean ``loss`` of each epoch, which the stop looks at, and the mean of each
    term; what ``watch`` returns after each epoch is only recorded.
    """

    def __init__(
        self,
        terms: Iterable[str],
        *,
        max_epochs: int,
        stop: Callable[[list[float]], bool],
        watch: Callable[[], Mapping[str, float]] | None = None,
    ) -> None:
        self.history: dict[str, list[float]] = {"loss": [], **{term: [] for term in terms}}
        self.max_epochs, self.stop, self.watch = max_epochs, stop, watch

    def add(self, means: Mapping[str, float]) -> bool:
        """Take an epoch's means of loss and terms; return whether the training ends with it."""
        for name, value in {**means, **(self.watch() if self.watch else {})}.items():
            self.history.setdefault(name, []).append(value)
        losses = self.history["loss"]
        if not math.isfinite(losses[-1]):
            raise IcisError(
                f"the loss became {losses[-1]} in epoch {len(losses)}: lower the learning rate"
            )
        return len(losses) >= self.max_epochs or self.stop(losses)


def trained_networks(terms: Iterable[str]) -> set[str]:
    """Return the names of the networks that some terms train."""
    ends = [ENDPOINTS[term] for term in terms]
    return {f"encode_{start}" for start, _ in ends} | {f"decode_{end}" for _, end in ends}


@dataclass(frozen=True)
class Reconstruction:
    """The networks and what they learn: rows, active terms with their weights, distance.

    ``descriptors`` [S + U', d] and ``targets`` [S, D + 1] stand in row order; ``losses`` are of the
    four terms and the predictions' distance to a subspace, which needs the field of that name.
    """

    networks: nn.ModuleDict
    descriptors: torch.Tensor
    targets: torch.Tensor
    losses: Mapping[str, float]
    distance: Literal["cosine", "l2"]
    subspace: Subspace | None = None

    def trained_networks(self) -> set[str]:
        """Return the names of the networks that an active term trains."""
        return trained_networks(self.losses)

    def steps(self) -> PairSteps:
        """Return the steps of a training from its beginning."""
        return PairSteps(
            {name: self.networks[name] for name in self.trained_networks()},
            self.descriptors,
            self.targets,
            losses=self.losses,
            cosine=self.distance == "cosine",
            subspace=self.subspace,
        )

    def predict(self, descriptors: torch.Tensor) -> torch.Tensor:
        """Return [weight, bias] predicted for descriptors [N, d]."""
        return self._pass("a", "w", descriptors)

    def held_out(self, descriptors: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
        """Return the mean row losses of classes not learnt from, descriptors [N, d] and [N, D + 1].

        ``held_out_w2a``, from weights to descriptors, is there if that path is trained.
        """
        row_loss = DISTANCES[self.distance]
        found = {"held_out": row_loss(self.predict(descriptors), truth).mean().item()}
        if {"encode_w", "decode_a"} <= self.trained_networks():
            back = row_loss(self._pass("w", "a", truth), descriptors)
            found["held_out_w2a"] = back.mean().item()
        return found

    def _pass(self, start: str, end: str, rows: torch.Tensor) -> torch.Tensor:
        latent = self.networks[f"encode_{start}"](rows)
        decoded: torch.Tensor = self.networks[f"decode_{end}"](latent)
        return decoded


def one_cycle(peak: float, steps: int) -> Iterator[float]:
    """Yield the learning rates of a cycle of so many steps, the last one for ever.

    Smith & Topin, 2019 (arXiv 1708.07120), as torch has it: from peak/25 up to the peak over 30 %
    of the steps, then down to peak/250000, both along a cosine.
    """
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=peak)
    total = max(steps, 2)  # a cycle of one step would be its end: no rate
    schedule = OneCycleLR(optimizer, peak, total_steps=total, cycle_momentum=False)
    for _ in range(total - 1):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        schedule.step()
    yield from repeat(optimizer.param_groups[0]["lr"])


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
    steps = model.steps()
    rates = repeat(learning_rate) if cycle is None else one_cycle(learning_rate, cycle)
    names = ["loss", *model.losses]
    course = Course(model.losses, max_epochs=max_epochs, stop=stop, watch=watch)
    weights = torch.tensor(list(model.losses.values()), device=model.targets.device)
    for epoch, batches in enumerate(epochs, start=1):
        terms = steps(batches, [*islice(rates, len(batches))])
        losses = terms @ weights.to(terms.dtype)
        means = torch.column_stack([losses, terms]).mean(dim=0, dtype=torch.float64).tolist()
        ended = course.add(dict(zip(names, means, strict=True)))
        if progress:
            progress(epoch, means[0])
        if ended:
            break
    return course.history


def fit_injection(
    problem: InjectionProblem,
    method: TrainedMethod,
    objective: Objective,
    *,
    seed: int,
    device: str,
    progress: Progress | None,
) -> Injection:
    """Train on a problem and append the predicted rows below the seen head's."""
    dims = dimensions(problem)
    networks = build_networks(dims, hidden=method.hidden, depth=objective.depth, seed=seed)
    model = model_of(problem, method, objective, networks.to(device), device)
    assert method.batch_size is not None, "resolve() fills in the data set's batch size"
    cycle = None
    if method.schedule == "one-cycle":
        cycle = method.max_epochs * math.ceil(len(model.descriptors) / method.batch_size)
    history = train(
        model,
        shuffled_epochs(len(model.descriptors), method.batch_size, seed),
        learning_rate=method.learning_rate,
        max_epochs=method.max_epochs,
        stop=SlopeStop(method.threshold),
        cycle=cycle,
        progress=progress,
        watch=watch_of(model, problem),
    )
    return injection_of(model, problem, history)


def dimensions(problem: InjectionProblem) -> dict[str, int]:
    """Return the dimensions of descriptors (a) and of [weight, bias] (w)."""
    return {"a": problem.seen_descriptors.shape[1], "w": problem.seen_head.dim + 1}


def model_of(
    problem: InjectionProblem,
    method: TrainedMethod,
    objective: Objective,
    networks: nn.ModuleDict,
    device: str,
) -> Reconstruction:
    """Return the model of a problem, all but its networks brought to the device."""
    seen = problem.known_descriptors.to(device)
    rows = seen
    if objective.use_unseen:
        rows = torch.cat([seen, problem.unseen_descriptors.to(device)])
    targets = problem.known_head.joined().to(device)
    subspace = objective.subspace and objective.subspace.to(device)
    return Reconstruction(networks, rows, targets, objective.losses, method.distance, subspace)


def watch_of(
    model: Reconstruction, problem: InjectionProblem
) -> Callable[[], dict[str, float]] | None:
    """Return what looks at the held-out classes after an epoch, None if there are none."""
    if problem.truth is None:
        return None
    device = model.targets.device
    unseen, truth = problem.unseen_descriptors.to(device), problem.truth.joined().to(device)
    return lambda: model.held_out(unseen, truth)


def injection_of(
    model: Reconstruction, problem: InjectionProblem, history: dict[str, list[float]]
) -> Injection:
    """Return what a trained model injects: its predicted rows below the seen head's."""
    device = model.targets.device
    unseen = model.predict(problem.unseen_descriptors.to(device)).cpu()
    return Injection(
        problem.seen_head.append(Head.from_joined(unseen, problem.unseen_classes)),
        history=history,
        seen_predictions=model.predict(problem.known_descriptors.to(device)).cpu(),
    )
