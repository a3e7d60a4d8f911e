"""Run a cell's method for each seed: seen head and descriptors in, injected head out."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from tqdm import tqdm

from icis import layout
from icis.artifacts import (
    file_sha256,
    provenance,
    read_frame,
    read_metadata,
    write_json,
    write_table,
)
from icis.errors import DiskError, IcisError, reason_of
from icis.holdout import held_out_cosine
from icis.inputs import input_files
from icis.methods import Injection, InjectionProblem
from icis.methods.base import Task
from icis.plan import Cell, Plan
from icis.schema import canonical_hash
from icis.scorers import Scorer, load_scorers, save_scorers
from icis.shelf import Shelf
from icis.slugs import variant_slug
from icis.stages.common import (
    denormals_flushed,
    device_name,
    epochs_bar,
    only_one,
    pick_device,
    trains_together,
)
from icis.stages.problems import held_out_problem, load_problem
from icis.stages.trainings import Training
from icis.threads import in_threads

HELD_OUT = "held-out-"
Failures = dict[Path, Exception]
"""What went wrong in a program of many trainings, by the file that it would have been."""


def run(
    plan: Plan,
    cell: Cell,
    *,
    device: str = "auto",
    shelf: Shelf | None = None,
    log: Path | None = None,
    failures: Failures | None = None,
) -> None:
    """Write ``seed-<n>.safetensors`` and its history for each seed, then the manifest.

    A seed that is there already, made from the same inputs by the same settings and code, stays.
    So do the runs with held-out classes, ``held-out-<n>``. A seed whose method fails stands in
    the manifest with the reason and the log where all of it stands; the others go on.
    ``failures`` are what ``together`` returned, where it was called for this cell and others.
    """
    device = pick_device(device)
    shelf = shelf or Shelf()
    if failures is None:
        failures = together(plan, [cell], device=device, shelf=shelf)
    inputs = input_files(cell)
    manifest = layout.injection(plan.experiment.name, *cell.key)
    about = shelf.get(read_metadata, inputs["seen heads"])
    with only_one(manifest), denormals_flushed():
        made = _Maker(plan, cell, device, shelf, log, failures).run()
        _remove_others(manifest.parent, made)
        sources = dict(about["sources"])
        for key in inputs.keys() - {"seen heads"}:
            sources |= shelf.get(read_metadata, inputs[key])["sources"]
        metadata = provenance(
            "injection",
            fingerprint=plan.injection_fingerprint(cell),
            inputs=inputs,
            sources=sources,
            sha256=shelf.sha256,
            device=device_name(device),
            split_version=about["split_version"],
            selection=_selection(cell, about),
            **made,
        )
        write_json(manifest, metadata)


def together(plan: Plan, cells: Sequence[Cell], *, device: str, shelf: Shelf) -> Failures:
    """Train what several cells lack as one program where that pays; return what failed, by file.

    Each head is written as soon as it is trained, so that a killed run goes on with the others.
    What is not made here, ``run`` makes one by one.
    """
    failures: Failures = {}
    chosen = [cell for cell in cells if cell.method.batched] if trains_together(device) else []
    with ExitStack() as stack:
        for path in sorted(layout.injection(plan.experiment.name, *cell.key) for cell in chosen):
            stack.enter_context(only_one(path))
        stack.enter_context(denormals_flushed())
        kinds: dict[Any, list[tuple[_Maker, _Job]]] = {}
        for cell in chosen:
            try:
                maker = _Maker(plan, cell, device, shelf, None, failures)
            except IcisError:  # run() comes to the same, and says it
                continue
            own = kinds.setdefault(cell.method.inject_many, [])
            own += [(maker, job) for job in maker.waiting()]
        for jobs in filter(None, kinds.values()):
            _inject_many(jobs, device)
    return failures


def _inject_many(jobs: Sequence[tuple[_Maker, _Job]], device: str) -> None:
    owners = {f"{maker.cell.stem}, {job.path.stem}": (maker, job) for maker, job in jobs}
    tasks = [Task(maker.cell.method, job.problem, job.seed, label)
             for label, (maker, job) in owners.items()]  # fmt: skip
    epochs = max(getattr(task.method, "max_epochs", 0) for task in tasks)

    def done(task: Task, result: Injection | Exception) -> None:
        maker, job = owners[task.label]
        try:
            if isinstance(result, Exception):
                raise result
            maker.save(job, result)
        except DiskError:
            raise
        except Exception as error:
            maker.failures[job.path] = error

    with epochs_bar(f"{len(tasks)} trainings", epochs) as progress:
        tasks[0].method.inject_many(tasks, device=device, done=done, progress=progress)


@dataclass(frozen=True)
class _Job:
    """A head to be made: where it will stand, and of what it is made."""

    problem: InjectionProblem
    seed: int
    path: Path
    key: str


class _Maker:
    """Makes all heads of a cell that are not there yet."""

    def __init__(
        self,
        plan: Plan,
        cell: Cell,
        device: str,
        shelf: Shelf,
        log: Path | None,
        failures: Failures,
    ) -> None:
        self.plan, self.cell, self.device, self.shelf = plan, cell, device, shelf
        self.failures = failures
        self.log = log or layout.log(plan.experiment.name, "inject", *cell.key)
        self.folder = layout.cell(plan.experiment.name, *cell.key)
        self.inputs = input_files(cell)
        described = sorted(self.inputs.keys() - {"seen heads"})
        self.described = [shelf.sha256(self.inputs[key]) for key in described]
        self.fingerprint = plan.seed_fingerprint(cell)

    def run(self) -> dict[str, dict[str, Any]]:
        """Return the entries of the manifest: seeds, held_out and failed, each by seed."""
        made: dict[str, dict[str, Any]] = {"seeds": {}, "held_out": {}, "failed": {}}
        seeds = self.plan.seeds[self.cell.key]
        with tqdm(total=len(seeds), desc=self.cell.stem, unit="seed", disable=None) as bar:

            def work(seed: int) -> dict[str, dict[str, Any]]:
                entries = self._seed(seed)
                bar.update()
                return entries

            at_once = self.cell.method.side_by_side
            found = in_threads(work, seeds, device=self.device) if at_once else [*map(work, seeds)]
        for seed, entries in zip(seeds, found, strict=True):
            for kind, entry in entries.items():
                made[kind][str(seed)] = entry
        return made

    def _seed(self, seed: int) -> dict[str, dict[str, Any]]:
        """Return a seed's entries of the manifest, by kind."""
        try:
            problem = self._problem(seed)
            entries = {"seeds": self._make(self._job(problem, seed))}
        except DiskError:
            raise
        except Exception as error:  # one row must not take the table with it
            return {"failed": self._failure(error, seed)}
        try:
            held_out = self._held_out(problem, seed)
            if held_out is not None:
                entries["held_out"] = self._make(held_out)
        except DiskError:
            raise
        except Exception as error:  # diagnostics only: the cell has its numbers
            told = f"seed {seed}: no diagnostics on held-out classes: {reason_of(error)}"
            tqdm.write(told, file=sys.stderr)
        return entries

    def waiting(self) -> Iterator[_Job]:
        """Yield the jobs that are not done; what is wrong with their problems is for ``run``."""
        for seed in self.plan.seeds[self.cell.key]:
            try:
                problem = self._problem(seed)
                jobs = self._job(problem, seed), self._held_out(problem, seed)
            except Exception:  # run() comes to the same, and records it
                continue
            for job in jobs:
                if job is not None and not _is_done(job.path, job.key):
                    yield job

    def _held_out(self, problem: InjectionProblem, seed: int) -> _Job | None:
        parts = self.plan.held_out_seeds(self.cell)
        if seed not in parts:
            return None
        return self._job(held_out_problem(problem, parts[seed], seed), seed)

    def _job(self, problem: InjectionProblem, seed: int) -> _Job:
        held = problem.truth is not None
        name = f"{HELD_OUT}{seed}" if held else f"seed-{seed}"
        key = self._key(problem, self.fingerprint)
        return _Job(problem, seed, self.folder / f"{name}.safetensors", key)

    def _key(self, problem: InjectionProblem, fingerprint: str) -> str:
        told = [fingerprint, problem.seen_head.digest(), self.described]
        held = problem.truth is not None
        return canonical_hash([*told, list(problem.unseen_classes)] if held else told)

    def _problem(self, seed: int) -> InjectionProblem:
        return load_problem(
            self.inputs["seen heads"],
            self.inputs["descriptors"],
            seed,
            head_described=self.inputs.get("head descriptors"),
            n_seen=self.cell.n_seen,
            shelf=self.shelf,
        )

    def _failure(self, error: Exception, seed: int) -> dict[str, str]:
        traceback.print_exception(error)
        return {"reason": f"seed {seed}: {reason_of(error)}", "log": str(self.log)}

    def _make(self, job: _Job) -> dict[str, Any]:
        if job.path in self.failures:
            raise self.failures[job.path]
        path = job.path
        if not _is_done(path, job.key):
            self._inject(job)
        _, about = load_scorers(path)
        return {"file": path.name, "sha256": file_sha256(path), "diagnostics": about["diagnostics"]}

    def _inject(self, job: _Job) -> None:
        method = self.cell.method
        with epochs_bar(job.path.stem, getattr(method, "max_epochs", 0)) as progress:
            own: dict[str, Any] = {
                "seed": job.seed,
                "device": self.device,
                "progress": progress,
            }
            shared = self._shared(job)
            if shared is None:
                injection = method.inject(job.problem, **own)
            else:
                injection = shared.fit(self.device, progress)
                if method.base_method is not None:
                    injection = method.refined(job.problem, injection, **own)
                injection = method.rescaled(injection, job.problem)
        self.save(job, injection)

    def _shared(self, job: _Job) -> Training | None:
        """Return the training that a job begins with, if other cells do so, too."""
        method, cell = self.plan.shared_training(self.cell), self.cell
        if method is None:
            return None
        variant = variant_slug(method, ignore=("method", "batch_size"))
        few = "" if cell.n_seen is None else f"@{cell.n_seen}-seen"
        folder = layout.training(self.plan.experiment.name, *cell.key[:4])
        path = folder / f"{method.method}-{variant}{few}" / job.path.name
        key = self._key(job.problem, self.plan.seed_fingerprint(cell, method))
        return Training(method, job.problem, job.seed, path, key)

    def save(self, job: _Job, injection: Injection) -> None:
        """Write an injected head, its history before it."""
        problem, path = job.problem, job.path
        write_table(layout.history(path), history_frame(injection, job.seed), {"key": job.key})
        scorers: dict[str, Scorer] = {"joint": injection.joint}
        if injection.unseen is not None:
            scorers["unseen"] = injection.unseen
        metadata = {
            "key": job.key,
            "seed": job.seed,
            "cell": self.cell.id,
            "epochs": injection.epochs,
            "configuration": self.cell.identity,
            "seen_classes": list(problem.seen_head.classes),
            "known_classes": len(problem.known_head.classes),
            "unseen_classes": list(problem.unseen_classes),
            "diagnostics": diagnostics(injection, problem),
        }
        save_scorers(path, scorers, metadata)


def diagnostics(injection: Injection, problem: InjectionProblem) -> dict[str, float]:
    """Return what the training and, with held-out classes, their true rows tell of a method."""
    terms = {"train_loss": "loss", "held_out_loss": "held_out", "held_out_w2a": "held_out_w2a"}
    last = {name: injection.history.get(term, []) for name, term in terms.items()}
    found = {name: values[-1] for name, values in last.items() if values}
    if problem.truth is not None:
        cosine = held_out_cosine(injection, problem)
        found |= {} if cosine is None else {"held_out_cosine": cosine}
    return found


def history_frame(injection: Injection, seed: int) -> pl.DataFrame:
    """Return the training history, long format: seed, epoch (from 1), term, value."""
    columns: dict[str, list[Any]] = {"seed": [], "epoch": [], "term": [], "value": []}
    for term, values in injection.history.items():
        columns["seed"] += [seed] * len(values)
        columns["epoch"] += range(1, len(values) + 1)
        columns["term"] += [term] * len(values)
        columns["value"] += values
    types = {"seed": pl.Int64, "epoch": pl.Int64, "term": pl.String, "value": pl.Float64}
    return pl.DataFrame(columns, schema=types)


def _is_done(path: Path, key: str) -> bool:
    try:
        _, metadata = load_scorers(path)
        read_frame(layout.history(path))
        return bool(metadata["key"] == key)
    except IcisError:  # absent or damaged: made again
        return False


def _remove_others(folder: Path, made: dict[str, dict[str, Any]]) -> None:
    wanted = {each["file"] for kind in ("seeds", "held_out") for each in made[kind].values()}
    for path in folder.glob("*.safetensors"):
        if path.name not in wanted:
            path.unlink()
            layout.history(path).unlink(missing_ok=True)


def _selection(cell: Cell, heads: dict[str, Any]) -> str:
    seen = next(iter(heads["training"].values()))["selection"]
    return (
        f"backbone: {heads['backbone_selection']}; seen head: {seen}; "
        f"method: {cell.method.selection}"
    )


def load_manifest(path: Path) -> dict[str, Any]:
    """Read a manifest and check every head against its checksum."""
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise IcisError(f"{path} cannot be read: {error}") from error
    for each in (*manifest["seeds"].values(), *manifest["held_out"].values()):
        if file_sha256(path.parent / each["file"]) != each["sha256"]:
            raise IcisError(
                f"{path.parent / each['file']} is damaged: it does not have the checksum of its "
                "manifest; run the same command again to make it anew"
            )
    return manifest
