"""Experiments in MLflow: every number of every (cell, seed), exactly once.

The files on disk are the record. Logging lists what the store holds and adds what is missing, so
it may be repeated, or killed and started again. A run counts once its tag ``icis.complete`` is
set, which is written last; whatever a newer record replaces keeps its history under the tag
``icis.superseded``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
from tqdm import tqdm

from icis import layout
from icis.artifacts import file_sha256, read_frame
from icis.cell_results import cell_rows
from icis.errors import FAILED, IcisError
from icis.mlflow_store import (
    Metric,
    MlflowClient,
    Param,
    Run,
    RunTag,
    decode,
    delete_artifact,
    encode,
    list_runs,
    open_experiment,
    open_store,
    public_uri,
    tracking_uri,
)
from icis.plan import Cell, Plan
from icis.rows import COLUMNS, ORDER
from icis.schema import canonical_hash

T = TypeVar("T")

KEY, DIGEST, KIND = "icis.key", "icis.digest", "icis.kind"
COMPLETE, SUPERSEDED, PARENT = "icis.complete", "icis.superseded", "mlflow.parentRunId"
OUTPUT = "icis.output/"
CURVE = "history/"
OUTPUTS = ("tables", "figures")
FACTS = tuple(column for column in COLUMNS if column not in ("metric", "value", "problem"))
FORM = 1
"""Of the logged runs: a new number makes every run be logged anew."""
METRICS_A_CALL, PARAMS_A_CALL = 900, 100  # MLflow takes 1000 entities a call, 100 of them params
LONGEST_PARAM = 500
LONGEST_TAG = 4000  # MLflow cuts longer ones without a word, at 8000 or (older servers) 5000
LARGEST = 1.7976931348623157e308  # what MLflow's SQL store makes of infinity


@dataclass(frozen=True)
class Receipt:
    """What the store holds after logging; ``new`` and ``superseded`` are this call's doing."""

    tracking_uri: str
    experiment_id: str
    run_id: str
    complete: int
    new: int
    superseded: int
    digest: str


@dataclass(frozen=True)
class Record:
    """All that is logged of one (cell, seed)."""

    facts: dict[str, str]
    """The columns of the metrics table that are the same for every metric."""
    name: str
    metrics: dict[str, float]
    problems: dict[str, str]
    """By metric, why there is no other; empty where nothing failed."""
    history: pl.DataFrame
    configuration: dict[str, Any]
    provenance: dict[str, str]
    """Where the numbers come from; not in the digest, for adding a seed to a cell renews it."""

    @property
    def key(self) -> str:
        """Return ``<cell id>/<seed>``."""
        return f"{self.facts['cell']}/{self.facts['seed']}"

    @cached_property
    def digest(self) -> str:
        """Return the hash of numbers, curves, configuration and facts."""
        curves = self.history.select("term", "epoch", "value").rows()
        said = [FORM, self.facts, self.metrics, curves, self.configuration]
        said += [self.problems] if self.problems else []
        return canonical_hash(said)


def log_experiment(plan: Plan, *, uri: str | None = None) -> Receipt:
    """Bring the store to what the cells on disk say; whatever is there already stays."""
    uri = uri or tracking_uri()
    records = [record for cell in plan.cells.values() for record in _cell_records(plan, cell)]
    with open_store(uri) as client:
        experiment = open_experiment(client, uri, plan.experiment.name)
        runs = list_runs(client, experiment)
        parent = _parent(client, experiment, runs, plan.experiment.name).info.run_id
        known: dict[str, list[Run]] = {}
        for run in runs:
            if KEY in run.data.tags and COMPLETE not in run.data.tags:
                client.delete_run(run.info.run_id)
            elif KEY in run.data.tags:
                known.setdefault(run.data.tags[KEY], []).append(run)
        kept, new = set[str](), 0
        for record in tqdm(records, desc="MLflow", unit="run", disable=None):
            same = _same_run(known.get(record.key, []), record)
            if same is None:
                _log(client, experiment, parent, record)
                new += 1
            else:
                _renew(client, same, {**record.provenance, PARENT: parent})
                kept.add(same.info.run_id)
        old = [run for runs in known.values() for run in runs if run.info.run_id not in kept]
        replaced = [run for run in old if SUPERSEDED not in run.data.tags]
        for run in replaced:
            client.set_tag(run.info.run_id, SUPERSEDED, "true", synchronous=True)
        digest = canonical_hash(sorted((record.key, record.digest) for record in records))
        client.set_tag(parent, DIGEST, digest, synchronous=True)
    return Receipt(
        public_uri(uri), experiment, parent, len(records), new, len(replaced), digest
    )  # fmt: skip


def _cell_records(plan: Plan, cell: Cell) -> Iterator[Record]:
    frame, about = cell_rows(plan, cell)
    folder = layout.cell(plan.experiment.name, *cell.key)
    for (seed,), rows in frame.group_by("seed", maintain_order=True):
        facts = rows.select(FACTS).row(0, named=True)
        head = folder / f"seed-{seed}.safetensors"
        provenance = {
            "device": about["device"],
            "git_commit": about["git_commit"],
            "injected_head": about["heads"].get(str(seed), ""),
            **_long_tag("versions", about["versions"]),
            **_long_tag("sources", about["sources"]),
        }
        yield Record(
            {key: str(value) for key, value in facts.items()},
            f"{'/'.join(cell.key)}/seed-{seed}",
            dict(rows.select("metric", "value").iter_rows()),
            dict(rows.drop_nulls("problem").select("metric", "problem").iter_rows()),
            _history(layout.history(head), failed=FAILED in rows["metric"]),
            about["configuration"],
            provenance,
        )


def _history(path: Path, *, failed: bool) -> pl.DataFrame:
    """Return a seed's losses by epoch; one that failed may have none."""
    if failed and not path.exists():
        types = {"seed": pl.Int64, "epoch": pl.Int64, "term": pl.String, "value": pl.Float64}
        return pl.DataFrame(schema=types)
    return read_frame(path)


def _parent(client: MlflowClient, experiment: str, runs: list[Run], name: str) -> Run:
    """Return the run that all others hang under, made where there is none."""
    for run in reversed(runs):
        if run.data.tags.get(KIND) == "experiment":
            return run
    run = client.create_run(experiment, tags={KIND: "experiment"}, run_name=name)
    client.set_terminated(run.info.run_id)
    return run


def _same_run(runs: list[Run], record: Record) -> Run | None:
    """Return the run that says the same; one that was superseded only if there is no other."""
    same = [run for run in runs if run.data.tags[DIGEST] == record.digest]
    return min(same, key=lambda run: SUPERSEDED in run.data.tags, default=None)


def _renew(client: MlflowClient, run: Run, tags: dict[str, str]) -> None:
    """Bring a run's provenance up to date, and the run back where it was superseded."""
    known = run.data.tags
    stale = [RunTag(key, value) for key, value in tags.items() if known.get(key) != value]
    if stale:
        client.log_batch(run.info.run_id, tags=stale, synchronous=True)
    left = [key for key in known if key.startswith(("sources.", "versions.")) and key not in tags]
    for key in [*left, *({SUPERSEDED} & known.keys())]:
        client.delete_tag(run.info.run_id, key)


def _log(client: MlflowClient, experiment: str, parent: str, record: Record) -> None:
    now = int(time.time() * 1000)
    tags = {
        KEY: record.key,
        DIGEST: record.digest,
        PARENT: parent,
        **{_fact_tag(column): value for column, value in record.facts.items()},
        **_long_tag("configuration", record.configuration),
        **(_long_tag("problem", record.problems) if record.problems else {}),
        **record.provenance,
    }
    run = client.create_run(experiment, now, tags, record.name[:250]).info.run_id
    metrics = [Metric(encode(name), value, now, 0) for name, value in record.metrics.items()]
    names = {term: CURVE + encode(term) for term in record.history["term"].unique()}
    curves = record.history.select("term", "value", "epoch").iter_rows()
    metrics += [Metric(names[term], value, now, epoch) for term, value, epoch in curves]
    params = [Param(key, value) for key, value in _flatten(record.configuration).items()]
    parts = zip_longest(_parts(metrics, METRICS_A_CALL), _parts(params, PARAMS_A_CALL))
    for some_metrics, some_params in parts:
        client.log_batch(run, some_metrics or (), some_params or (), synchronous=True)
    client.set_terminated(run)
    client.set_tag(run, COMPLETE, "true", synchronous=True)


def _parts(entries: list[T], size: int) -> list[Sequence[T]]:
    return [entries[start : start + size] for start in range(0, len(entries), size)]


def _fact_tag(column: str) -> str:
    return f"icis.{column}" if column in ("cell", "seed") else column


def _long_tag(name: str, data: Any) -> dict[str, str]:
    """Return JSON as a tag; where it is long, in pieces: ``name``, ``name.1``, ``name.2``."""
    text = json.dumps(data, sort_keys=True)
    pieces = _parts(list(text), LONGEST_TAG)
    return {f"{name}.{at}" if at else name: "".join(piece) for at, piece in enumerate(pieces)}


def _read_long_tag(tags: dict[str, str], name: str) -> Any:
    """Return what ``_long_tag`` was given, an empty dictionary where it was not called."""
    pieces, at = [tags.get(name, "{}")], 1
    while f"{name}.{at}" in tags:
        pieces.append(tags[f"{name}.{at}"])
        at += 1
    return json.loads("".join(pieces))


def _flatten(data: Any, prefix: str = "") -> dict[str, str]:
    """Return nested settings as params; a pair of name and settings stays under one key."""
    if isinstance(data, list) and [type(each) for each in data] == [str, dict]:
        return {prefix: data[0], **_flatten(data[1], prefix)}
    if isinstance(data, dict) and data:
        found: dict[str, str] = {}
        for key, value in data.items():
            found |= _flatten(value, ".".join(filter(None, (prefix, encode(key)))))
        return found
    text = data if isinstance(data, str) else json.dumps(data, sort_keys=True)
    return {prefix: text if len(text) <= LONGEST_PARAM else f"{text[: LONGEST_PARAM - 1]}…"}


def log_outputs(plan: Plan, *, uri: str | None = None) -> None:
    """Store tables and figures as artifacts of the experiment's run, each file once."""
    uri = uri or tracking_uri()
    name = plan.experiment.name
    folders = [(kind, layout.results(name) / kind) for kind in OUTPUTS]
    files = {
        f"{OUTPUT}{kind}/{encode(path.name)}": path
        for kind, folder in folders
        for path in sorted(folder.glob("[!.]*"))
        if path.is_file() and path.suffix != ".complete"
    }
    with open_store(uri) as client:
        experiment = open_experiment(client, uri, name)
        found = list_runs(client, experiment, f"tags.`{KIND}` = 'experiment'")
        run = _parent(client, experiment, found, name)
        run_id, tags = run.info.run_id, run.data.tags
        stored = {each.path for kind in OUTPUTS for each in client.list_artifacts(run_id, kind)}
        for tag, path in files.items():
            digest = file_sha256(path)
            if tags.get(tag) != digest or f"{path.parent.name}/{path.name}" not in stored:
                client.log_artifact(run_id, str(path), path.parent.name)
                client.set_tag(run_id, tag, digest, synchronous=True)
        for tag in [tag for tag in tags if tag.startswith(OUTPUT) and tag not in files]:
            delete_artifact(run, decode(tag.removeprefix(OUTPUT)), uri)
            client.delete_tag(run_id, tag)


def metrics_from_store(experiment: str, *, uri: str | None = None) -> pl.DataFrame:
    """Rebuild ``metrics.parquet`` of an experiment from the store alone."""
    uri = uri or tracking_uri()
    with open_store(uri, create=False) as client:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            known = ", ".join(sorted(each.name for each in client.search_experiments()))
            raise IcisError(
                f"the MLflow store {public_uri(uri)} has no experiment {experiment!r}; "
                f"there are: {known}"
            )
        runs = list_runs(client, found.experiment_id, f"tags.`{COMPLETE}` = 'true'")
    rows, found_cells = [], set[tuple[str, ...]]()
    for run in runs:
        tags = run.data.tags
        facts: dict[str, Any] = {column: tags[_fact_tag(column)] for column in FACTS}
        # with the path: "all" and a number may be the same count of seen classes
        place = (*(facts[column] for column in COLUMNS[:8]), run.info.run_name)
        if SUPERSEDED in tags or place in found_cells:  # twice: logging was killed halfway
            continue
        found_cells.add(place)
        facts |= {"seed": int(facts["seed"]), "n_seen": int(facts["n_seen"])}
        problems = _read_long_tag(tags, "problem")
        for name, value in run.data.metrics.items():
            if not name.startswith(CURVE):
                value = value * float("inf") if abs(value) == LARGEST else value
                metric = decode(name)
                more = {"metric": metric, "value": value, "problem": problems.get(metric)}
                rows.append({**facts, **more})
    types: dict[str, Any] = dict.fromkeys(COLUMNS, pl.String)
    types |= {"seed": pl.Int64, "n_seen": pl.Int64, "value": pl.Float64}
    return pl.DataFrame(rows, schema=types).sort(ORDER)
