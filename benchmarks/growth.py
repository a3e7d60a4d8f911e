"""How the cost of training ICIS grows with seeds, classes and sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from benchmarks.cases import fixed, our_training, plain_training
from benchmarks.shapes import CUB, World
from benchmarks.turns import epoch_seconds, spread, take_turns
from icis.methods import Icis

BASE = replace(CUB, name="base", hidden=1024)
AXES = {
    "seeds": ("seeds", (1, 2, 5)),
    "seen": ("seen classes", (50, 200, 800)),
    "unseen": ("unseen classes", (25, 100, 400)),
    "dim": ("D", (512, 1024, 2048, 4096)),
    "hidden": ("h", (512, 1024, 2048, 4096)),
}
COLOURS = {"ours": "#0b5fa5", "plain": "#8a8a8a"}


def measure_growth(rounds: int, *, quick: bool, tell: Callable[[str], None]) -> dict[str, Any]:
    """Return seconds an epoch of both sides, along each axis from CUB's shapes with h 1024."""
    found: dict[str, Any] = {}
    for axis, (label, values) in AXES.items():
        found[axis] = []
        for value in values[:: len(values) - 1] if quick else values:
            tell(f"growth: {label} {value}")
            sides = take_turns(_sides(axis, value), rounds, warm_up=False)
            found[axis].append(
                {"value": value, **{side: spread(values) for side, values in sides.items()}}
            )
    return found


def _sides(axis: str, value: int) -> dict[str, Callable[[], float]]:
    seeds = value if axis == "seeds" else 1
    shape = BASE if axis == "seeds" else replace(BASE, **{axis: value})
    problem, method = World(shape).problem(), fixed(Icis(), shape, 2)
    trainings = {
        "ours": partial(our_training, method, problem),
        "plain": partial(plain_training, shape, problem, epochs=2),
    }
    return {side: partial(_all_seeds, train, seeds) for side, train in trainings.items()}


def _all_seeds(train: Callable[..., object], seeds: int) -> float:
    return sum(epoch_seconds(partial(train, seed=seed)) for seed in range(seeds))


def draw(growth: dict[str, Any], file: Path) -> None:
    """Draw a panel an axis, both logarithmic, with the quartiles as a band."""
    figure, panels = plt.subplots(
        1, len(growth), figsize=(2.3 * len(growth), 2.9), sharey=True, layout="constrained"
    )
    for axes, (axis, points) in zip(panels, growth.items(), strict=True):
        _panel(axes, points)
        axes.set_xlabel(AXES[axis][0])
    panels[0].set_ylabel("seconds an epoch")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=3, frameon=False)
    base = f"{BASE.seen} + {BASE.unseen} classes, d {BASE.components}, D {BASE.dim}"
    figure.suptitle(f"Training ICIS from {base}, h {BASE.hidden}", x=0.01, ha="left", fontsize=10)
    figure.savefig(file, dpi=150)
    plt.close(figure)


def _panel(axes: Axes, points: list[dict[str, Any]]) -> None:
    x = [point["value"] for point in points]
    for side, colour in COLOURS.items():
        middle, low, high = (
            [point[side][key] for point in points]
            for key in ("median", "lower_quartile", "upper_quartile")
        )
        axes.plot(x, middle, marker="o", markersize=4, color=colour, label=side)
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    first = points[0]["ours"]["median"]
    straight = [first * value / x[0] for value in x]
    axes.plot(
        x, straight, color="black", linewidth=0.8, linestyle=":", label="in proportion to the axis"
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(x, [f"{value}" for value in x])
    axes.grid(axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
