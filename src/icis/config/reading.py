"""From a YAML file to an experiment, every problem in words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from icis.config.experiment import Experiment
from icis.errors import ConfigError
from icis.methods import METHODS
from icis.schema import suggest


def read_experiment(path: Path) -> Experiment:
    """Read and validate an experiment file (YAML or JSON)."""
    try:
        data = _load(path)
    except OSError as error:
        raise ConfigError(str(path), [f"it cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [f"it is no text in UTF-8: {error}"]) from error
    except (YAMLError, ValueError, RecursionError) as error:
        what = " ".join(str(error).split())
        if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
            what = f"{error.problem} (line {error.problem_mark.line + 1})"
        raise ConfigError(str(path), [f"it is no valid YAML: {what}"]) from error
    return parse_experiment(data, source=str(path))


def _load(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":  # every job reads one; for thousands of methods YAML takes seconds
        try:
            return json.loads(text)
        except ValueError:
            pass  # YAML says where the fault is
    return YAML(typ="safe").load(text)


def parse_experiment(data: Any, *, source: str) -> Experiment:
    """Validate an experiment given as plain data; list every problem with its path."""
    if not isinstance(data, dict):
        raise ConfigError(source, ["it should be a mapping with the keys name, datasets, …"])
    try:
        return Experiment.model_validate(data)
    except ValidationError as error:
        problems = [_in_words(each) for each in error.errors(include_url=False)]
        raise ConfigError(source, problems) from None


TAGS = {
    "datasets": ("kind", ("drawn", "images", "imagenet-val", "xlsa17")),
    "heads": ("kind", ("trained", "given")),
    "methods": ("method", tuple(METHODS)),
}
"""Where an entry's kind decides on its keys: by which key, and the kinds there are."""
DESCRIPTOR_TAG = ("kind", ("file", "words", "text"))

IN_WORDS = {
    "bool_type": "should be true or false",
    "dict_type": "should be a mapping of names to entries",
    "float_type": "should be a number",
    "int_type": "should be a whole number",
    "list_type": "should be a list",
    "model_attributes_type": "should be a mapping of keys to values",
    "model_type": "should be a mapping of keys to values",
    "string_pattern_mismatch": "should consist of letters, digits, '.', '_' and '-' and begin "
    "with a letter or digit (it is part of paths)",
    "string_type": "should be text",
    "too_short": "should have at least one entry",
}


def _in_words(problem: ErrorDetails) -> str:
    """Return a problem with the key's path as the user wrote it."""
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    path = [str(step) for step in problem["loc"]]
    if path and path[0] in TAGS:
        inner = path[3:4] == ["descriptors"] and len(path) > 4
        if kind in ("union_tag_invalid", "union_tag_not_found"):
            key, known = DESCRIPTOR_TAG if inner else TAGS[path[0]]
            where = ".".join([*path[:2], *path[3:], key])
            if kind == "union_tag_not_found":
                return f"{where}: it is missing; there are: {', '.join(known)}"
            tag = context["tag"]
            return f"{where}: there is no {key} {tag!r}; {suggest(tag, known)}"
        if inner:
            del path[5:6]
        del path[2:3]  # an entry's kind stands in no path of the file
    where = ".".join(step for step in path if step != "[key]") or "the experiment"
    if kind in ("missing", "unknown_key"):
        return f"{where}: " + ("it is missing" if kind == "missing" else problem["msg"])
    message = IN_WORDS.get(kind, problem["msg"].removeprefix("Value error, "))
    message = re.sub("^(Input|String) should", "should", message)
    if isinstance(value, dict) and kind not in IN_WORDS:  # it concerns several keys and names them
        return f"{where}: {message}"
    shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:79]}…"
    message += ", and is empty" if value is None else f", not {shown}"
    if kind == "literal_error" and isinstance(value, str):
        hint = suggest(value, re.findall("'(.*?)'", context["expected"]))
        message += f"; {hint}" if "mean" in hint else ""
    return f"{where}: {message}"
