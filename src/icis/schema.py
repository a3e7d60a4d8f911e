"""The base of all configuration models: unknown keys are refused with the nearest right one."""

from __future__ import annotations

import difflib
import hashlib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError


class Strict(BaseModel):
    """An immutable model that takes no unknown key and converts no type silently."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _suggest_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            known = list(cls.model_fields)
            messages = [_unknown(str(key), known) for key in data if key not in known]
            if messages:
                raise PydanticCustomError("unknown_key", "{text}", {"text": "; ".join(messages)})
        return data

    def identity(self) -> dict[str, Any]:
        """Return the configuration as plain data, display names left out."""
        data = self.model_dump(mode="json")
        data.pop("name", None)
        return data

    def differences(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults, nested names joined by a dot."""
        found: dict[str, Any] = {}
        for field, info in type(self).model_fields.items():
            value = getattr(self, field)
            if field == "name" or value == info.get_default(call_default_factory=True):
                continue
            if isinstance(value, Strict):
                found |= {f"{field}.{key}": leaf for key, leaf in value.differences().items()}
            else:
                found[field] = value
        return found


def _unknown(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(sorted(known))}"
    return f"unknown key {key!r}; {hint}"


def canonical_hash(data: Any) -> str:
    """Return the SHA-256 of plain data, independent of the order of its keys."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
