"""Put an injected head into MLflow's registry, as a model that predicts by itself."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec
from mlflow.types.schema import Array

from icis import layout
from icis.artifacts import file_sha256, read_metadata
from icis.cell_results import cell_rows
from icis.config import Backbone, Xlsa17Dataset
from icis.datasets.paths import expand
from icis.errors import FAILED, IcisError
from icis.mlflow_store import MlflowClient, MlflowException, Run, open_store, tracking_uri
from icis.plan import Cell, Plan
from icis.scorers import load_scorers
from icis.tracking.encoding import KEY
from icis.tracking.rebuilding import counting_runs

PACKAGE = Path(__file__).parent.parent
SHOWN = ("T1", "U", "S", "H")
FEATURES_NEED = (
    "mlflow", "numpy", "pandas", "polars", "pyarrow", "safetensors", "torch", "tqdm",
)  # fmt: skip
IMAGES_NEED = ("huggingface_hub", "pillow", "pydantic", "ruamel.yaml", "timm", "torchvision")


@dataclass(frozen=True)
class Chosen:
    """A head to be registered, and what its files say of it."""

    cell: Cell
    seed: int
    path: Path
    sha256: str
    metrics: dict[str, float]
    facts: dict[str, str]

    @property
    def key(self) -> str:
        """Return ``<cell id>/<seed>``."""
        return f"{self.cell.id}/{self.seed}"


def run(plan: Plan, cell: Cell, *, seed: int, name: str, features_only: bool = False) -> str:
    """Register the head of one seed; return the version's number.

    A version of the same head is not made twice. Raises IcisError where the head or its run in the
    store is missing.
    """
    if not re.fullmatch(r"[\w .-]+", name):
        raise IcisError(f"--name {name}: letters, digits, space, '.', '_' and '-' only")
    chosen = _choose(plan, cell, seed)
    backbone, folder = (None, None) if features_only else _backbone(plan, cell)
    takes = "features" if backbone is None else "features or images"
    uri = tracking_uri()
    with open_store(uri, create=False) as client:
        runs = counting_runs(client, uri, plan.experiment.name)
        found = next((each for each in runs if each.data.tags[KEY] == chosen.key), None)
        if found is None or found.data.tags["injected_head"] != chosen.sha256:
            raise IcisError(
                f"{chosen.path} has no run in the MLflow store yet: run 'icis track --config FILE' "
                "first"
            )
        tags = {**_tags(chosen), "icis.takes": takes}
        for each in client.search_model_versions(f"name='{name}'"):
            same = ("icis.injected_head", "icis.takes")
            if all(each.tags.get(key) == tags[key] for key in same):
                return str(each.version)
        source = _upload(client, found, chosen, backbone, folder)
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        made = client.create_model_version(name, source, found.info.run_id, tags)
        return str(made.version)


def _choose(plan: Plan, cell: Cell, seed: int) -> Chosen:
    """Return the head of a seed after its checks."""
    known = plan.seeds[cell.key]
    if seed not in known:
        raise IcisError(f"--seed {seed}: the cell's seeds are {', '.join(map(str, known))}")
    frame, about = cell_rows(plan, cell)
    rows = frame.filter(seed=seed)
    if FAILED in rows["metric"]:
        raise IcisError(f"there is no head: {rows['problem'][0]}")
    path = layout.cell(plan.experiment.name, *cell.key) / f"seed-{seed}.safetensors"
    sha256 = about["heads"].get(str(seed), "")
    if not path.exists() or file_sha256(path) != sha256:
        what = "does not exist" if not path.exists() else "is not the head that was evaluated"
        raise IcisError(f"{path} {what}: run the pipeline again (snakemake --configfile FILE)")
    metrics = {name: float(value) for name, value in rows.select("metric", "value").iter_rows()}
    facts = {key: str(rows[key][0]) for key in ("display", "selection", "split_version")}
    facts |= {key: str(rows[key][0]) for key in ("dataset", "backbone", "head", "descriptor")}
    return Chosen(cell, seed, path, sha256, metrics, facts)


def _tags(chosen: Chosen) -> dict[str, str]:
    numbers = {key: f"{chosen.metrics[key]:.4f}" for key in SHOWN if key in chosen.metrics}
    return {
        "icis.cell": chosen.cell.id,
        "icis.seed": str(chosen.seed),
        "icis.injected_head": chosen.sha256,
        "method": chosen.cell.stem,
        **chosen.facts,
        **numbers,
    }


def _backbone(plan: Plan, cell: Cell) -> tuple[Backbone | None, Path | None]:
    """Return how images become the cell's features, and the folder of the weights.

    None where the features were given; no folder where the weights have a name on the hub.
    """
    data = plan.dataset(cell.dataset)
    if isinstance(data, Xlsa17Dataset) and cell.backbone in data.features:
        return None, None
    config = plan.backbone(cell.backbone)
    if config.train is not None:
        folder = layout.backbone(cell.dataset, cell.backbone)
    elif config.weights.startswith("local-dir:"):
        folder = expand(config.weights.removeprefix("local-dir:"))
    else:
        return config, None
    if not (folder / "model.safetensors").is_file():
        raise IcisError(
            f"{folder} holds no weights of the backbone: run the pipeline again, or register the "
            "head for features alone: --features-only"
        )
    return config.model_copy(update={"weights": "local-dir:backbone", "train": None}), folder


def _upload(
    client: MlflowClient, run: Run, chosen: Chosen, backbone: Backbone | None, folder: Path | None
) -> str:
    """Make the model's folder and store it with the head's run; return its address."""
    place = "model" if backbone else "model-features"
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of type hints: the signature is given
        about = Path(temporary) / "about.json"
        about.write_text(json.dumps(_about(chosen, backbone), indent=2))
        files = {"head": str(chosen.path), "about": str(about)}
        if folder is not None:
            files["backbone"] = _only_weights(folder, Path(temporary) / "backbone")
        mlflow.pyfunc.save_model(
            Path(temporary) / "model",
            python_model=str(PACKAGE / "served_model.py"),
            artifacts=files,
            code_paths=[str(PACKAGE)],
            signature=_signature(chosen, backbone),
            pip_requirements=_requirements(backbone),
            metadata={"icis": _tags(chosen)},
        )
        client.log_artifacts(run.info.run_id, str(Path(temporary) / "model"), place)
    return f"{run.info.artifact_uri}/{place}"


def _only_weights(folder: Path, target: Path) -> str:
    """Copy the two files of a checkpoint into a folder, without the course of its training."""
    target.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copyfile(folder / name, target / name)
    return str(target)


def _about(chosen: Chosen, backbone: Backbone | None) -> dict[str, Any]:
    scorers, about = load_scorers(chosen.path)
    features = layout.features(chosen.cell.dataset, chosen.cell.backbone)
    return {
        "classes": list(scorers["joint"].classes),
        "unseen_classes": about["unseen_classes"],
        "backbone": backbone and backbone.identity(),
        "precision": read_metadata(features)["precision"] if backbone else None,
    }


def _signature(chosen: Chosen, backbone: Backbone | None) -> ModelSignature:
    """Return what goes in and out. MLflow has no type for "numbers or images": it is any array."""
    features = layout.features(chosen.cell.dataset, chosen.cell.backbone)
    anything = TensorSpec(np.dtype("O"), (-1,))
    vectors = TensorSpec(np.dtype("float32"), (-1, read_metadata(features)["dim"]))
    columns = [
        ColSpec(DataType.string, "class"),
        ColSpec(DataType.float, "score"),
        ColSpec(Array(DataType.float), "scores"),
    ]
    role = ParamSchema([ParamSpec("role", DataType.string, "joint")])
    return ModelSignature(Schema([anything if backbone else vectors]), Schema(columns), role)


def _requirements(backbone: Backbone | None) -> list[str]:
    """Return the packages at the versions installed here, those of requirements.lock."""
    names = (*FEATURES_NEED, *(IMAGES_NEED if backbone else ()))
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]
