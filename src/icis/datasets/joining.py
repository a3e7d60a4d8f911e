"""Find the images that a list names, by their names: the list was written on another machine."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from icis.errors import IcisError

SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def image_names(names: Sequence[str]) -> list[str]:
    """Return the names of images among files; what macOS and editors hide is none."""
    return [
        name
        for name in names
        if name.lower().endswith(SUFFIXES) and not name.rsplit("/", 1)[-1].startswith(".")
    ]


def path_parts(name: str) -> tuple[str, ...]:
    """Return a path's components, whichever slashes it has and however many."""
    return tuple(part for part in re.split(r"[\\/]+", name) if part not in ("", "."))


def join_images(
    listed: Sequence[str], present: Sequence[str], *, source: str, root: Path
) -> list[str]:
    """Return for every listed image its file among ``present``.

    A file must have the same name; letter case does not count where that leaves no doubt. Of
    several, the one decides that has the most folders in common, counted from the end: the
    beginning of a listed path is another machine's.
    """
    by_name = defaultdict(list)
    for name in present:
        parts = path_parts(name)
        by_name[parts[-1].casefold()].append((parts, name))
    found: dict[tuple[str, ...], str] = {}
    absent: dict[tuple[str, ...], str] = {}
    keys = []
    for name in listed:
        key = path_parts(name)
        keys.append(key)
        if key not in found and key not in absent:
            candidates = by_name.get(key[-1].casefold(), []) if key else []
            if candidates:
                found[key] = _nearest(name, key, candidates, source, root)
            else:
                absent[key] = name
    if absent:
        raise IcisError(
            f"{source}: {len(absent)} of the {len({*keys})} images that it lists are not in "
            f"{root}, the first is {next(iter(absent.values()))!r}; put all of them there"
        )
    _refuse_shared(found, source, root)
    return [found[key] for key in keys]


def _nearest(
    name: str,
    wanted: tuple[str, ...],
    candidates: list[tuple[tuple[str, ...], str]],
    source: str,
    root: Path,
) -> str:
    if len(candidates) == 1:
        return candidates[0][1]
    lengths = [_common(wanted, parts) for parts, _ in candidates]
    longest = max(lengths)
    best = [each for each, length in zip(candidates, lengths, strict=True) if length == longest]
    whole = [each for each in best if len(each[0]) == len(wanted) == longest]
    # letter case decides only where nothing else does
    exact = [each for each in best if each[0][-longest:] == wanted[-longest:]]
    expected = _any_extension(wanted[-longest:])
    near = [each for each in best if _any_extension(each[0][-longest:]) == expected]
    for group in (best, whole, exact, near):
        if len(group) == 1:
            return group[0][1]
    files = ", ".join(sorted(path for _, path in best))
    raise IcisError(
        f"{source}: the image {name!r} may be any of these files in {root}: {files}; "
        "leave only the one that is meant"
    )


def _common(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    count = 0
    for left, right in zip(reversed(one), reversed(other), strict=False):
        if left.casefold() != right.casefold():
            break
        count += 1
    return count


def _any_extension(parts: tuple[str, ...]) -> tuple[str, ...]:
    stem, dot, extension = parts[-1].rpartition(".")
    return (*parts[:-1], stem + dot + extension.casefold())


def _refuse_shared(found: dict[tuple[str, ...], str], source: str, root: Path) -> None:
    """Refuse one file for two listed images: the second one is absent."""
    owner: dict[str, tuple[str, ...]] = {}
    for key, file in found.items():
        if owner.setdefault(file, key) != key:
            raise IcisError(
                f"{source} lists {'/'.join(owner[file])!r} and {'/'.join(key)!r}, but {root} has "
                f"only {file} for both; put both there"
            )
