"""What several cells of a job read: each file is read once, as long as it does not change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

from icis.artifacts import file_sha256

T = TypeVar("T")


class Shelf:
    """Keeps what was read of a file, by what read it and the file's size and time.

    What stands on it is shared: nobody may change it in place.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], Any] = {}
        self._lock = RLock()  # seeds in threads share it, and a file is read once

    def get(self, read: Callable[[Path], T], path: Path) -> T:
        """Return ``read(path)``, from the first time that this was asked."""
        try:
            stat = path.stat()
        except OSError:
            return read(path)  # which says what is wrong, and in whose words
        key = (read, path, stat.st_size, stat.st_mtime_ns)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = read(path)
            found: T = self._kept[key]
        return found

    def sha256(self, path: Path) -> str:
        """Return the SHA-256 of a file's bytes."""
        return self.get(file_sha256, path)
