"""The receipt of what was logged, and how a failed attempt makes the rule ``track`` try again.

Without MLflow, which takes seconds to load: the Snakefile reads here too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from icis import layout
from icis.artifacts import write_json, write_text


def pending(receipt: Path) -> str | None:
    """Return why a receipt is pending; None where it is not, or not there."""
    try:
        found: dict[str, Any] = json.loads(receipt.read_text())
    except (OSError, ValueError):
        return None
    return str(found["reason"]) if found.get("status") == "pending" else None


def write_pending(experiment: str, reason: str, uri: str) -> None:
    """Write a receipt that says what the records wait for; called by the rule alone.

    The receipt is the rule's output, so the rule is done, and Snakemake records the rule's state,
    of which the number of failures is a part. This number grows here, so the next invocation finds
    another state and runs the rule again. (An old file time would not do: Snakemake compares the
    checksums of small inputs, and finds them as they were.)
    """
    _count(experiment, 1)  # first: a kill in between leaves no receipt, and the rule runs again
    said = {"status": "pending", "reason": reason, "tracking_uri": uri}
    write_json(layout.tracked(experiment), said)


def write_logged(experiment: str, receipt: dict[str, Any]) -> None:
    """Write the receipt of a success.

    Over a pending one the number of failures goes back to what Snakemake recorded, so that the
    rule has nothing to do. (The rule itself never sees one: Snakemake deletes it beforehand.)
    """
    was_pending = pending(layout.tracked(experiment)) is not None
    write_json(layout.tracked(experiment), {"status": "logged", **receipt})
    if was_pending:
        _count(experiment, -1)


def failures(experiment: str) -> int:
    """Return how many runs of the rule left their receipt pending."""
    path = layout.track_failures(experiment)
    return int(path.read_text()) if path.exists() else 0


def _count(experiment: str, change: int) -> None:
    path, count = layout.track_failures(experiment), failures(experiment) + change
    if count > 0:
        write_text(path, str(count))
    else:
        path.unlink(missing_ok=True)


def waiting(experiment: str, reason: str) -> str:
    """Return what to tell of records that could not be logged."""
    return (
        f"{reason}\nNothing is lost: the records of {experiment!r} wait on disk, everything else "
        "is done as usual. The next run of the pipeline logs them, or at once: icis track sync"
    )
