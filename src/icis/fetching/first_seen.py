"""Hashes of files that have no published one: recorded at the first fetch, enforced ever after.

The record is one JSON file, meant to be committed: whoever fetches later gets the same bytes or is
told. It also makes a change visible that comes with a new fetch on the same machine.
"""

from __future__ import annotations

from collections.abc import Mapping

from filelock import FileLock
from pydantic import TypeAdapter, ValidationError

from icis import layout
from icis.artifacts import write_json
from icis.errors import IcisError
from icis.fetching.catalogue import Sha256, Size
from icis.fetching.hashing import Digest
from icis.schema import Strict


class Seen(Strict):
    """A file as it was first fetched."""

    sha256: Sha256
    size: Size


RECORD = TypeAdapter(dict[str, Seen])


class FirstSeen:
    """The record, as far as it concerns one source."""

    def __init__(self, source: str, *, accept_changed: bool = False) -> None:
        """Read the record; with ``accept_changed`` nothing is enforced, and all is recorded."""
        self.source = source
        self.accept_changed = accept_changed
        self._seen = {} if accept_changed else read_record()

    def key(self, file: str) -> str:
        """Return a file's name in the record."""
        return f"{self.source}/{file}"

    def of(self, file: str) -> Seen | None:
        """Return what a file has to be like, None where it may be anything."""
        return self._seen.get(self.key(file))

    def problem(self, file: str, found: Digest) -> str:
        """Say what is wrong with a file, nothing if it is as recorded or new."""
        seen = self.of(file)
        if seen is None or seen.sha256 == found.sha256:
            return ""
        return (
            f"sha256 is {found.sha256} ({found.size} bytes), but {layout.first_seen()} recorded "
            f"{seen.sha256} ({seen.size} bytes) when it was first fetched"
        )

    def record(self, found: Mapping[str, Digest]) -> None:
        """Add files that are not in the record yet (or have changed, where that is accepted)."""
        path = layout.first_seen()
        layout.downloads().mkdir(parents=True, exist_ok=True)
        with FileLock(layout.downloads() / ".first-seen.lock"):
            record = read_record()
            added = {
                self.key(file): Seen(sha256=each.sha256, size=each.size)
                for file, each in found.items()
                if self.accept_changed or self.key(file) not in record
            }
            if any(record.get(key) != seen for key, seen in added.items()):
                write_json(path, RECORD.dump_python({**record, **added}, mode="json"))


def read_record() -> dict[str, Seen]:
    """Read the whole record: ``<source>/<file>`` to what was seen first."""
    path = layout.first_seen()
    try:
        return RECORD.validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error.strerror
        raise IcisError(
            f"{path} is damaged ({what}); take it back from git, or delete it to record the files "
            "anew"
        ) from error
