"""Bringing the store to what the files of an experiment say, under a run of this invocation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from icis.artifacts import file_sha256, git_commit, library_versions
from icis.mlflow_store import (
    MlflowClient,
    Param,
    Run,
    delete_run,
    list_runs,
    open_experiment,
    open_store,
    public_uri,
    tracking_uri,
)
from icis.plan import Plan
from icis.schema import canonical_hash
from icis.tracking.encoding import (
    COMPLETE,
    DIGEST,
    INVOCATION,
    KIND,
    PARENT,
    SUPERSEDED,
    WRITER,
    flatten,
    long_tag,
)
from icis.tracking.records import Heads, Record, output_files, read_records
from icis.tracking.runs import (
    clear,
    is_left_behind,
    log_many,
    log_run,
    now,
    renew,
    same_run,
    supersede,
    writer,
)


@dataclass(frozen=True)
class Receipt:
    """What the store holds after logging; ``new`` and ``superseded`` are this call's doing.

    ``run_id`` is the run of the invocation that the tables and figures on disk belong to.
    """

    tracking_uri: str
    experiment_id: str
    run_id: str
    complete: int
    new: int
    superseded: int
    digest: str


def log_experiment(plan: Plan, *, uri: str | None = None, heads: Heads = "first-seed") -> Receipt:
    """Bring the store to what is on disk; whatever is there already stays.

    Raises StoreError where the store fails: what it holds by then counts, and the next call adds
    the rest.
    """
    uri = uri or tracking_uri()
    records = read_records(plan, heads)
    outputs = output_files(plan.experiment.name)
    digest = _digest(plan, records, outputs)
    with open_store(uri, alone=True) as client:
        experiment = open_experiment(client, uri, plan.experiment.name)
        runs = list_runs(client, experiment)
        known = clear(client, runs)
        same = {each.key: same_run(known.get(each.key, []), each.digest) for each in records}
        new = sum(run is None for run in same.values())
        finished, unfinished = _invocations(client, runs, known, digest)
        current = same_run([run for run in finished if SUPERSEDED not in run.data.tags], digest)
        begun = bool(new) or current is None
        if begun:  # otherwise nothing changed, and no run says so
            current = unfinished or _begin(client, experiment, plan, digest)
        assert current is not None
        parent = current.info.run_id
        for record in tqdm(records, desc="MLflow", unit="run", disable=None):
            found = same[record.key]
            if found is None:
                log_run(client, experiment, parent, record)
            else:
                renew(client, found, record)
        kept = {run.info.run_id for run in same.values() if run is not None}
        old = [run for each in known.values() for run in each if run.info.run_id not in kept]
        superseded = sum([supersede(client, run) for run in old])
        if begun:
            _finish(client, parent, plan, outputs)
        for run in finished:
            if run.info.run_id != parent:
                supersede(client, run)
        if new and not uri.startswith("sqlite"):  # no other process writes there meanwhile
            _settle(client, experiment, records)
    return Receipt(
        public_uri(uri), experiment, parent, len(records), new, superseded, digest
    )  # fmt: skip


def _digest(plan: Plan, records: list[Record], outputs: dict[str, Path]) -> str:
    """Return the hash of all that an invocation logs."""
    logged = sorted((record.key, record.digest) for record in records)
    files = {name: file_sha256(path) for name, path in outputs.items()}
    return canonical_hash([plan.experiment.identity(), logged, files])


def _invocations(
    client: MlflowClient, runs: list[Run], known: dict[str, list[Run]], digest: str
) -> tuple[list[Run], Run | None]:
    """Return the finished invocations, and the one that was killed while it logged the same.

    Others that were killed are closed, or deleted where nothing hangs below them.
    """
    parents = {run.data.tags[PARENT] for each in known.values() for run in each}
    finished: list[Run] = []
    unfinished: Run | None = None
    for run in runs:
        tags, run_id = run.data.tags, run.info.run_id
        if tags.get(KIND) != INVOCATION:
            continue
        if COMPLETE in tags:
            finished.append(run)
        elif not is_left_behind(run) or SUPERSEDED in tags:
            continue  # another writer is at work, or it is closed
        elif tags[DIGEST] == digest and unfinished is None:
            unfinished = run
        elif run_id in parents:
            client.set_terminated(run_id, "KILLED")
            supersede(client, run)
        else:
            delete_run(client, run_id)
    return finished, unfinished


def _begin(client: MlflowClient, experiment: str, plan: Plan, digest: str) -> Run:
    """Open the run that the others will hang under."""
    began = now()
    date = datetime.fromtimestamp(began / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    tags = {
        KIND: INVOCATION,
        DIGEST: digest,
        WRITER: writer(),
        "git_commit": git_commit(Path()),
        **long_tag("versions", library_versions()),
    }
    return client.create_run(experiment, began, tags, f"{date} {plan.experiment.name}")


def _finish(client: MlflowClient, run: str, plan: Plan, outputs: dict[str, Path]) -> None:
    """Log the experiment file, tables and figures, and say that the invocation is whole.

    May be repeated: one that was killed here goes on with the same.
    """
    identity = plan.experiment.identity()
    log_many(client, run, [], [Param(key, value) for key, value in flatten(identity).items()])
    client.log_dict(run, identity, "experiment.json")
    for name, path in outputs.items():
        client.log_artifact(run, str(path), name.partition("/")[0])
    client.set_terminated(run)
    client.set_tag(run, COMPLETE, "true", synchronous=True)


def _settle(client: MlflowClient, experiment: str, records: list[Record]) -> None:
    """Keep one of the runs that two writers at once logged of the same.

    Each looks once its own are there, so the last one sees all.
    """
    known = clear(client, list_runs(client, experiment))
    for record in records:
        same = [run for run in known.get(record.key, []) if run.data.tags[DIGEST] == record.digest]
        kept = same_run(same, record.digest)
        for run in same:
            if run is not kept:
                supersede(client, run)
