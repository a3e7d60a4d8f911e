"""One run at a time in a folder; the lock ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TextIO

from icis.errors import IcisError, explaining_disk, read_only

LOCK = Path(".snakemake/icis/run.lock")
_held: list[TextIO] = []


def require_writable(*folders: str) -> None:
    """Refuse folders that cannot be written to; those that are yet to be made lie in this one."""
    for folder in folders:
        if not os.access(folder if Path(folder).exists() else ".", os.W_OK):
            raise read_only(folder)


def hold() -> None:
    """Take the folder's lock until this process ends; refuse if another run has it.

    Raises IcisError then, and where a folder that a run writes to is read-only.
    """
    if _held:
        return
    require_writable("data", "results", "logs")
    with explaining_disk(LOCK):
        LOCK.parent.mkdir(parents=True, exist_ok=True)
        file = LOCK.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise IcisError(
            f"another run is at work in this folder (process {holder}); wait for it to end, then "
            "run this command again"
        ) from None
    with explaining_disk(LOCK):
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
    _held.append(file)
