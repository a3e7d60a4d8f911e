"""Class names as a reader would write them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from icis.datasets.paths import expand
from icis.errors import IcisError
from icis.schema import suggest

NUMBER = re.compile(r"^\d+\.")
WNID = re.compile(r"n\d{8}")


def clean_name(class_name: str) -> str:
    """Return ``002.Laysan_Albatross`` as laysan albatross, ``grizzly+bear`` as grizzly bear.

    A wnid that timm knows becomes the first synonym of ImageNet's description. The rules are those
    of the paper's code: no number before a full stop, no full stops, lower case.
    """
    name = class_name
    if WNID.fullmatch(class_name):
        name = _first_synonym(class_name)
    name = NUMBER.sub("", name).replace("_", " ").replace("+", " ").replace(".", "")
    return " ".join(name.lower().split())


def article(name: str) -> str:
    """Return "an" before a, e, i, o, else "a" (so "a umbrella", as in the paper's code)."""
    return "an" if name[:1].lower() in {"a", "e", "i", "o"} else "a"


def class_texts(classes: Sequence[str], file: str | None = None) -> dict[str, str]:
    """Return the name of every class, in their order: from a file (class, tab, name) or made."""
    if file is None:
        found = {each: clean_name(each) for each in classes}
        empty = [each for each, name in found.items() if not name]
        if empty:
            raise IcisError(
                f"nothing is left of the class name {empty[0]!r} without numbers and signs; "
                "give the classes names with 'names: FILE' (class, tab, name)"
            )
        return found
    given: dict[str, str] = {}
    for where, each, name in pairs(file, "name"):
        if each in given:
            raise IcisError(f"{where}: the class {each!r} has a name already")
        given[each] = name
    require_classes(file, given, classes, "name")
    return {each: given[each] for each in classes}


def pairs(file: str, what: str) -> Iterator[tuple[str, str, str]]:
    """Yield place, class and text of each line ``class, tab, text``; empty lines are skipped."""
    path = expand(file)
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except OSError as error:
        raise IcisError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise IcisError(f"{path} is no text in UTF-8: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, _, text = line.partition("\t")
        if not (name.strip() and text.strip()):
            raise IcisError(f"{path}, line {number}: expected class, tab, {what}, not {line!r}")
        yield f"{path}, line {number}", name.strip(), " ".join(text.split())


def require_classes(file: str, given: dict[str, Any], classes: Sequence[str], what: str) -> None:
    """Refuse a file that leaves classes out or names others."""
    path, known = expand(file), set(classes)
    for name in given:
        if name not in known:
            raise IcisError(f"{path}: there is no class {name!r}; {suggest(name, classes)}")
    missing = [name for name in classes if name not in given]
    if missing:
        raise IcisError(
            f"{path}: {len(missing)} of {len(classes)} classes have no {what}: {', '.join(missing)}"
        )


def imagenet_wnids() -> tuple[str, ...]:
    """Return ImageNet's 1000 wnids in the order of its classifiers' rows, which is sorted."""
    return tuple(_imagenet().label_names())


@cache
def _imagenet() -> Any:
    from icis.compat import timm  # takes seconds, and most data sets have no wnids

    return timm.data.ImageNetInfo()


def _first_synonym(wnid: str) -> str:
    try:  # timm knows all 21,844 synsets here, not only the 1000
        return str(_imagenet().label_name_to_description(wnid)).split(",")[0]
    except KeyError:
        return wnid
