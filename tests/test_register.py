"""A registered model predicts what the head does, in a process that knows nothing of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import polars as pl
import pytest

from icis import layout
from icis.config import parse_experiment
from icis.errors import IcisError
from icis.features import load_features
from icis.mlflow_store import MlflowClient
from icis.plan import Cell, Plan
from icis.serving import Served
from icis.stages import (
    describe,
    draw,
    evaluate,
    extract,
    finetune,
    index,
    inject,
    predict,
    register,
    track,
    train_head,
)
from tests.logged import write_failure
from tests.pipeline import environment, tiny

FRESH = """
import json, sys
import mlflow, numpy, pandas
vectors, names = numpy.load("vectors.npy"), json.load(open("names.json"))
every = mlflow.pyfunc.load_model("models:/tiny-icis/1")
alone = mlflow.pyfunc.load_model("models:/tiny-features/1")
contents = numpy.empty(len(names), dtype=object)
contents[:] = [open(name, "rb").read() for name in names]
answers = {
    "features": every.predict(vectors),
    "paths": every.predict(pandas.DataFrame({"image": names})),
    "array of paths": every.predict(numpy.array(names)),
    "bytes": every.predict(contents),
    "features alone": alone.predict(vectors),
    "pandas": alone.predict(pandas.DataFrame(vectors)),
    "unseen": alone.predict(vectors, params={"role": "unseen"}),
}
found = {key: [list(a["class"]), a["score"].tolist()] for key, a in answers.items()}
found["code"] = sys.modules["icis"].__file__
json.dump(found, open("found.json", "w"))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which the tiny experiment has run and is logged."""
    folder = tmp_path_factory.mktemp("registered")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        plan = make()
        for stage in (draw, index):
            stage.run(plan, "drawn")
        describe.run(plan, "drawn", "att")
        finetune.run(plan, "drawn", "small", device="cpu")
        extract.run(plan, "drawn", "small", device="cpu")
        train_head.run(plan, "drawn", "small", "linear-last_epochs-5", device="cpu")
        for cell in plan.cells.values():
            inject.run(plan, cell, device="cpu")
            evaluate.run(plan, cell, device="cpu")
        track.run(plan)
    return folder


@pytest.fixture
def plan(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Return the plan, at work in its folder."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return make()


def make() -> Plan:
    experiment = tiny()
    experiment["methods"].pop("mlp")
    experiment["tables"]["main"]["methods"] = ["conse", "icis"]
    return Plan(parse_experiment(experiment, source="here"))


def cell_of(plan: Plan, method: str) -> Cell:
    return next(cell for cell in plan.cells.values() if cell.method.method == method)


def test_a_fresh_process_predicts_as_icis_does(plan: Plan) -> None:
    cell = cell_of(plan, "icis")
    assert register.run(plan, cell, seed=1, name="tiny-icis") == "1"
    assert register.run(plan, cell, seed=1, name="tiny-features", features_only=True) == "1"
    assert register.run(plan, cell, seed=1, name="tiny-icis") == "1"  # not twice
    head = layout.cell("tiny", *cell.key) / "seed-1.safetensors"
    expected = {}
    for role in ("joint", "unseen"):
        predict.run(head, layout.features("drawn", "small"), Path(f"{role}.csv"), role=role)
        expected[role] = pl.read_csv(f"{role}.csv")["predicted"].to_list()
    features = load_features(layout.features("drawn", "small"))
    np.save("vectors.npy", features.vectors)
    names = [str(layout.raw("drawn") / name) for name in features.rows["image"]]
    Path("names.json").write_text(json.dumps(names))
    alone = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    alone["MLFLOW_TRACKING_URI"] = "sqlite:///mlflow.db"
    done = subprocess.run(
        [sys.executable, "-c", FRESH], env=alone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    found: dict[str, Any] = json.loads(Path("found.json").read_text())
    assert "mlartifacts" in found.pop("code")  # the package that travelled along
    scores = found["features"][1]
    for key, (classes, values) in found.items():
        assert classes == expected["unseen" if key == "unseen" else "joint"], key
        if key != "unseen":
            assert np.allclose(values, scores, atol=1e-5), key


def test_a_version_says_what_it_is(plan: Plan) -> None:
    cell = cell_of(plan, "conse")
    register.run(plan, cell, seed=0, name="tiny-conse")
    client = MlflowClient("sqlite:///mlflow.db")
    version = client.get_model_version("tiny-conse", "1")
    assert version.tags["icis.cell"] == cell.id
    assert {"T1", "U", "S", "H", "split_version"} <= version.tags.keys()
    assert client.get_run(version.run_id).data.tags["icis.key"] == f"{cell.id}/0"
    path = client.download_artifacts(version.run_id, "model")
    info = mlflow.models.get_model_info(path)
    assert info.signature.params.to_dict()[0]["name"] == "role"
    needs = (Path(path) / "requirements.txt").read_text().split()
    lock = (Path(__file__).parent.parent / "requirements.lock").read_text()
    pinned = {line.lower().replace("_", "-") for line in lock.splitlines()}
    assert {line.lower().replace("_", "-") for line in needs} <= pinned
    assert not list(Path(path).rglob("*.pkl"))
    assert register.run(plan, cell, seed=1, name="tiny-conse") == "2"


def test_refusals_name_the_way_out(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = cell_of(plan, "icis")

    def refused(message: str, *, seed: int = 0, name: str = "good") -> None:
        with pytest.raises(IcisError, match=message):
            register.run(plan, cell, seed=seed, name=name)

    refused("the cell's seeds are 0, 1", seed=7)
    refused("letters, digits", name="a/b")
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "sqlite:///elsewhere.db")
        refused("'icis track' makes one")
    weights = layout.backbone("drawn", "small") / "model.safetensors"
    weights.rename("aside")
    refused("or register the head for features alone: --features-only")
    Path("aside").rename(weights)
    head = layout.cell("tiny", *cell.key) / "seed-0.safetensors"
    content = head.read_bytes()
    head.unlink()
    refused("seed-0.safetensors does not exist: run the pipeline again")
    head.write_bytes(b"another")
    refused("is not the head that was evaluated")
    head.write_bytes(content)
    metrics = layout.cell_metrics("tiny", *cell.key)
    kept = metrics.read_bytes()
    write_failure(plan, cell, "the loss is NaN")
    refused("there is no head: the loss is NaN", seed=1)
    metrics.write_bytes(kept)
    command = [sys.executable, "-m", "icis", "register", "drawn", "small", "x", "att", "y"]
    config = Path("experiment.json")
    config.write_text(plan.experiment.model_dump_json())
    done = subprocess.run(
        [*command, "--name", "z", "--config", str(config)],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "there is no cell 'drawn/small/x/att/y'; there are: " in done.stderr


@pytest.mark.parametrize("data", [np.zeros((2, 3, 4)), np.zeros(3), []])
def test_what_is_neither_features_nor_images_is_refused(
    data: Any, plan: Plan, tmp_path: Path
) -> None:
    about = tmp_path / "about.json"
    about.write_text(json.dumps({"backbone": None}))
    head = layout.cell("tiny", *cell_of(plan, "icis").key) / "seed-0.safetensors"
    served = Served(head, about)
    with pytest.raises(IcisError, match=r"features \[N, D\], or N images"):
        served.predict(data)
    with pytest.raises(IcisError, match="its backbone is not known"):
        served.predict(["an.jpg"])
