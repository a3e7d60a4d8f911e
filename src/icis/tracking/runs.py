"""The run of one (cell, seed): written, brought up to date, found again."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterable
from itertools import zip_longest

from mlflow.entities import Dataset, DatasetInput, InputTag

from icis.mlflow_store import (
    Metric,
    MlflowClient,
    Param,
    Run,
    delete_run,
    delete_tag,
    encode,
    set_tags,
)
from icis.schema import canonical_hash
from icis.tracking.encoding import (
    COMPLETE,
    CURVE,
    DIGEST,
    HEAD,
    KEY,
    PARENT,
    SUPERSEDED,
    WRITER,
    fact_tag,
    flatten,
    long_tag,
    parts,
)
from icis.tracking.records import Record, Source

METRICS_A_CALL, PARAMS_A_CALL = 900, 100  # MLflow takes 1000 entities a call, 100 of them params
LONGEST_NAME = 250
ABANDONED = 3600
"""Seconds after which an unfinished run of another writer counts as left behind by a kill."""


def writer() -> str:
    """Return who logs: this folder on this machine, in which one process at a time does.

    So what is unfinished and bears this name was left behind by a kill, whereas another's may
    still be at work.
    """
    return canonical_hash([socket.gethostname(), os.getcwd()])[:16]  # noqa: PTH109 (as text)


def now() -> int:
    """Return the time in milliseconds, as MLflow counts it."""
    return int(time.time() * 1000)


def is_left_behind(run: Run) -> bool:
    """Say whether an unfinished run will never be finished."""
    mine = run.data.tags.get(WRITER, "") in ("", writer())
    return mine or now() - run.info.start_time > 1000 * ABANDONED


def clear(client: MlflowClient, runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Delete the unfinished runs of (cell, seed)s that a kill left; return the others by key."""
    known: dict[str, list[Run]] = {}
    for run in runs:
        if KEY not in run.data.tags:
            continue
        if COMPLETE in run.data.tags:
            known.setdefault(run.data.tags[KEY], []).append(run)
        elif is_left_behind(run):
            delete_run(client, run.info.run_id)
    return known


def same_run(runs: list[Run], digest: str) -> Run | None:
    """Return the run that says the same; of several the first, that counts or was superseded.

    All writers choose alike, so that of two runs logged at once one stays.
    """

    def rank(run: Run) -> tuple[bool, int, str]:
        return SUPERSEDED in run.data.tags, run.info.start_time, run.info.run_id

    return min((run for run in runs if run.data.tags[DIGEST] == digest), key=rank, default=None)


def supersede(client: MlflowClient, run: Run) -> bool:
    """Mark a run as replaced; return whether it was not yet."""
    if SUPERSEDED in run.data.tags:
        return False
    set_tags(client, run.info.run_id, {SUPERSEDED: "true"})
    return True


def log_run(client: MlflowClient, experiment: str, parent: str, record: Record) -> None:
    """Log everything of a (cell, seed); last the tag that makes it count."""
    began = now()
    tags = {
        KEY: record.key,
        DIGEST: record.digest,
        PARENT: parent,
        WRITER: writer(),
        **{fact_tag(column): value for column, value in record.facts.items()},
        **long_tag("configuration", record.configuration),
        **(long_tag("problem", record.problems) if record.problems else {}),
        **record.provenance,
    }
    run = client.create_run(experiment, began, tags, record.name[:LONGEST_NAME]).info.run_id
    metrics = [Metric(encode(name), value, began, 0) for name, value in record.metrics.items()]
    names = {term: CURVE + encode(term) for term in record.history["term"].unique()}
    curves = record.history.select("term", "value", "epoch").iter_rows()
    metrics += [Metric(names[term], value, began, epoch) for term, value, epoch in curves]
    params = [Param(key, value) for key, value in flatten(record.configuration).items()]
    log_many(client, run, metrics, params)
    _log_sources(client, run, record.sources)
    head = _log_head(client, run, record)
    client.set_terminated(run)
    set_tags(client, run, {**head, COMPLETE: "true"})


def log_many(client: MlflowClient, run: str, metrics: list[Metric], params: list[Param]) -> None:
    """Log metrics and params in as few calls as MLflow allows."""
    pieces = zip_longest(parts(metrics, METRICS_A_CALL), parts(params, PARAMS_A_CALL))
    for some_metrics, some_params in pieces:
        client.log_batch(run, some_metrics or (), some_params or (), synchronous=True)


def _log_sources(client: MlflowClient, run: str, sources: Iterable[Source]) -> None:
    inputs = [
        DatasetInput(
            Dataset(source.name, source.digest, "local", json.dumps({"uri": source.path})),
            [InputTag("mlflow.data.context", source.context)],
        )
        for source in sources
    ]
    if inputs:
        client.log_inputs(run, inputs)


def _log_head(client: MlflowClient, run: str, record: Record) -> dict[str, str]:
    """Log the injected head, if it is to be; return the tag that says so."""
    if record.head is None:
        return {}
    client.log_artifact(run, str(record.head), "head")
    return {HEAD: record.provenance["injected_head"]}


def renew(client: MlflowClient, run: Run, record: Record) -> None:
    """Bring a run's provenance up to date, and the run back where it was superseded."""
    known, run_id = run.data.tags, run.info.run_id
    tags = record.provenance
    stale = {key: value for key, value in tags.items() if known.get(key) != value}
    if stale:
        set_tags(client, run_id, stale)
    there = {(each.dataset.name, each.dataset.digest) for each in run.inputs.dataset_inputs}
    _log_sources(client, run_id, [s for s in record.sources if (s.name, s.digest) not in there])
    if known.get(HEAD) != tags["injected_head"] and (head := _log_head(client, run_id, record)):
        set_tags(client, run_id, head)
    left = [key for key in known if key.startswith(("sources.", "versions.")) and key not in tags]
    for key in [*left, *({SUPERSEDED} & known.keys())]:
        delete_tag(client, run_id, key)
