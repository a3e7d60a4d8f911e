"""Two versions of results against each other: what changed, and cell by cell the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from icis.comparison import Comparison, common_values, paired_test
from icis.errors import FAILED, IcisError
from icis.notes import MEANINGS
from icis.results import headers
from icis.rows import ACCURACIES, GroupHeader, Summary
from icis.versions.changes import Change, file_changes, setting_changes, value_changes

Status = Literal["same", "changed", "new", "gone"]
Place = dict[str, str]
AXES = ("dataset", "backbone", "head", "descriptor", "n_seen")
MADE_HERE = "results/"
"""Files under this are themselves results: they differ wherever anything does."""


@dataclass(frozen=True)
class Version:
    """Results as they were collected once, with what is recorded beside them."""

    label: str
    metrics: pl.DataFrame
    about: Mapping[str, Any]
    """The metadata of ``metrics.parquet``."""

    def cell(self, place: Place) -> Mapping[str, Any]:
        """Return what is recorded of the cell at a place."""
        found: Mapping[str, Any] = self.about["cells"][place["cell"]]
        return found


@dataclass(frozen=True)
class PairedRow:
    """A cell in both versions, or in one of them; numbers are by metric."""

    group: int
    display: str
    status: Status
    changes: tuple[Change, ...]
    """Settings of the cell that differ, and ``input files`` where only these do."""
    old: Mapping[str, Summary]
    new: Mapping[str, Summary]
    tests: Mapping[str, Comparison]
    """New minus old over the seeds that both have."""
    failed: tuple[bool, bool] = (False, False)


@dataclass(frozen=True)
class Versus:
    """A comparison of two versions, ready to be shown."""

    old: str
    new: str
    sections: tuple[tuple[str, tuple[str, ...]], ...]
    """A heading with its lines: settings, data, code, libraries."""
    groups: tuple[GroupHeader, ...]
    metrics: tuple[str, ...]
    rows: tuple[PairedRow, ...]

    def count(self, status: Status) -> int:
        """Return how many rows have a status."""
        return sum(row.status == status for row in self.rows)


def versus(old: Version, new: Version, metrics: Sequence[str] = ()) -> Versus:
    """Compare two versions; ``metrics`` by default the accuracies that their tables show.

    Raises IcisError where they have no cell in common.
    """
    pairs = list(_pairs(old.about["places"], new.about["places"]))
    if not any(left and right for left, right in pairs):
        raise IcisError(_nothing_in_common(old, new))
    wanted = _metrics(old, new, metrics)
    left, right = _summaries(old.metrics), _summaries(new.metrics)
    keys = list(dict.fromkeys(_group(place or other) for other, place in pairs))
    groups = headers(keys)
    rows = []
    for before, after in pairs:
        place = after or before
        assert place is not None
        label, display = groups[keys.index(_group(place))].label, place["display"]
        old_of = left.get(before["cell"], {}) if before else {}
        new_of = right.get(after["cell"], {}) if after else {}
        changes = _changes_of_cell(old.cell(before), new.cell(after)) if before and after else ()
        row = PairedRow(
            group=keys.index(_group(place)),
            display=display,
            status=_status(before, after, changes),
            changes=changes,
            old={metric: old_of[metric] for metric in wanted if metric in old_of},
            new={metric: new_of[metric] for metric in wanted if metric in new_of},
            tests=dict(_tests((label, display), old.label, old_of, new_of, wanted)),
            failed=(_failed(old_of), _failed(new_of)),
        )
        rows.append(row)
    rows.sort(key=lambda row: row.group)
    sections = tuple(_sections(old.about, new.about))
    return Versus(old.label, new.label, sections, groups, tuple(wanted), tuple(rows))


# which cell belongs to which


def _pairs(
    old: Sequence[Place], new: Sequence[Place]
) -> Iterator[tuple[Place | None, Place | None]]:
    """Yield the cells of both versions in the new order, then those that are gone.

    A cell is found again by its place and the method's key, else by its place and displayed name,
    else by its configuration.
    """
    free = dict(enumerate(old))
    partner: dict[int, Place] = {}
    for kind in (_by_key, _by_display, _by_configuration):
        known: dict[Any, list[int]] = {}
        for number, place in free.items():
            known.setdefault(kind(place), []).append(number)
        for number, place in enumerate(new):
            if number not in partner and known.get(kind(place)):
                partner[number] = free.pop(known[kind(place)].pop(0))
    for number, place in enumerate(new):
        yield partner.get(number), place
    for place in free.values():
        yield place, None


def _group(place: Place | None) -> tuple[str, str, str, str, str]:
    assert place is not None
    return (
        place["dataset"], place["backbone"], place["head"], place["descriptor"], place["n_seen"]
    )  # fmt: skip


def _by_key(place: Place) -> Any:
    return (*_group(place), place["method"])


def _by_display(place: Place) -> Any:
    return (*_group(place), place["display"])


def _by_configuration(place: Place) -> Any:
    return place["cell"]


def _nothing_in_common(old: Version, new: Version) -> str:
    lines = [f"{old.label} and {new.label} have no cell in common, so nothing can be compared:"]
    for version in (old, new):
        for axis in (*AXES, "method"):
            names = dict.fromkeys(place[axis] for place in version.about["places"])
            lines.append(f"  {version.label}: {axis} {', '.join(names) or 'none'}")
    lines.append(
        "Cells are matched by these names: use the same keys in both experiment files, or compare "
        "two versions of one experiment (icis compare REV results/NAME)"
    )
    return "\n".join(lines)


# the numbers


def _metrics(old: Version, new: Version, wanted: Sequence[str]) -> list[str]:
    unknown = [metric for metric in wanted if metric not in MEANINGS]
    if unknown:
        raise IcisError(f"--metrics {', '.join(unknown)}: choose among {', '.join(MEANINGS)}")
    if wanted:
        return list(wanted)
    tables = [
        table for each in (new, old) for table in each.about["settings"]["tables"].values()
    ]  # fmt: skip
    shown = {metric for table in tables for metric in table["metrics"]}
    return [metric for metric in ACCURACIES if metric in shown] or list(ACCURACIES)


def _summaries(metrics: pl.DataFrame) -> dict[str, dict[str, Summary]]:
    """Return the summaries by cell and metric; two paths may share a cell, and its values."""
    rows = metrics.unique(["cell", "seed", "metric"], keep="first").sort("seed")
    value = pl.col("value")
    grouped = rows.group_by("cell", "metric").agg(
        value, "seed", mean=value.mean(), std=value.std(ddof=1)
    )
    found: dict[str, dict[str, Summary]] = {}
    for row in grouped.iter_rows(named=True):
        summary = Summary(row["mean"], row["std"], tuple(row["value"]), tuple(row["seed"]))
        if summary.constant:  # rounding would leave a tiny deviation
            summary = Summary(summary.values[0], 0.0, summary.values, summary.seeds)
        found.setdefault(row["cell"], {})[row["metric"]] = summary
    return found


def _tests(
    names: tuple[str, str],
    reference: str,
    old: Mapping[str, Summary],
    new: Mapping[str, Summary],
    metrics: Sequence[str],
) -> Iterator[tuple[str, Comparison]]:
    for metric in metrics:
        if metric in old and metric in new:
            values = common_values(new[metric], old[metric])
            yield metric, paired_test((names[0], metric, names[1], reference), *values)


def _failed(found: Mapping[str, Summary]) -> bool:
    return set(found) == {FAILED}


# what changed


def _status(old: Place | None, new: Place | None, changes: Sequence[Change]) -> Status:
    if old is None:
        return "new"
    if new is None:
        return "gone"
    return "changed" if changes else "same"


def _changes_of_cell(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Change, ...]:
    found = [
        Change(each.name, each.old, each.new)
        for each in setting_changes(_named(old["configuration"]), _named(new["configuration"]))
    ]
    if not found and file_changes(_given(old["sources"]), _given(new["sources"])):
        found = [Change("input files", "as they were", "others")]
    return tuple(found)


def _named(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cell's configuration without the keys that stand beside its parts."""
    return {
        part: value[1] if isinstance(value, list) and len(value) == 2 else value
        for part, value in configuration.items()
    }


def _given(sources: Mapping[str, str]) -> dict[str, str]:
    return {name: each for name, each in sources.items() if not name.startswith(MADE_HERE)}


def _sections(
    old: Mapping[str, Any], new: Mapping[str, Any]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    settings = list(setting_changes(old["settings"], new["settings"]))
    yield "Settings", tuple(each.text for each in settings)
    data = file_changes(_given(old["sources"]), _given(new["sources"]))
    yield "Data (SHA-256)", tuple(each.text for each in data)
    code = file_changes(old["code"], new["code"])
    commits = value_changes({"commit": _commits(old)}, {"commit": _commits(new)})
    modules = [f"{each.name}: {_happened(each)}" for each in code]
    if commits and not code:
        modules = ["no module that the numbers come from differs"]
    yield "Code", (*(each.text for each in commits), *modules)
    libraries = value_changes(_versions(old), _versions(new))
    yield "Libraries and device", tuple(each.text for each in libraries)


def _happened(change: Change) -> str:
    if change.old is None:
        return "new"
    return "gone" if change.new is None else "changed"


def _of(about: Mapping[str, Any], key: str) -> set[str]:
    return {str(cell[key]) for cell in about["cells"].values()}


def _commits(about: Mapping[str, Any]) -> set[str]:
    """Return the commits that cells were evaluated at, cut to eight digits."""
    return {
        f"{commit[:8]} with uncommitted changes" if commit.endswith("-dirty") else commit[:8]
        for commit in _of(about, "git_commit")
    }


def _versions(about: Mapping[str, Any]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {"device": _of(about, "device")}
    for cell in about["cells"].values():
        for library, version in cell["versions"].items():
            found.setdefault(library, set()).add(version)
    return found
