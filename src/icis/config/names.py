"""Types that several parts of the configuration share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
"""A name that is part of paths: letters, digits, dot, underscore, hyphen."""
Count = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]


def _check_seeds(value: Any) -> Any:
    listed = value if isinstance(value, list) else [value]
    whole = all(type(seed) is int and 0 <= seed < 2**63 for seed in listed)
    if not whole or not value or len(set(listed)) != len(listed):
        raise ValueError("should be how many seeds (1 or more), or a list of different ones from 0")
    return value


Seeds = Annotated[list[int] | Count, BeforeValidator(_check_seeds)]
"""A list of seeds, or how many (counted from 0)."""
