"""What stands below a table: seeds, selection, splits, meanings, gaps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from icis.results import GroupHeader, Row

MEANINGS = {
    "T1": "per-class accuracy (%) on images of unseen classes, unseen classes alone to choose from",
    "U": "per-class accuracy (%) on images of unseen classes, all classes to choose from",
    "S": "per-class accuracy (%) on images of seen classes, all classes to choose from",
    "H": "harmonic mean of U and S",
    "entropy": "mean entropy (nats) of the softmax over all classes",
    "epochs": "epochs that the method was trained for",
    "seen_accuracy": "per-class accuracy (%) of the seen head alone on images of seen classes",
}
CAUTION = (
    "Selected on test images, as in the paper: not comparable with honest selection. "
    "This concerns {where}."
)
LEAK = "test_seen"

Place = tuple[int, int]
"""A group of columns and a row, by their positions."""
Selections = Mapping[str, set[Place]]
"""How epochs and models were selected: each wording with the places where it holds."""


def caution_of(
    selections: Selections, groups: Sequence[GroupHeader], rows: Sequence[Row]
) -> str | None:
    """Return the warning that rows were selected on test images, None where none was."""
    leaky = _union(places for text, places in selections.items() if LEAK in text)
    where = _where(leaky, groups, rows, among=_union(selections.values()))
    return CAUTION.format(where=where) if leaky else None


def notes_of(
    groups: Sequence[GroupHeader],
    rows: Sequence[Row],
    *,
    metrics: Sequence[str],
    seeds: Sequence[int],
    selections: Selections,
    splits: Mapping[str, Sequence[str]],
) -> list[str]:
    """Return all notes but the caution; ``splits`` are the split versions of each data set."""
    notes = [_seeds(seeds)]
    if common := _common(groups):
        notes.append(f"All columns: {', '.join(common)}.")
    present = _union(selections.values())
    for text, places in selections.items():
        notes.append(f"Selection, {_where(places, groups, rows, among=present)}: {text}.")
    if splits:
        listed = [f"{', '.join(versions)} ({dataset})" for dataset, versions in splits.items()]
        notes.append(f"Split version: {'; '.join(listed)}.")
    notes.append("; ".join(f"{metric}: {MEANINGS[metric]}" for metric in metrics) + ".")
    return [*notes, *_gaps(len(seeds), groups, rows)]


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"1 seed ({seeds[0]}), so no standard deviation."
    listed = ", ".join(map(str, seeds))
    return f"{len(seeds)} seeds ({listed}): mean ± sample standard deviation over seeds."


def _common(groups: Sequence[GroupHeader]) -> list[str]:
    """Return the names that all groups share, and that their labels leave out therefore."""
    axes = zip(*(group.parts for group in groups), strict=True)
    kinds = ("data set", "backbone", "seen head", "descriptor")
    named = list(zip(kinds, axes, strict=True))[1:]
    return [f"{kind} {names[0]}" for kind, names in named if len(set(names)) == 1]


def _where(
    places: set[Place], groups: Sequence[GroupHeader], rows: Sequence[Row], *, among: set[Place]
) -> str:
    """Name places in words: rows, and their groups where these are not all of ``among``."""
    together: dict[tuple[int, ...] | None, list[str]] = {}
    for r, row in enumerate(rows):
        inside = tuple(g for g in range(len(groups)) if (g, r) in places)
        whole = tuple(g for g in range(len(groups)) if (g, r) in among)
        if inside:
            together.setdefault(None if inside == whole else inside, []).append(row.display)
    parts = []
    for only, names in together.items():
        all_rows = len(names) == len({r for _, r in among})
        who = "all rows" if all_rows else ", ".join(f"“{name}”" for name in names)
        on = ", ".join(groups[g].label for g in only or ())
        parts.append(f"{who} on {on}" if on else who)
    return "; ".join(parts)


def _gaps(wanted: int, groups: Sequence[GroupHeader], rows: Sequence[Row]) -> Iterator[str]:
    """Yield a note on cells without results and one on cells with fewer seeds than asked for."""
    fewest: dict[Place, int] = {}
    for r, row in enumerate(rows):
        for (g, _), summary in row.cells.items():
            fewest[g, r] = min(fewest.get((g, r), wanted), summary.n if summary else 0)
    empty = {place for place, count in fewest.items() if count == 0}
    short = {place for place, count in fewest.items() if 0 < count < wanted}
    for what, places in (("No result", empty), (f"Fewer than {wanted} seeds", short)):
        if places:
            where = _where(places, groups, rows, among=set(fewest))
            yield f"{what} of this configuration: {where}."


def _union(sets: Iterable[set[Place]]) -> set[Place]:
    return set[Place]().union(*sets)
