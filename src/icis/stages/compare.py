"""Compare two versions of results: on the terminal, or in a file."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from icis.artifacts import write_text
from icis.errors import IcisError
from icis.versions.reading import read_version
from icis.versions.shown import FORMATS, to_terminal
from icis.versions.versus import versus


def run(old: str, new: str, *, metrics: list[str], output: Path | None) -> None:
    """Print the comparison, or write it to a file whose suffix says the format."""
    if output is not None and output.suffix[1:] not in FORMATS:
        raise IcisError(f"--output {output}: name a file ending in .{', .'.join(FORMATS)}")
    found = versus(read_version(old), read_version(new), metrics)
    if output is None:
        Console().print(to_terminal(found), crop=False)  # numbers that do not fit are not lost
    else:
        write_text(output, FORMATS[output.suffix[1:]](found))
