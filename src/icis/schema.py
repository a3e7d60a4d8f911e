"""The base of all configuration models: unknown keys are refused with the nearest right one."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

SCIENTIFIC = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")


class Strict(BaseModel):
    """An immutable model that takes no unknown key and converts no type silently.

    Except that ``1e-5`` is a number: YAML 1.1, which Snakemake's reader speaks, takes it for text.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    @model_validator(mode="wrap")
    @classmethod
    def _suggest_keys(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            problems = error.errors(include_url=False)
        numbers = {each["loc"][0]: float(each["input"]) for each in problems if _is_number(each)}
        if numbers:
            return cls.model_validate({**data, **numbers})
        lines = [cls._with_suggestion(each) for each in problems]
        raise ValidationError.from_exception_data(cls.__name__, lines)

    @classmethod
    def _with_suggestion(cls, problem: ErrorDetails) -> InitErrorDetails:
        kind, message, location = problem["type"], problem["msg"], problem["loc"]
        if kind == "extra_forbidden":
            key, location = str(location[-1]), location[:-1]
            kind = "unknown_key"
            message = f"unknown key {key!r}; {suggest(key, cls.model_fields)}"
        detail = PydanticCustomError(kind, message, problem.get("ctx"))
        return InitErrorDetails(type=detail, loc=location, input=problem["input"])

    def identity(self) -> dict[str, Any]:
        """Return the configuration as plain data, display names left out."""
        data = self.model_dump(mode="json")
        data.pop("name", None)
        return data

    def usual(self, field: str) -> Any:
        """Return the value that a field has where it is not given."""
        return type(self).model_fields[field].get_default(call_default_factory=True)

    def differences(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults, nested names joined by a dot."""
        found: dict[str, Any] = {}
        for field in type(self).model_fields:
            value = getattr(self, field)
            if field == "name" or value == self.usual(field):
                continue
            if isinstance(value, Strict):
                found |= {f"{field}.{key}": leaf for key, leaf in value.differences().items()}
            else:
                found[field] = value
        return found


def _is_number(problem: ErrorDetails) -> bool:
    value = problem["input"]
    expected = problem["type"] == "float_type" and len(problem["loc"]) == 1
    return expected and isinstance(value, str) and SCIENTIFIC.fullmatch(value) is not None


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a question for the nearest known name, or the list of them all."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names) or 'none'}"


def canonical_hash(data: Any) -> str:
    """Return the SHA-256 of plain data, independent of the order of its keys."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
