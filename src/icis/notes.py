"""What stands below a table: seeds, selection, splits, published numbers, meanings, gaps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from icis.published import Block
from icis.rows import GroupHeader, Place, Row
from icis.shown import heading

MEANINGS = {
    "T1": "per-class accuracy (%) on images of unseen classes, unseen classes alone to choose from",
    "U": "per-class accuracy (%) on images of unseen classes, all classes to choose from",
    "S": "per-class accuracy (%) on images of seen classes, all classes to choose from",
    "H": "harmonic mean of U and S",
    "entropy": "mean entropy (nats) of the softmax over all classes",
    "epochs": "epochs that the method was trained for",
    "seen_accuracy": "per-class accuracy (%) of the seen head alone on images of seen classes",
    "AUSUC": "area under the curve of S against U for every offset of the seen classes' scores, "
    "percent of the unit square",
    "U_cal": "U after the offset is subtracted from the seen classes' scores; it is chosen on "
    "held-out seen classes, never on images of unseen ones",
    "S_cal": "S after the same subtraction",
    "H_cal": "harmonic mean of U cal. and S cal.",
    "offset": "what is subtracted from the seen classes' scores for U cal., S cal. and H cal.",
    "U_norm": "U after the predicted rows are multiplied by the norm factor; it is chosen on "
    "held-out seen classes, never on images of unseen ones",
    "S_norm": "S after the same multiplication",
    "H_norm": "harmonic mean of U norm and S norm",
    "norm_factor": "what the predicted rows are multiplied by for U norm, S norm and H norm",
    "bias_gap": "S minus U",
    "to_seen": "share (%) of images of unseen classes that are taken for seen ones, mean over "
    "classes",
    "norm_ratio": "mean norm of the predicted rows over that of the seen rows, biases included",
    "train_loss": "loss of the method's last epoch",
    "held_out_loss": "the same loss on held-out seen classes (first seed)",
    "held_out_cosine": "mean cosine between predicted and true weights of held-out seen classes "
    "(first seed)",
    "held_out_w2a": "cross-reconstruction loss from held-out classes' weights to their descriptors "
    "(first seed)",
}
CAUTION = (
    "Selected on test images, as in the paper: not comparable with honest selection. "
    "This concerns {where}."
)
LEAK = "test_seen"
OURS = {
    "last": "last epoch of the seen head",
    "holdout": "seen head selected on held-out training images",
    "test_seen": "seen head selected on test_seen",
    "given": "the head as it was given, nothing selected",
}
"""How our seen heads are selected, in words."""

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
    """Return the notes on how numbers came about; ``splits``: each data set's split versions."""
    notes = [_seeds(seeds)]
    if common := common_parts(groups):
        notes.append(f"All columns: {', '.join(common)}.")
    present = _union(selections.values())
    for text, places in selections.items():
        notes.append(f"Selection, {_where(places, groups, rows, among=present)}: {text}.")
    if splits:
        listed = [f"{', '.join(versions)} ({dataset})" for dataset, versions in splits.items()]
        notes.append(f"Split version: {'; '.join(listed)}.")
    meanings = [f"{heading(metric)}: {MEANINGS[metric]}" for metric in metrics]
    notes.append("; ".join(meanings) + ".")
    if constant := _constant(rows):
        present = {(g, r) for r, row in enumerate(rows) for (g, _), cell in row.cells.items()
                   if cell}  # fmt: skip
        notes.append(f"No randomness: {_where(constant, groups, rows, among=present)}.")
    return notes


def published_notes(
    name: str, block: Block, *, ours: Mapping[str, Sequence[GroupHeader]], found: bool
) -> list[str]:
    """Return the notes on a block of published numbers.

    ``ours`` are the selections of our seen heads with the groups that have them; ``found`` is
    whether any number of the block belongs to the table.
    """
    if not found:
        return [f"Published numbers: the block {name!r} has none for these columns."]
    notes = [f"Published numbers: {block.source}. Certainty: {block.certainty}."]
    words = [OURS.get(each, each) for each in ours]
    if len(ours) > 1:
        words = [
            f"{OURS.get(each, each)} ({', '.join(group.label for group in groups)})"
            for each, groups in ours.items()
        ]
    same = all(re.search(rf"\b{each}\b", block.selection) for each in ours)
    told = "ours too" if same else f"ours: {'; '.join(words)}"
    notes.append(f"Selection, published numbers: {block.selection}; {told}.")
    notes.append(
        "Difference: ours minus published; SE: combined standard errors, "
        "where deviation and number of runs are known on both sides."
    )
    return notes


def gap_notes(
    wanted: int,
    groups: Sequence[GroupHeader],
    rows: Sequence[Row],
    *,
    failures: Mapping[Place, tuple[str, int]],
    left_out: Mapping[Place, str],
) -> Iterator[str]:
    """Yield notes on what failed, what is missing, and cells with fewer seeds than asked for.

    ``failures`` are the reason and how many seeds failed, ``left_out`` the key of the optional
    file whose absence leaves a place without result.
    """
    # a metric that a method or a seed has not is a gap that explains itself
    most: dict[Place, int] = {}
    for r, row in enumerate(rows):
        for (g, _), summary in row.cells.items():
            most[g, r] = max(most.get((g, r), 0), summary.n if summary else 0)
    told: dict[tuple[str, int], set[Place]] = {}
    for place, failure in failures.items():
        told.setdefault(failure, set()).add(place)
    for (problem, count), places in told.items():
        where = _where(places, groups, rows, among=set(most))
        some = f" ({count} of {wanted} seeds)" if count < wanted else ""
        yield f"Failed, {where}{some}: {problem}"
    absent: dict[str, set[Place]] = {}
    for place, key in left_out.items():
        absent.setdefault(key, set()).add(place)
    for key, places in absent.items():
        where = _where(places, groups, rows, among=set(most))
        yield f"Left out, {where}: the optional file of {key} is not there."
    lost = {place: failures[place][1] if place in failures else 0 for place in most}
    empty = {place for place, count in most.items() if count == 0 and not lost[place]}
    empty -= set(left_out)
    short = {place for place, count in most.items() if count + lost[place] < wanted}
    short -= empty | set(left_out)
    for what, places in (("No result", empty), (f"Fewer than {wanted} seeds", short)):
        if places:
            where = _where(places, groups, rows, among=set(most))
            yield f"{what} of this configuration: {where}."


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) == 1:
        return f"1 seed ({seeds[0]}), so no standard deviation."
    listed = ", ".join(map(str, seeds))
    return f"{len(seeds)} seeds ({listed}): mean ± sample standard deviation over seeds."


def common_parts(groups: Sequence[GroupHeader]) -> list[str]:
    """Return the names that all groups share, and that their labels leave out therefore."""
    axes = list(zip(*(group.parts for group in groups), strict=True))
    kinds = ("data set", "backbone", "seen head", "descriptor")
    named = list(zip(kinds, axes[:4], strict=True))[1:]
    common = [f"{kind} {names[0]}" for kind, names in named if len(set(names)) == 1]
    counts = set(axes[4])
    if len(counts) == 1 and counts != {"all"}:
        common.append(f"learning from {counts.pop()} seen classes")
    return common


def _constant(rows: Sequence[Row]) -> set[Place]:
    """Return the places where two or more seeds gave the same values in every metric."""
    cells: dict[Place, list[bool]] = {}
    for r, row in enumerate(rows):
        for (g, _), summary in row.cells.items():
            if summary is not None:
                cells.setdefault((g, r), []).append(summary.constant)
    return {place for place, constant in cells.items() if all(constant)}


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


def _union(sets: Iterable[set[Place]]) -> set[Place]:
    return set[Place]().union(*sets)
