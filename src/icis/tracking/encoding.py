"""How records are put into MLflow's tags and params, which are short texts."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from icis.mlflow_store import encode

T = TypeVar("T")

KEY, DIGEST, KIND = "icis.key", "icis.digest", "icis.kind"
COMPLETE, SUPERSEDED, PARENT = "icis.complete", "icis.superseded", "mlflow.parentRunId"
WRITER, HEAD = "icis.writer", "icis.head"
INVOCATION = "invocation"
CURVE = "history/"
LONGEST_PARAM = 500
LONGEST_TAG = 4000  # MLflow cuts longer ones without a word, at 8000 or (older servers) 5000


def parts(entries: list[T], size: int) -> list[list[T]]:
    """Cut a list into lists of a size."""
    return [entries[start : start + size] for start in range(0, len(entries), size)]


def fact_tag(column: str) -> str:
    """Return the tag that a column of the metrics table is kept under."""
    return f"icis.{column}" if column in ("cell", "seed") else column


def long_tag(name: str, data: Any) -> dict[str, str]:
    """Return JSON as a tag; where it is long, in pieces: ``name``, ``name.1``, ``name.2``."""
    text = json.dumps(data, sort_keys=True)
    pieces = parts(list(text), LONGEST_TAG)
    return {f"{name}.{at}" if at else name: "".join(piece) for at, piece in enumerate(pieces)}


def read_long_tag(tags: dict[str, str], name: str) -> Any:
    """Return what ``long_tag`` was given, an empty dictionary where it was not called."""
    pieces, at = [tags.get(name, "{}")], 1
    while f"{name}.{at}" in tags:
        pieces.append(tags[f"{name}.{at}"])
        at += 1
    return json.loads("".join(pieces))


def flatten(data: Any, prefix: str = "") -> dict[str, str]:
    """Return nested settings as params; a pair of name and settings stays under one key."""
    if isinstance(data, list) and [type(each) for each in data] == [str, dict]:
        return {prefix: data[0], **flatten(data[1], prefix)}
    if isinstance(data, dict) and data:
        found: dict[str, str] = {}
        for key, value in data.items():
            found |= flatten(value, ".".join(filter(None, (prefix, encode(key)))))
        return found
    text = data if isinstance(data, str) else json.dumps(data, sort_keys=True)
    return {prefix: text if len(text) <= LONGEST_PARAM else f"{text[: LONGEST_PARAM - 1]}…"}
