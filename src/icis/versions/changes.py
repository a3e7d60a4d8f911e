"""What differs between two nested settings, or between two lists of hashes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

LONGEST = 60
DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Change:
    """One thing that differs; None where a version does not have it."""

    name: str
    old: str | None
    new: str | None

    @property
    def text(self) -> str:
        """Return ``name: old → new``, ``name: new`` or ``name: gone``."""
        if self.old is None:
            return f"{self.name}: new, {self.new}" if self.new else f"{self.name}: new"
        if self.new is None:
            return f"{self.name}: gone"
        return f"{self.name}: {self.old} → {self.new}"


def setting_changes(old: Any, new: Any, name: str = "") -> Iterator[Change]:
    """Yield the settings that differ, nested names joined by dots, in the order of the new ones."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in [*new, *(key for key in old if key not in new)]:
            inner = f"{name}.{key}" if name else str(key)
            if key not in old:
                yield Change(inner, None, _short(new[key]))
            elif key not in new:
                yield Change(inner, _short(old[key]), None)
            else:
                yield from setting_changes(old[key], new[key], inner)
    elif old != new:
        yield Change(name, _short(old), _short(new))


def _short(value: Any) -> str:
    """Return a value on one line, a long one cut."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split()) or '""'
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def file_changes(old: Mapping[str, str], new: Mapping[str, str]) -> list[Change]:
    """Return the files with other hashes, by name; hashes are cut to eight digits."""
    return [
        Change(name, _digest(old.get(name)), _digest(new.get(name)))
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _digest(value: str | None) -> str | None:
    return value if value is None or not DIGEST.fullmatch(value) else value[:8]


def value_changes(old: Mapping[str, set[str]], new: Mapping[str, set[str]]) -> list[Change]:
    """Return the names whose sets of values differ, such as the versions of libraries."""
    return [
        Change(name, _listed(old.get(name)), _listed(new.get(name)))
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _listed(values: set[str] | None) -> str | None:
    return None if values is None else ", ".join(sorted(values)) or "unknown"
