"""Hold the folders that images lie in against their classes: labels are easily off by a row."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from icis.errors import IcisError


def plain(name: str) -> str:
    """Return a name's letters and digits in lower case: what every spelling of it shares."""
    return "".join(each for each in name.casefold() if each.isalnum())


class ClassFolders:
    """Tells which class a folder names, if any.

    ``a/athletic_field/outdoor`` names athletic_field_outdoor: the last folders joined.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._spelled: dict[str, set[str]] = defaultdict(set)
        for name in names:
            self._spelled[plain(name)].add(name)
        self._known: dict[str, set[str]] = {}

    def classes(self, folder: str) -> set[str]:
        """Return the classes that the folder may name; none where it names none of the list."""
        if folder not in self._known:
            parts = folder.split("/")
            ends = ("".join(parts[start:]) for start in range(len(parts)))
            found: set[str] = set()
            for end in ends:
                found |= self._spelled.get(plain(end), set()) if plain(end) else set()
            self._known[folder] = found
        return self._known[folder]


def check_labels(
    files: Sequence[str], labels: Sequence[str], folders: ClassFolders, *, source: str
) -> None:
    """Refuse an image whose folder names another class than its label."""
    for file, label in zip(files, labels, strict=True):
        named = folders.classes(folder_of(file))
        if named and label not in named:
            other = max(named, key=len)
            raise IcisError(
                f"{source}: image {file!r} has the label {label!r}, but lies in the folder "
                f"{folder_of(file)!r} of the class {other!r}; labels, class list and images are "
                "not of one data set"
            )


def check_folders(
    present: Iterable[str], used: Iterable[str], folders: ClassFolders, *, source: str, root: Path
) -> None:
    """Refuse a class folder of which no image is in the splits, where folders are classes."""
    known = {folder_of(file) for file in used}
    if not any(folders.classes(folder) for folder in known):
        return  # all flowers lie in one folder: its neighbours are no classes either
    for file in present:
        folder = folder_of(file)
        if folder and folder not in known and not folders.classes(folder):
            raise IcisError(
                f"{root}: {folder} is a class folder with no split: no class of {source} has its "
                "name and none of its images is in trainval, test_seen or test_unseen; "
                "take it away or use splits that know it"
            )


def folder_of(file: str) -> str:
    """Return the folder of a file inside its source; empty for the source's own."""
    return file.rpartition("/")[0]
