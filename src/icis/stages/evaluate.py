"""Evaluate a cell's injected heads on the test images."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from tqdm import tqdm

from icis import layout
from icis.artifacts import (
    git_commit,
    input_hashes,
    provenance,
    read_frame,
    read_metadata,
    write_table,
    write_text,
)
from icis.calibration import best_factor, best_offset, thin
from icis.errors import FAILED, DiskError, IcisError, reason_of
from icis.evaluation import Evaluation, accuracy, examine
from icis.features import Features, load_features
from icis.heads import Head
from icis.metrics import LabelledFeatures
from icis.plan import Cell, Plan
from icis.scorers import Scorer, load_scorers
from icis.seen_heads import ANY_SEED, load_seen_head
from icis.shelf import Shelf
from icis.stages.common import pick_device
from icis.stages.inject import load_manifest

CURVE = {"seed": pl.Int64, "offset": pl.Float64, "seen": pl.Float64, "unseen": pl.Float64}
CLASS = {
    "seed": pl.Int64, "class": pl.String, "seen": pl.Boolean, "accuracy": pl.Float64,
    "zsl": pl.Float64,
}  # fmt: skip
MetricRow = tuple[int, str, float, str | None]
"""Seed, metric, value and, where it failed, why."""


def run(
    plan: Plan,
    cell: Cell,
    *,
    device: str = "auto",
    shelf: Shelf | None = None,
    log: Path | None = None,
) -> None:
    """Write the cell's metrics (a row a (seed, metric)), curves and accuracies of single classes.

    A seed that failed, here or in injection, has the metric ``failed`` alone; why stands beside it,
    with the log where all of it is.
    """
    device = pick_device(device)
    shelf = shelf or Shelf()
    log = log or layout.log(plan.experiment.name, "evaluate", *cell.key)
    manifest_path = layout.injection(plan.experiment.name, *cell.key)
    try:
        manifest = load_manifest(manifest_path)
    except IcisError:
        manifest_path.unlink(missing_ok=True)  # the next run makes the damaged heads anew
        raise
    images = _Images(plan, cell, shelf)
    heads_path = layout.seen_heads(*cell.key[:3])
    training = shelf.get(read_metadata, heads_path)["training"]
    chosen = _calibration(manifest, manifest_path.parent, images.trainval, device)
    failed = dict(manifest["failed"])
    rows: list[MetricRow] = []
    curves, classes = [], []
    for seed, entry in manifest["seeds"].items():
        seen_head = load_seen_head(heads_path, int(seed), shelf=shelf)
        try:
            found, metrics = _seed(entry, manifest_path.parent, images, seen_head, chosen, device)
        except DiskError:
            raise
        except Exception as error:  # one row must not take the table with it
            traceback.print_exception(error)
            failed[seed] = {"reason": f"seed {seed}: {reason_of(error)}", "log": str(log)}
            continue
        epoch = training.get(seed, training.get(ANY_SEED, {})).get("epoch")
        metrics |= {} if epoch is None else {"seen_epoch": float(epoch)}
        metrics |= manifest["held_out"].get(seed, {}).get("diagnostics", {})
        metrics |= entry["diagnostics"]
        rows += [(int(seed), name, value, None) for name, value in metrics.items()]
        label = pl.lit(int(seed), dtype=pl.Int64).alias("seed")
        classes.append(found.classes.select(label, pl.all()))
        if found.curve is not None:
            curves.append(thin(found.curve).select(label, pl.all()))
    for seed, each in failed.items():
        rows.append((int(seed), FAILED, 1.0, f"{each['reason']} (log: {each['log']})"))
    metadata = _metadata(plan, cell, manifest, images, shelf)
    _write(plan, cell, rows, curves, classes, metadata)


def is_fresh(plan: Plan, cell: Cell, shelf: Shelf) -> bool:
    """Say whether the metrics on disk are what ``run`` would write again, and none failed."""
    name = plan.experiment.name
    path = layout.cell_metrics(name, *cell.key)
    try:
        about = read_metadata(path)
        selection = load_manifest(layout.injection(name, *cell.key))["selection"]
        wanted = {
            "fingerprint": plan.evaluation_fingerprint(cell),
            "inputs": input_hashes(_inputs(plan, cell), shelf.sha256),
            "cell": cell.id,
            "display": cell.method.name or cell.stem,
            "selection": selection,
        }
        if any(about.get(key) != value for key, value in wanted.items()):
            return False
        read_frame(layout.curves(name, *cell.key))
        read_frame(layout.classes(name, *cell.key))
        return FAILED not in read_frame(path)["metric"]
    except IcisError:  # absent or damaged: made again
        return False


def _inputs(plan: Plan, cell: Cell) -> dict[str, Path]:
    """Return all files that a cell's metrics are made from, by role."""
    found = {
        "features": layout.features(cell.dataset, cell.backbone),
        "seen heads": layout.seen_heads(*cell.key[:3]),
        "injection": layout.injection(plan.experiment.name, *cell.key),
    }
    test = plan.test_dataset(cell)
    if test not in (None, cell.dataset):
        found["test_seen"] = layout.features(str(test), cell.backbone)
    return found


class _Images:
    """The features that a cell is judged on."""

    def __init__(self, plan: Plan, cell: Cell, shelf: Shelf) -> None:
        self.features = shelf.get(load_features, layout.features(cell.dataset, cell.backbone))
        self.test_unseen = self.features.split("test_unseen")
        self.test_seen: LabelledFeatures | None = None
        self.trainval: LabelledFeatures | None = None
        name = plan.test_dataset(cell)
        if name is None:
            return
        source: Features = self.features
        if name != cell.dataset:
            source = shelf.get(load_features, layout.features(name, cell.backbone))
        self.test_seen = source.split("test_seen")
        if "trainval" in source.rows["split"]:
            self.trainval = source.split("trainval")


def _seed(
    entry: dict[str, Any],
    folder: Path,
    images: _Images,
    seen_head: Head,
    chosen: Mapping[str, float],
    device: str,
) -> tuple[Evaluation, dict[str, float]]:
    scorers, about = load_scorers(folder / entry["file"])
    joint = scorers["joint"]
    unseen = tuple(about["unseen_classes"])
    test_seen = images.test_seen
    if test_seen is not None:  # a given head may lack some of their classes
        test_seen = test_seen.of_classes(set(joint.classes) - set(unseen))
    found = examine(
        joint,
        scorers.get("unseen") or unseen,
        test_seen=test_seen,
        test_unseen=images.test_unseen,
        device=device,
        **chosen,
    )
    metrics = {**found.metrics, "epochs": float(about["epochs"])}
    metrics["known_classes"] = float(about["known_classes"])
    if test_seen is not None:
        metrics["seen_accuracy"] = accuracy(seen_head, test_seen, device=device)
    return found, metrics | _norms(joint, unseen)


def _norms(joint: Scorer, unseen: tuple[str, ...]) -> dict[str, float]:
    """Return the mean norm of the predicted rows over that of the seen ones, biases included."""
    if not isinstance(joint, Head):
        return {}
    norms = joint.joined().double().norm(dim=1)
    novel = [name in set(unseen) for name in joint.classes]
    seen = [not each for each in novel]
    return {"norm_ratio": float(norms[novel].mean() / norms[seen].mean())}


def _calibration(
    manifest: dict[str, Any], folder: Path, trainval: LabelledFeatures | None, device: str
) -> dict[str, float]:
    """Return what runs with held-out classes choose: ``offset`` and, for linear heads, ``factor``.

    Either maximises H on trainval images, the held-out classes playing the unseen ones: the offset
    of calibrated stacking, as the mean over the seeds that were run so, and the factor of the
    norm, by the mean H. No image of an unseen class and no test image is looked at.
    """
    offsets, contests = [], []
    for entry in manifest["held_out"].values():
        if trainval is None:
            break
        scorers, about = load_scorers(folder / entry["file"])
        joint, novel = scorers["joint"], tuple(about["unseen_classes"])
        pseudo_unseen = trainval.of_classes(novel)
        pseudo_seen = trainval.of_classes(set(joint.classes) - set(novel))
        if not (pseudo_unseen.classes and pseudo_seen.classes):
            continue
        try:
            judged = examine(
                joint, novel, test_seen=pseudo_seen, test_unseen=pseudo_unseen, device=device
            )
        except IcisError as error:  # the cell still has its own numbers
            tqdm.write(f"{entry['file']} gives no offset: {error}", file=sys.stderr)
            continue
        assert judged.curve is not None
        assert judged.contest is not None
        offsets.append(best_offset(judged.curve))
        if isinstance(joint, Head):
            contests.append(judged.contest)
    chosen = {"offset": sum(offsets) / len(offsets)} if offsets else {}
    return chosen | ({"factor": best_factor(contests)} if contests else {})


def _metadata(
    plan: Plan,
    cell: Cell,
    manifest: dict[str, Any],
    images: _Images,
    shelf: Shelf,
) -> dict[str, Any]:
    inputs = _inputs(plan, cell)
    return provenance(
        "cell",
        fingerprint=plan.evaluation_fingerprint(cell),
        inputs=inputs,
        sha256=shelf.sha256,
        sources={**images.features.metadata["sources"], **manifest["sources"]},
        split_version=images.features.metadata["split_version"],
        device=manifest["device"],
        git_commit=git_commit(Path()),
        cell=cell.id,
        configuration=cell.identity,
        display=cell.method.name or cell.stem,
        selection=manifest["selection"],
        n_seen=cell.n_seen or _count_seen(inputs["seen heads"], plan.seeds[cell.key][0], shelf),
        heads={seed: entry["sha256"] for seed, entry in manifest["seeds"].items()},
    )


def _count_seen(heads: Path, seed: int, shelf: Shelf) -> int:
    return len(load_seen_head(heads, seed, shelf=shelf).classes)


def _write(
    plan: Plan,
    cell: Cell,
    rows: list[MetricRow],
    curves: list[pl.DataFrame],
    classes: list[pl.DataFrame],
    metadata: dict[str, Any],
) -> None:
    name = plan.experiment.name
    about = {"artifact": "details", "cell": cell.id}
    curve = pl.concat([pl.DataFrame(schema=CURVE), *curves])
    write_table(layout.curves(name, *cell.key), curve, about)
    each_class = pl.concat([pl.DataFrame(schema=CLASS), *classes])
    write_table(layout.classes(name, *cell.key), each_class, about)
    types = {"seed": pl.Int64, "metric": pl.String, "value": pl.Float64, "problem": pl.String}
    frame = pl.DataFrame(rows, schema=types, orient="row")
    if any(row[1] == FAILED for row in rows):  # by the new count the next run knows to try again
        count = layout.failures(name, *cell.key)
        write_text(count, str(int(count.read_text()) + 1 if count.exists() else 1))
    write_table(layout.cell_metrics(name, *cell.key), frame, metadata)  # last: it says all is done
