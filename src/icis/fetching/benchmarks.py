"""What an experiment takes from the catalogue: a data set's settings, and whether it can be had."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from icis.fetching.catalogue import Catalogue, read_catalogue
from icis.schema import suggest

SETTINGS = ("splits", "labels", "images", "boxes", "counts")


@cache
def _catalogue(_own: str | None) -> Catalogue:
    return read_catalogue()


def catalogue() -> Catalogue:
    """Return the catalogue, read once a process and file of ICIS_CATALOGUE."""
    return _catalogue(os.environ.get("ICIS_CATALOGUE"))


def benchmark_settings(name: str) -> dict[str, Any]:
    """Return the settings of a data set that the catalogue names; ValueError for another."""
    known = catalogue().benchmarks
    if name not in known:
        raise ValueError(f"there is no benchmark {name!r}; {suggest(name, known)}")
    found = known[name].model_dump()
    return {key: found[key] for key in SETTINGS if found[key] is not None}


def unavailable(source: str) -> str | None:
    """Say why a source cannot be fetched, if that is known before trying."""
    known = catalogue().sources
    if source not in known:
        return f"there is no source {source!r}; {suggest(source, known)} (icis data list)"
    lost = [file.name for file in known[source].files if not file.urls]
    if lost and not os.environ.get("ICIS_MIRROR"):
        return (
            f"{lost[0]} of the source {source!r} has no official address; set ICIS_MIRROR to a "
            "folder or URL that holds it (docs/data.md)"
        )
    return None
