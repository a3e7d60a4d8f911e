"""Paths as experiment files write them: with variables of the environment."""

from __future__ import annotations

import os
import re
from pathlib import Path

from icis.errors import IcisError
from icis.fetching.catalogue import source_of

VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def expand(text: str) -> Path:
    """Replace ``${NAME}`` and ``${NAME:-default}`` by the environment's values.

    ``fetched:SOURCE/PATTERN`` is looked up in the folder of a fetched source.
    """
    if source_of(text) is not None:
        from icis.fetching.receipts import locate

        return locate(text)

    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = os.environ.get(name) or default
        if found is None:
            raise IcisError(
                f"{text}: the environment variable {name} is not set; "
                f"set it to the folder that holds the data (export {name}=FOLDER)"
            )
        return found

    return Path(VARIABLE.sub(value, text)).expanduser()


def inside(folder: Path, name: str) -> Path:
    """Return ``folder/name``; refuse a name that leads out of the folder.

    A symbolic link in the folder is its owner's wish and may lead anywhere.
    """
    path = Path(os.path.normpath(name))
    if path.is_absolute() or ".." in path.parts:
        raise IcisError(f"{name!r} leads out of {folder}: name a path inside")
    return folder / path
