"""Measuring: all sides take turns in one run, memory in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Literal

import torch

Work = Callable[[], float]
"""Does a thing once and returns the seconds of a unit of it."""


@dataclass(frozen=True)
class Case:
    """One thing measured on several sides; the first of them is ours.

    ``make`` builds the inputs and returns the sides; the second is the reference. The ratio is
    reference / ours with a bound ``at least`` (how many times as fast), else ours / reference (how
    many times the unavoidable); with the bound ``seconds`` the target is one of ours alone.
    ``warm_up``: whether a first turn is thrown away.
    """

    part: str
    name: str
    unit: str
    make: Callable[[], Mapping[str, Work]]
    bound: Literal["at least", "at most", "seconds"]
    target: float
    aim: float | None = None
    warm_up: bool = True
    memory: bool = True
    often: int = 1
    """So many times as many turns: those of a short work vary more."""
    most_mib: float | None = None
    """What the peak of memory should stay below."""

    @property
    def key(self) -> str:
        """Return part and name."""
        return f"{self.part}: {self.name}"


def seconds(work: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def epoch_seconds(
    train: Callable[[Callable[[int, float], None]], object], *, skip: int = 1
) -> float:
    """Return the seconds of an epoch; the first ones are the warm-up.

    ``train`` takes what it calls after every epoch.
    """
    ends: list[float] = []
    train(lambda epoch, loss: ends.append(time.perf_counter()))
    return (ends[-1] - ends[skip - 1]) / (len(ends) - skip)


def take_turns(
    works: Mapping[str, Work], rounds: int, *, warm_up: bool = True
) -> dict[str, list[float]]:
    """Return each side's seconds, ``rounds`` of them; another side begins every round."""
    names = list(works)
    for name in names if warm_up else ():
        works[name]()
    found: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(works[name]())
    return found


def spread(values: list[float]) -> dict[str, Any]:
    """Return the median, the quartiles and the values themselves."""
    low, _, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else 3 * values
    return {"median": median(values), "lower_quartile": low, "upper_quartile": high,
            "values": values}  # fmt: skip


def measure(case: Case, rounds: int, *, quick: bool) -> dict[str, Any]:
    """Return the seconds of all sides, their ratio and, unless quick, their peak memory."""
    found = take_turns(case.make(), rounds * case.often, warm_up=case.warm_up)
    ours, reference = list(found)[:2]
    pairs = zip(found[ours], found[reference], strict=True)
    ratios = [r / o if case.bound == "at least" else o / r for o, r in pairs]
    result = {
        "part": case.part, "name": case.name, "unit": case.unit, "bound": case.bound,
        "target": case.target, "aim": case.aim, "most_mib": case.most_mib, "reference": reference,
        "sides": {side: spread(values) for side, values in found.items()},
        "ratio": spread(ratios),
    }  # fmt: skip
    for side in found if case.memory and not quick else ():
        result["sides"][side] |= memory_of(case.key, side)
    return result


def memory_of(key: str, side: str) -> dict[str, float]:
    """Return what ``own_memory`` gives of one side of a case, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.speed", "--memory-of", key, side]
    command += ["--threads", str(torch.get_num_threads())]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def own_memory(work: Work) -> dict[str, float]:
    """Return the process's memory in MiB before a work, its inputs made, and at most during it."""
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far, of making inputs, is forgotten
    work()
    return {"before_mib": before, "peak_mib": _status("VmHWM")}


def _status(key: str) -> float:
    """Return an entry of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    [line] = [each for each in lines if each.startswith(f"{key}:")]
    return int(line.split()[1]) / 1024
