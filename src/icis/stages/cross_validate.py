"""Compare methods without images: cross-validation over the seen classes (icis.selection)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer
from tabulate import tabulate
from tqdm import tqdm

from icis import layout
from icis.artifacts import write_text
from icis.config import Xlsa17Dataset
from icis.datasets.index import load_index
from icis.datasets.paths import expand
from icis.datasets.splits import tuning_split_from_lists
from icis.errors import IcisError
from icis.features import load_features
from icis.inputs import input_files
from icis.methods import InjectionProblem, Method
from icis.plan import Cell, Plan
from icis.references import no_such
from icis.selection import (
    MEASURES,
    WITH_IMAGES,
    Folds,
    Selected,
    check_criterion,
    choose,
    compare,
    summaries,
)
from icis.stages.common import denormals_flushed, pick_device
from icis.stages.problems import load_problem

DIGITS = {"pseudo_accuracy": 1, "retrieval": 1, WITH_IMAGES: 1}


def run(
    plan: Plan,
    dataset: str,
    backbone: str,
    head: str,
    descriptor: str,
    methods: Sequence[str] = (),
    *,
    folds: int = 5,
    official: bool = False,
    seeds: Sequence[int] = (),
    criterion: str = "pseudo_accuracy",
    images: bool = False,
    device: str = "auto",
    output: Path | None = None,
) -> Selected:
    """Cross-validate methods of the experiment file (by default all), and print their criteria.

    Reads the seen heads and descriptors on disk, one head a seed (by default all seeds of the
    experiment's cells there), and no image; with ``images`` the features of the trainval images,
    which are of seen classes, judge too. With ``official`` the folds are the validation classes
    of the data set's three tuning splits. ``output`` is a .csv for the values of all folds.
    """
    check_criterion(criterion, images=images)
    if output is not None and output.suffix != ".csv":
        raise IcisError(f"{output}: the values of all folds are written as .csv")
    candidates = _candidates(plan, dataset, methods)
    cells = _cells(plan, (dataset, backbone, head, descriptor))
    chosen = seeds or sorted({seed for cell in cells for seed in plan.seeds[cell.key]})
    problems = {seed: _problem(cells[0], seed) for seed in chosen}
    judges = load_features(layout.features(dataset, backbone)).split("trainval") if images else None
    device = pick_device(device)
    parts: Folds = folds
    if official:
        parts = official_folds(plan, dataset, next(iter(problems.values())))
    count = parts if isinstance(parts, int) else len(parts)
    total = len(candidates) * len(problems) * count
    bar = tqdm(total=total, desc="cross-validation", unit="fold", disable=None, leave=False)
    with denormals_flushed(), bar:
        frame = compare(
            problems, candidates, folds=parts, images=judges, device=device, progress=bar.update
        )
    if output is not None:
        write_text(output, frame.write_csv())
    selected = choose(frame, criterion)
    typer.echo(report(selected))
    return selected


def official_folds(plan: Plan, dataset: str, problem: InjectionProblem) -> list[list[int]]:
    """Return the validation classes of official tuning splits 1 to 3, as numbers of known classes.

    The lists (valclasses1.txt, …) lie beside the splits; the images that version 1.0 of the splits
    names for tuning hold test images, so that only the lists are used.
    """
    data = plan.dataset(dataset)
    if not isinstance(data, Xlsa17Dataset):
        raise IcisError(f"datasets.{dataset} has no tuning splits: its kind is {data.kind}")
    folder = expand(data.splits).parent
    classes = load_index(layout.index(dataset))[0].classes
    names = problem.known_head.classes
    found = []
    for number in (1, 2, 3):
        held = {*tuning_split_from_lists(folder, number, classes)[1]}
        found.append([place for place, name in enumerate(names) if name in held])
    return found


def _candidates(plan: Plan, dataset: str, keys: Sequence[str]) -> dict[str, Method]:
    known = plan.experiment.methods
    batch_size = plan.dataset(dataset).batch_size
    for key in keys:
        if key not in known:
            raise IcisError(no_such("method", key, known))
    return {key: known[key].resolve(batch_size=batch_size) for key in keys or known}


def _cells(plan: Plan, place: tuple[str, str, str, str]) -> list[Cell]:
    cells = [cell for cell in plan.cells.values() if cell.key[:4] == place]
    if not cells:
        known = {"/".join(cell.key[:4]): None for cell in plan.cells.values()}
        raise IcisError(no_such("table with", "/".join(place), known))
    return cells


def _problem(cell: Cell, seed: int) -> InjectionProblem:
    inputs = input_files(cell)
    return load_problem(
        inputs["seen heads"],
        inputs["descriptors"],
        seed,
        head_described=inputs.get("head descriptors"),
    )


def report(selected: Selected) -> str:
    """Return the criteria of all candidates as a plain table, and the choice."""
    frame = selected.frame
    images = WITH_IMAGES in frame["criterion"]
    measures = (*MEASURES, WITH_IMAGES) if images else MEASURES
    found = {name: summaries(frame, name) for name in measures}
    rows = [
        [name, *(_cell(found[measure].get(name), DIGITS.get(measure, 3)) for measure in measures)]
        for name in selected.means
    ]
    table = tabulate(rows, ["method", *measures], disable_numparse=True)
    who = "no test image" if images else "no image"
    folds, seeds = frame["fold"].n_unique(), frame["seed"].n_unique()
    others = [name for name in selected.within if name != selected.best]
    near = f"; within one standard error of it: {', '.join(others)}" if others else ""
    return (
        f"{table}\n\n"
        f"Best by {selected.criterion}: {selected.best}{near}.\n"
        f"Means ± standard errors over {folds} folds of the seen classes x {seeds} seeds; {who} "
        "and no unseen class took part. These are criteria to rank methods by, not accuracies."
    )


def _cell(summary: tuple[float, float | None] | None, digits: int) -> str:
    if summary is None:
        return ""
    mean, error = summary
    return f"{mean:.{digits}f}" + ("" if error is None else f" ± {error:.{digits}f}")
