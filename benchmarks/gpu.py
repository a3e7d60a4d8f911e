"""Tables 1 and 2 (wDAE apart) from features, on one device, beside what its memory allows.

    python benchmarks/gpu.py [--device cuda] [--seeds 5] [--output FILE.json]
    python benchmarks/gpu.py --device cpu --tiny      # a smoke test: other shapes, few epochs

Methods, seeds and settings are those of params.yaml; features are made here, in the true shapes:
images of a class lie around a linear image of its attributes. Timed are the seen heads, all methods
of a data set (what is trained: as one program), and the accuracies.

The floor is the time in which the memory could move what Adam must: of a parameter, each step, it
reads weight, gradient and both moments (16 bytes) and writes weight and moments (12 bytes), 28
bytes, over the bandwidth of a large copy measured before. Steps are those really taken. Products
read the weights again and write the gradients, so that twice the floor is a good time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from icis.artifacts import write_json
from icis.config import Experiment, SeenHead, read_experiment
from icis.errors import IcisError
from icis.evaluation import evaluate
from icis.heads import Head
from icis.methods import Injection, InjectionProblem, Method
from icis.methods.base import Task
from icis.methods.ensemble import training
from icis.metrics import LabelledFeatures
from icis.seen_programs import train_seen_heads
from icis.stages.common import denormals_flushed, device_name, pick_device

ROOT = Path(__file__).parent.parent
TABLES = ("table1", "table2", "table2-sun")
ADAM_BYTES = 28
"""A parameter, a step."""
LIMIT = 120
"""Seconds that the whole may take on an H200."""


@dataclass(frozen=True)
class Shape:
    """A data set's counts."""

    seen: int
    unseen: int
    attributes: int
    trainval: int
    test_seen: int
    test_unseen: int
    features: int = 2048

    def tiny(self) -> Shape:
        """Return a small shape with about the same proportions."""
        return Shape(self.seen // 10 + 8, self.unseen // 10 + 2, 12, 240, 60, 60, 96)


SHAPES = {
    "CUB": Shape(150, 50, 312, 7057, 1764, 2967),
    "AWA2": Shape(40, 10, 85, 23527, 5882, 7913),
    "SUN": Shape(645, 72, 102, 10320, 2580, 1440),
}


@dataclass(frozen=True)
class Data:
    """A data set made here: images by split, descriptors by class."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    descriptors: torch.Tensor
    images: dict[str, LabelledFeatures]


def make(shape: Shape, seed: int = 0) -> Data:
    """Make a data set: attributes of length 1, features not below 0."""
    generator = torch.Generator().manual_seed(seed)
    seen = tuple(f"s{n}" for n in range(shape.seen))
    unseen = tuple(f"u{n}" for n in range(shape.unseen))
    described = torch.rand(shape.seen + shape.unseen, shape.attributes, generator=generator)
    described = torch.nn.functional.normalize(described)
    mixing = torch.randn(shape.attributes, shape.features, generator=generator)
    centres = (described - described.mean(0)) @ mixing

    def images(rows: range, count: int) -> LabelledFeatures:
        labels = torch.tensor([rows[n % len(rows)] for n in range(count)])
        noise = 0.5 * torch.randn(count, shape.features, generator=generator)
        names = [(*seen, *unseen)[label] for label in labels.tolist()]
        return LabelledFeatures((centres[labels] + noise).relu(), names)

    known, novel = range(shape.seen), range(shape.seen, shape.seen + shape.unseen)
    splits = {
        "trainval": images(known, shape.trainval),
        "test_seen": images(known, shape.test_seen),
        "test_unseen": images(novel, shape.test_unseen),
    }
    return Data(seen, unseen, described, splits)


def methods_of(experiment: Experiment, dataset: str, *, tiny: bool) -> dict[str, Method]:
    """Return the methods of the tables on a data set, wDAE left out."""
    tables = [experiment.tables[name] for name in TABLES]
    names = [name for table in tables if dataset in table.datasets for name in table.methods]
    chosen = {name: experiment.methods[name] for name in names if name != "wdae"}
    batch_size = experiment.datasets[dataset].batch_size
    found = {name: method.resolve(batch_size=batch_size) for name, method in chosen.items()}
    if tiny:
        small = {"hidden": 16, "max_epochs": 3}
        found = {
            name: method.model_copy(update=small) if method.batched else method
            for name, method in found.items()
        }
    return found


class Clock:
    """Seconds by name, and the device waited for."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Add what happens inside to a name's seconds."""
        self._wait()
        began = time.perf_counter()
        yield
        self._wait()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)


def copy_bandwidth(device: str, *, size: int, times: int = 10) -> float:
    """Return the bytes a second that a copy of some bytes moves: read once, written once."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    clock = Clock(device)
    target.copy_(source)
    with clock.time("copy"):
        for _ in range(times):
            target.copy_(source)
    return 2 * size * times / clock.seconds["copy"]


def train_heads(data: Data, recipe: SeenHead, seeds: int, clock: Clock) -> tuple[list[Head], int]:
    """Return a seen head a seed, and how many parameters Adam updated, over all steps."""
    images = data.images["trainval"]
    with clock.time("seen heads"):
        found = train_seen_heads(
            images, recipe, classes=data.seen, seeds=range(seeds), device=clock.device
        )
    assert recipe.batch_size is not None
    steps = recipe.epochs * -(-len(images.classes) // recipe.batch_size)
    heads = []
    for trained in found.values():
        if isinstance(trained, IcisError):
            raise trained
        heads.append(trained.head)
    return heads, seeds * steps * heads[0].joined().numel()


def inject(
    data: Data, heads: list[Head], methods: dict[str, Method], clock: Clock
) -> tuple[dict[str, list[Injection]], int]:
    """Return each method's injection a seed, and how many parameters Adam updated."""
    described = data.descriptors[: len(data.seen)], data.descriptors[len(data.seen) :]
    problems = [InjectionProblem(head, *described, data.unseen) for head in heads]
    found: dict[str, list[Injection]] = {name: [] for name in methods}
    tasks = [Task(method, problem, seed, name) for name, method in methods.items()
             if method.batched for seed, problem in enumerate(problems)]  # fmt: skip
    updates = 0

    def done(task: Task, result: Injection | Exception) -> None:
        nonlocal updates
        if isinstance(result, Exception):
            raise result
        found[task.label].append(result)
        own = training(task)
        rows = len(data.seen) + len(data.unseen) * own.objective.use_unseen
        steps = result.epochs * -(-rows // own.batch_size)
        updates += steps * sum(own.parameters().values())

    with clock.time("trained methods"):
        tasks[0].method.inject_many(tasks, device=clock.device, done=done)
    with clock.time("other methods"):
        for name, method in methods.items():
            if not method.batched:
                found[name] = [method.inject(problem, seed=seed, device=clock.device)
                               for seed, problem in enumerate(problems)]  # fmt: skip
    return found, updates


def judge(data: Data, found: dict[str, list[Injection]], clock: Clock) -> dict[str, Any]:
    """Return the means over seeds of epochs and accuracies, by method."""
    report = {}
    for name, injections in found.items():
        with clock.time("accuracies"):
            scores = [
                evaluate(
                    each.joint,
                    each.unseen or data.unseen,
                    test_seen=data.images["test_seen"],
                    test_unseen=data.images["test_unseen"],
                    device=clock.device,
                )
                for each in injections
            ]
        means = {key: fmean(score[key] for score in scores) for key in ("T1", "U", "S", "H")}
        report[name] = {"epochs": fmean(each.epochs for each in injections), **means}
    return report


def measure(device: str, *, seeds: int, tiny: bool) -> dict[str, Any]:
    """Measure all data sets, and what the memory allows."""
    experiment = read_experiment(ROOT / "params.yaml")
    bandwidth = copy_bandwidth(device, size=2**20 if tiny else 2**30)
    report: dict[str, Any] = {
        "device": device_name(device), "torch": torch.__version__, "seeds": seeds, "tiny": tiny,
        "copy_gigabytes_per_second": bandwidth / 1e9, "data sets": {},
    }  # fmt: skip
    seconds: dict[str, float] = {}
    updates = {"seen heads": 0, "trained methods": 0}
    for name, shape in SHAPES.items():
        clock = Clock(device)
        data = make(shape.tiny() if tiny else shape)
        recipe = experiment.heads["last"]
        assert isinstance(recipe, SeenHead)
        recipe = recipe.resolve(batch_size=experiment.datasets[name].batch_size)
        if tiny:
            recipe = recipe.model_copy(update={"epochs": 2})
        heads, of_heads = train_heads(data, recipe, seeds, clock)
        found, of_methods = inject(data, heads, methods_of(experiment, name, tiny=tiny), clock)
        updates["seen heads"] += of_heads
        updates["trained methods"] += of_methods
        methods = judge(data, found, clock)
        report["data sets"][name] = {"seconds": clock.seconds, "methods": methods}
        for part, value in clock.seconds.items():
            seconds[part] = seconds.get(part, 0.0) + value
    floors = {part: count * ADAM_BYTES / bandwidth for part, count in updates.items()}
    whole = sum(seconds.values())
    return report | {
        "seconds": seconds,
        "floor_seconds": floors,
        "ratios": {part: seconds[part] / floor for part, floor in floors.items()},
        "whole_seconds": whole,
        "whole_ratio": whole / sum(floors.values()),
        "within_limit": whole <= LIMIT,
    }


def main() -> None:
    """Measure, and print the outcome."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="small shapes and few epochs")
    parser.add_argument("--output", type=Path, metavar="FILE.json")
    wanted = parser.parse_args()
    device = pick_device(wanted.device)
    with denormals_flushed():
        report = measure(device, seeds=wanted.seeds, tiny=wanted.tiny)
    if device.startswith("cuda"):
        report["peak_gibibytes"] = torch.cuda.max_memory_allocated(device) / 2**30
    print(json.dumps(report, indent=2))
    if wanted.output:
        write_json(wanted.output, report)


if __name__ == "__main__":
    main()
