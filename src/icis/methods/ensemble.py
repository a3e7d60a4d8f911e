"""From tasks to programs: which trainings go together, and how many the memory holds."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import psutil
import torch
from torch import nn
from tqdm import tqdm

from icis.errors import IcisError
from icis.methods.base import Done, Injection, Progress, Task
from icis.methods.encoders import dimensions, trained_networks
from icis.methods.networks import build_networks, layer_sizes
from icis.methods.program import Member, Program
from icis.methods.training import Objective, TrainedMethod

SHARE = 0.8
"""Of the free memory that is used: the allocator needs room between tensors."""
FLOAT = 4
"""Bytes of a component."""


@dataclass(frozen=True)
class Training:
    """A task with what is trained, and what must be equal in one program."""

    task: Task
    objective: Objective
    dims: dict[str, int]
    hidden: int
    batch_size: int
    learning_rate: float

    @property
    def group(self) -> tuple[object, ...]:
        """Return what trainings in one program have in common."""
        shape = *self.dims.values(), self.hidden, self.objective.depth
        return *shape, self.batch_size, self.learning_rate

    def start(self, seed: int) -> nn.ModuleDict:
        """Return the initial networks of a seed."""
        return build_networks(self.dims, hidden=self.hidden, depth=self.objective.depth, seed=seed)

    @property
    def _sizes(self) -> dict[str, list[tuple[int, int]]]:
        return layer_sizes(self.dims, hidden=self.hidden, depth=self.objective.depth)

    def parameters(self) -> dict[str, int]:
        """Return the number of weights and biases of each network that is trained."""
        trained, sizes = trained_networks(self.objective.losses), self._sizes
        return {name: sum(i * o + o for i, o in sizes[name]) for name in trained}

    def bytes(self) -> int:
        """Estimate the memory of the training on the device, data and rows in work included.

        Four floats a parameter (weight, gradient, two moments) and one more of the largest network,
        which is copied when members end; of a row, what the networks give, the losses' and the
        backward pass's copies of it.
        """
        sizes, parameters = self._sizes, self.parameters()
        wide = sum(o for layers in sizes.values() for _, o in layers)
        problem = self.task.problem
        classes = len(problem.seen_head.classes) + len(problem.unseen_classes)
        span = self.objective.subspace
        floats = 4 * sum(parameters.values()) + max(parameters.values())
        floats += 12 * 2 * self.batch_size * wide + classes * sum(self.dims.values())
        return FLOAT * (floats + (0 if span is None else span.basis.numel()))


def training(task: Task) -> Training:
    """Return how a task is trained; raises what is wrong with its problem."""
    method = task.method
    assert isinstance(method, TrainedMethod)
    assert method.batch_size is not None, "resolve() fills in the data set's batch size"
    return Training(
        task, method.objective(task.problem), dimensions(task.problem), method.hidden,
        method.batch_size, method.learning_rate,
    )  # fmt: skip


def train_together(
    tasks: Sequence[Task],
    *,
    device: str,
    done: Done,
    progress: Progress | None = None,
    memory: int | None = None,
) -> None:
    """Train tasks in as few programs as their shapes and the memory allow; see ``inject_many``."""
    groups: dict[object, list[Training]] = {}
    for task in tasks:
        try:
            made = training(task)
            groups.setdefault(made.group, []).append(made)
        except Exception as error:  # one problem must not take the others with it
            _tell(f"{task.label}: {error}")
            done(task, error)
    for group in groups.values():
        budget = int(SHARE * free_memory(device)) if memory is None else memory
        parts = split(group, budget)
        if len(parts) > 1:
            needed = sum(each.bytes() for each in group)
            _tell(
                f"{len(group)} trainings need about {needed / 2**20:,.0f} MiB, there are "
                f"{budget / 2**20:,.0f} MiB: in {len(parts)} programs, one after the other"
            )
        for part in parts:
            _run(part, device, done, progress)


def split(trainings: Sequence[Training], budget: int) -> list[list[Training]]:
    """Cut trainings into parts, in their order, that need no more bytes than the budget.

    One that needs more by itself is a part of its own: it may yet fit, and nothing smaller is left.
    """
    parts: list[list[Training]] = []
    used = 0
    for each in trainings:
        size = each.bytes()
        if not parts or used + size > budget:
            parts.append([])
            used = 0
        parts[-1].append(each)
        used += size
    return parts


def free_memory(device: str) -> int:
    """Return the bytes that are free on a device, what torch holds without using it included."""
    if not device.startswith("cuda"):
        return int(psutil.virtual_memory().available)
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def _run(trainings: Sequence[Training], device: str, done: Done, progress: Progress | None) -> None:
    """Run one program; whatever ends it early is the error of all that have not ended."""
    waiting = {id(each.task): each.task for each in trainings}

    def finish(task: Task, result: Injection | Exception) -> None:
        del waiting[id(task)]
        if isinstance(result, Injection):
            try:
                result = task.method.rescaled(result, task.problem)
            except IcisError as error:
                result = error
        if isinstance(result, Exception):
            _tell(f"{task.label}: {result}")
        done(task, result)

    try:
        start = cache(trainings[0].start)  # one seed's networks start all its trainings
        members = [Member(each.task, each.objective, start(each.task.seed), device)
                   for each in trainings]  # fmt: skip
        Program(members, device).run(finish, progress)
    except Exception as error:
        for task in list(waiting.values()):
            finish(task, error)


def _tell(text: str) -> None:
    tqdm.write(text, file=sys.stderr)
