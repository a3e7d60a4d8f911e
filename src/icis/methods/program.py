"""Many trainings as one program: their weights stacked, one batched product and one Adam for all.

Each training keeps what makes it the one that it is alone: initial weights, order of its batches,
active terms, stop. Numbers differ from ``encoders.train`` by rounding only: the batched products
add up in another order. A step is one batch of every training, its missing rows counting for
nothing; trainings have epochs of different lengths, so each has a clock of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn

from icis.errors import IcisError
from icis.methods.base import Done, Injection, Progress, Task
from icis.methods.encoders import (
    Course,
    Reconstruction,
    SlopeStop,
    injection_of,
    model_of,
    shuffled_epochs,
    trained_networks,
    watch_of,
)
from icis.methods.networks import DISTANCES
from icis.methods.steps import TERMS
from icis.methods.training import Objective, TrainedMethod
from icis.stacked import StackedParameter, adam_step, repeated

IDLE = 0.25
"""Share of ended trainings at which they are taken out: until then they go on for nothing."""
T = TypeVar("T")


class Member:
    """One training of a program: its model, its batches, its course."""

    def __init__(self, task: Task, objective: Objective, start: nn.ModuleDict, device: str) -> None:
        method = task.method
        assert isinstance(method, TrainedMethod)
        assert method.batch_size is not None, "resolve() fills in the data set's batch size"
        self.task, self.batch_size = task, method.batch_size
        self.learning_rate, self.distance = method.learning_rate, method.distance
        trained = sorted(trained_networks(objective.losses))
        self.networks = {name: _copy(start[name]) for name in trained}
        self.model: Reconstruction = model_of(
            task.problem, method, objective, nn.ModuleDict(self.networks), device
        )
        self.course = Course(
            objective.losses,
            max_epochs=method.max_epochs,
            stop=SlopeStop(method.threshold),
            watch=watch_of(self.model, task.problem),
        )
        self.ended = False
        self.epochs = shuffled_epochs(len(self.model.descriptors), self.batch_size, task.seed)
        self._begin()

    def _begin(self) -> None:
        order = torch.cat(next(self.epochs))
        self.steps = -(-len(order) // self.batch_size)
        padded = torch.zeros(self.steps * self.batch_size, dtype=torch.long)
        padded[: len(order)] = order
        self.rows = padded.view(self.steps, self.batch_size)
        self.present = (torch.arange(len(padded)) < len(order)).view(self.rows.shape)
        self.taken = 0

    @property
    def left(self) -> int:
        """Return how many steps of the epoch are left."""
        return self.steps - self.taken

    def take(self, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return row numbers, and which of them count, of the next steps, both [steps, B]."""
        if self.ended:
            nothing = torch.zeros(steps, self.batch_size, dtype=torch.long)
            return nothing, nothing.bool()
        part = slice(self.taken, self.taken + steps)
        self.taken += steps
        return self.rows[part], self.present[part]

    def end_epoch(self, sums: Sequence[float]) -> bool:
        """Take the epoch's sums of the loss and of ``TERMS``; return whether the training ends."""
        named = dict(zip(("loss", *TERMS), sums, strict=True))
        means = {name: named[name] / self.steps for name in ("loss", *self.model.losses)}
        self.ended = self.course.add(means)
        if not self.ended:
            self._begin()
        return self.ended


class StackedLinear:
    """Linear layers of some trainings; weight [M, out, in], bias [M, 1, out]."""

    def __init__(self, layers: Sequence[nn.Linear], device: str) -> None:
        weight = torch.stack([layer.weight.detach() for layer in layers])
        bias = torch.stack([layer.bias.detach()[None] for layer in layers])
        self.weight = StackedParameter(weight.to(device))
        self.bias = StackedParameter(bias.to(device))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return x Wᵀ + b, [M, N, out] from [M, N, in]."""
        return torch.baddbmm(self.bias.value, x, self.weight.value.transpose(1, 2))


class StackedNetwork:
    """A network of those members that train it, with their positions among all members."""

    def __init__(self, name: str, members: Sequence[Member], device: str) -> None:
        self.name = name
        self.owners = [member for member in members if name in member.networks]
        self.networks = [member.networks[name] for member in self.owners]
        self.layers = [
            StackedLinear([each for each in layers if isinstance(each, nn.Linear)], device)
            for layers in zip(*self.networks, strict=True)
            if isinstance(layers[0], nn.Linear)
        ]
        self.place(members, device)

    def parameters(self) -> list[StackedParameter]:
        """Return the weights and biases of all layers."""
        return [each for layer in self.layers for each in (layer.weight, layer.bias)]

    def keep(self, members: Sequence[Member], device: str) -> None:
        """Keep only some members' weights."""
        kept = [i for i, owner in enumerate(self.owners) if owner in members]
        if len(kept) < len(self.owners):
            self.owners, self.networks = _chosen(self.owners, kept), _chosen(self.networks, kept)
            positions = torch.tensor(kept, dtype=torch.long, device=device)
            for parameter in self.parameters():
                parameter.keep(positions)
        self.place(members, device)

    def place(self, members: Sequence[Member], device: str) -> None:
        """Find the owners among all members, and lend their models the weights."""
        found = [members.index(owner) for owner in self.owners]
        self.size = len(members)
        everyone = len(found) == self.size
        self.positions = None if everyone else torch.tensor(found, dtype=torch.long, device=device)
        for number, network in enumerate(self.networks):
            own = [each for each in network if isinstance(each, nn.Linear)]
            for layer, stacked in zip(own, self.layers, strict=True):
                weight, bias = stacked.weight.value.detach(), stacked.bias.value.detach()
                layer.weight = nn.Parameter(weight[number], requires_grad=False)
                layer.bias = nn.Parameter(bias[number, 0], requires_grad=False)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the network's output [M, N, out] for [M, N, in]; 0 for members without it."""
        y = x if self.positions is None else x[self.positions]
        layers = iter(self.layers)
        for module in self.networks[0]:
            y = next(layers)(y) if isinstance(module, nn.Linear) else module(y)
        if self.positions is None:
            return y
        return y.new_zeros(self.size, *y.shape[1:]).index_copy(0, self.positions, y)


class Program:
    """Trainings of the same dimensions, depth, batch size and learning rate."""

    def __init__(self, members: Sequence[Member], device: str) -> None:
        self.members, self.device = list(members), device
        names = {name for member in members for name in member.networks}
        self.networks = {name: StackedNetwork(name, members, device) for name in sorted(names)}
        self.sums = torch.zeros(len(members), 1 + len(TERMS), dtype=torch.float64, device=device)
        self._stack_problems()

    def _stack_problems(self) -> None:
        models = [member.model for member in self.members]
        self.descriptors = _padded([model.descriptors for model in models])
        self.targets = _padded([model.targets for model in models])
        self.seen = self._tensor([[len(model.targets)] for model in models])
        self.numbers = torch.arange(len(models), device=self.device)[:, None]
        self.weights = self._tensor([[model.losses.get(t, 0.0) for t in TERMS] for model in models])
        self.kinds = sorted({member.distance for member in self.members})
        self.first_kind = self._tensor([[m.distance == self.kinds[0]] for m in self.members])
        spans = [model.subspace for model in models]
        self.basis: torch.Tensor | None = None
        if any(spans):
            nothing = self.targets.new_zeros(self.targets.shape[2], 0)
            bases = [nothing if span is None else span.basis for span in spans]
            self.basis = _padded([basis.t() for basis in bases]).transpose(1, 2)
        self.over_rows = self._tensor([span is not None and span.over == "rows" for span in spans])

    def _tensor(self, values: Sequence[object]) -> torch.Tensor:
        return torch.tensor(values, device=self.device)

    def run(self, done: Done, progress: Progress | None = None) -> None:
        """Train all members, and hand over each when it ends, by its stop or by an error."""
        step = repeated(self.step, self.device)
        while running := [member for member in self.members if not member.ended]:
            if len(running) <= (1 - IDLE) * len(self.members):
                self._keep(running)
                step = repeated(self.step, self.device)
            steps = min(member.left for member in running)
            rows, present = zip(*(member.take(steps) for member in self.members), strict=True)
            # one copy to the device for all steps until somebody's epoch ends
            batches = torch.stack(rows, 1).to(self.device), torch.stack(present, 1).to(self.device)
            for batch in zip(*batches, strict=True):
                step(*batch)
            self._end_epochs([member for member in running if not member.left], done)
            losses = max((m.course.history["loss"] for m in running), key=len)
            if progress and losses:
                progress(len(losses), losses[-1])

    def _end_epochs(self, members: Sequence[Member], done: Done) -> None:
        """Judge the members whose epoch is over, and hand over those that end with it."""
        sums = dict(zip(self.members, self.sums.tolist(), strict=True))
        over = [member in members for member in self.members]
        self.sums.masked_fill_(self._tensor(over)[:, None], 0)
        for member in members:
            result: Injection | Exception
            try:
                if not member.end_epoch(sums[member]):
                    continue
                history = member.course.history
                result = injection_of(member.model, member.task.problem, history)
            except IcisError as error:
                result, member.ended = error, True
            done(member.task, result)

    def _keep(self, members: list[Member]) -> None:
        kept = [i for i, member in enumerate(self.members) if member in members]
        self.members, self.sums = members, self.sums[kept]
        for name, network in list(self.networks.items()):
            network.keep(members, self.device)
            if not network.owners:
                del self.networks[name]
        self._stack_problems()

    def step(self, rows: torch.Tensor, present: torch.Tensor) -> None:
        """Take one step of Adam for every member; see ``terms`` for its batch."""
        terms = self.terms(rows, present)
        losses = (terms * self.weights).sum(1, keepdim=True)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        parameters = [each for net in self.networks.values() for each in net.parameters()]
        adam_step(parameters, self.members[0].learning_rate)
        self.sums += torch.cat([losses, terms], 1).detach()

    def terms(self, rows: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Return ``TERMS`` of a batch a member, [M, 5], from rows and which count, [M, B].

        Each as in ``icis.methods.steps.step``. One that a member does not train is of no meaning.
        """
        seen = present & (rows < self.seen)
        a = self.descriptors[self.numbers, rows]
        w = self.targets[self.numbers, torch.where(seen, rows, 0)]
        latents = [self.networks["encode_a"](a)]
        if "encode_w" in self.networks:
            latents.append(self.networks["encode_w"](w))
        batch, latent = rows.shape[1], torch.cat(latents, 1)
        into_w = self.networks["decode_w"](latent)
        found = {}
        for term, distances in zip(("a2w", "w2w"), self._distances(into_w, w), strict=False):
            found[term] = _mean(distances, seen)
        if "decode_a" in self.networks:
            into_a = self.networks["decode_a"](latent)
            for term, counting, distances in zip(
                ("a2a", "w2a"), (present, seen), self._distances(into_a, a), strict=False
            ):
                found[term] = _mean(distances, counting)
        if self.basis is not None:
            found["subspace"] = self._from_span(into_w[:, :batch], present)
        nothing = torch.zeros_like(found["a2w"])
        return torch.stack([found.get(term, nothing) for term in TERMS], 1)

    def _distances(self, decoded: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the row losses [M, B] of what was decoded from each latent, [M, B or 2 B, n]."""
        paths = decoded.shape[1] // truth.shape[1]
        pairs = decoded.flatten(0, 1), truth.repeat(1, paths, 1).flatten(0, 1)
        found = [DISTANCES[kind](*pairs).view(decoded.shape[:2]) for kind in self.kinds]
        chosen = found[0] if len(found) == 1 else torch.where(self.first_kind, found[0], found[1])
        return torch.split(chosen, truth.shape[1], dim=1)

    def _from_span(self, predicted: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        assert self.basis is not None
        residual = predicted - (predicted @ self.basis) @ self.basis.transpose(1, 2)
        norms = torch.where(present, torch.linalg.vector_norm(residual, dim=2), 0)
        of_batch = torch.linalg.vector_norm(norms, dim=1)
        return torch.where(self.over_rows, _mean(norms, present), of_batch)


def _copy(network: nn.Module) -> nn.Sequential:
    assert isinstance(network, nn.Sequential)
    return deepcopy(network)


def _mean(values: torch.Tensor, counting: torch.Tensor) -> torch.Tensor:
    """Return the mean [M] of those values [M, B] that count, 0 where none does."""
    return torch.where(counting, values, 0).sum(1) / counting.sum(1).clamp(min=1)


def _padded(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return matrices of different lengths as one tensor, the shorter ones filled with zeros."""
    return nn.utils.rnn.pad_sequence(list(matrices), batch_first=True)


def _chosen(values: Sequence[T], numbers: Sequence[int]) -> list[T]:
    return [values[number] for number in numbers]
