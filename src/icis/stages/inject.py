"""Run a cell's method for each seed: seen head and descriptors in, injected head out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import torch
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
from icis.datasets.descriptors import load_descriptors
from icis.errors import IcisError
from icis.methods import Injection, InjectionProblem
from icis.plan import Cell, Plan
from icis.schema import canonical_hash
from icis.scorers import Scorer, load_scorers, save_scorers
from icis.seen_heads import load_seen_head
from icis.stages.common import device_name, epochs_bar, only_one, pick_device


def run(plan: Plan, cell: Cell, *, device: str = "auto") -> None:
    """Write ``seed-<n>.safetensors`` and its history for each seed, then the manifest.

    A seed that is there already, made from the same inputs by the same settings and code, stays.
    """
    device = pick_device(device)
    torch.set_flush_denormal(True)  # Adam's moments decay into denormals, which are slow
    heads = layout.seen_heads(*cell.key[:3])
    described = layout.descriptors(cell.dataset, cell.descriptor)
    manifest = layout.injection(plan.experiment.name, *cell.key)
    fingerprint = plan.injection_fingerprint(cell)
    about = read_metadata(heads)
    files: dict[str, Any] = {}
    with only_one(manifest):
        for seed in tqdm(plan.seeds[cell.key], desc=cell.stem, unit="seed", disable=None):
            problem = load_problem(heads, described, seed)
            key = canonical_hash([fingerprint, problem.seen_head.digest(), file_sha256(described)])
            path = manifest.parent / f"seed-{seed}.safetensors"
            if not _is_done(path, key):
                _inject(cell, problem, seed, device, path, key)
            files[str(seed)] = {"file": path.name, "sha256": file_sha256(path)}
        _remove_others(manifest.parent, files)
        metadata = provenance(
            "injection",
            fingerprint=fingerprint,
            inputs={"seen heads": heads, "descriptors": described},
            sources={**about["sources"], **read_metadata(described)["sources"]},
            device=device_name(device),
            split_version=about["split_version"],
            seeds=files,
            selection=_selection(cell, about),
        )
        write_json(manifest, metadata)


def load_problem(heads: Path, described: Path, seed: int) -> InjectionProblem:
    """Return the method's whole input, the descriptors in the order of the head's rows."""
    head = load_seen_head(heads, seed)
    descriptors = load_descriptors(described)
    if head.classes != descriptors.classes.seen:
        raise IcisError(f"{heads} and {described} name other seen classes: make both anew")
    return InjectionProblem(
        head,
        torch.from_numpy(descriptors.rows(seen=True)),
        torch.from_numpy(descriptors.rows(seen=False)),
        descriptors.classes.unseen,
    )


def _inject(
    cell: Cell, problem: InjectionProblem, seed: int, device: str, path: Path, key: str
) -> None:
    with epochs_bar(f"seed {seed}", getattr(cell.method, "max_epochs", 0)) as progress:
        injection = cell.method.fit(problem, seed=seed, device=device, progress=progress)
    write_table(_history_path(path), history_frame(injection, seed), {"key": key})
    scorers: dict[str, Scorer] = {"joint": injection.joint}
    if injection.unseen is not None:
        scorers["unseen"] = injection.unseen
    metadata = {
        "key": key,
        "seed": seed,
        "cell": cell.id,
        "epochs": injection.epochs,
        "configuration": cell.identity,
        "seen_classes": list(problem.seen_head.classes),
        "unseen_classes": list(problem.unseen_classes),
    }
    save_scorers(path, scorers, metadata)


def _history_path(head: Path) -> Path:
    return head.with_suffix(".history.parquet")


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
        read_frame(_history_path(path))
        return bool(metadata["key"] == key)
    except IcisError:  # absent or damaged: made again
        return False


def _remove_others(folder: Path, files: dict[str, Any]) -> None:
    wanted = {each["file"] for each in files.values()}
    for path in folder.glob("seed-*.safetensors"):
        if path.name not in wanted:
            path.unlink()
            _history_path(path).unlink(missing_ok=True)


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
    for each in manifest["seeds"].values():
        if file_sha256(path.parent / each["file"]) != each["sha256"]:
            raise IcisError(
                f"{path.parent / each['file']} is damaged: it does not have the checksum of its "
                "manifest; run the same command again to make it anew"
            )
    return manifest
