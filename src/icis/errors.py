"""Errors that a user can mend: printed as one message, without a traceback."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FAILED = "failed"
"""The metric of a (cell, seed) that failed; it has no other."""
AGAIN = "then run the same command again: what is done is kept"


class IcisError(Exception):
    """A problem that the user can mend; its text says the value, what was expected, the fix."""


def reason_of(error: Exception) -> str:
    """Return an error's text, with its type where it is none that was meant for the user."""
    return str(error) if isinstance(error, IcisError) else f"{type(error).__name__}: {error}"


class DiskError(IcisError):
    """A disk that is full or cannot be written to: no fault of the method at work."""


def read_only(where: object) -> DiskError:
    """Return the error of a place that cannot be written to."""
    return DiskError(f"{where}: the disk or folder is read-only; make it writable, {AGAIN}")


def disk_error(error: Exception, place: Path | None = None) -> DiskError | None:
    """Return an error in words if it is that of a disk that is full or read-only."""
    number = error.errno if isinstance(error, OSError) else None
    where = getattr(error, "filename", None) or place or "a file could not be written"
    said = str(error)  # safetensors gives the system's number in its text alone
    if number in (errno.ENOSPC, errno.EDQUOT) or f"(os error {errno.ENOSPC})" in said:
        return DiskError(f"{where}: no space is left on the disk; make room, {AGAIN}")
    if number == errno.EROFS or f"(os error {errno.EROFS})" in said:
        return read_only(where)
    return None


@contextmanager
def explaining_disk(place: Path) -> Iterator[None]:
    """Raise a DiskError in place of the system's where ``place`` is full or read-only."""
    try:
        yield
    except Exception as error:
        told = disk_error(error, place)
        if told is None:
            raise
        raise told from error


class ConfigError(IcisError):
    """An experiment file that cannot be run; lists every problem found."""

    def __init__(self, source: str, problems: list[str]) -> None:
        self.problems = problems
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"{source} cannot be run:\n{lines}")
