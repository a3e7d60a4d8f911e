"""The one command: an empty folder, params.yaml as it is, every host played by a local server."""

import json
import shutil
import subprocess
import sys

import polars as pl
import pytest
from ruamel.yaml import YAML

from icis import layout
from icis.config import read_experiment
from icis.plan import Plan
from tests.miniature.hosts import played
from tests.pipeline import ROOT, environment

pytestmark = pytest.mark.slow

EPOCHS = 3
"""Training ends early: nothing is learnt from pictures of 48 pixels, and the DAG is the same."""


def short(experiment):
    """Return what is laid over params.yaml: one seed, few epochs."""
    few = {"max_epochs": EPOCHS}
    methods = {}
    for key, method in experiment["methods"].items():
        if method["method"] in ("mlp", "icis"):
            methods[key] = few
        elif method["method"] == "subreg":
            methods[key] = {**few, "rank": 5}  # else the rows span all that the tiny networks have
        elif method["method"] == "wdae":
            methods[key] = {**few, method.get("base", "mlp"): few}
        elif method.get("solver") == "descent":
            methods[key] = {"max_steps": EPOCHS}
    finetuned = {"resnet101-finetuned": {"train": {"epochs": 2}}}
    heads = {key: {"epochs": 5} for key in ("last", "paper")}
    return {"seeds": 1, "methods": methods, "backbones": finetuned, "heads": heads}


@pytest.fixture(scope="module")
def mission(tmp_path_factory):
    """Run the one command and return its folder, what it said, and the servers' environment."""
    root = tmp_path_factory.mktemp("mission")
    folder = root / "project"
    folder.mkdir()
    shutil.copy(ROOT / "params.yaml", folder)
    overrides = short(YAML(typ="safe").load((folder / "params.yaml").read_text()))
    (root / "short.json").write_text(json.dumps(overrides))
    command = [
        sys.executable, "-m", "snakemake", "--cores", "2", "--keep-going",
        "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder),
        "--configfile", "params.yaml", str(root / "short.json"),
    ]  # fmt: skip
    with played(root) as hosts:
        env = environment(**hosts)

        def run(*more):
            return subprocess.run(
                [*command, *more], cwd=folder, capture_output=True, text=True, env=env, check=False
            )

        done = run()
        assert done.returncode == 0, (done.stdout + done.stderr)[-20_000:]
        yield folder, run


def test_every_table_is_complete(mission):
    folder, _ = mission
    assert (folder / "params.yaml").read_bytes() == (ROOT / "params.yaml").read_bytes()
    resolved = read_experiment(folder / layout.resolved("paper"))
    plan = Plan(resolved)
    frame = pl.read_parquet(folder / layout.metrics("paper"))
    for name in plan.experiment.tables:
        assert (folder / layout.complete("paper", name)).exists(), name
        for cell in plan.table_cells[name]:
            rows = frame.filter(pl.col("cell") == cell.id)
            found = dict(rows.select("metric", "value").iter_rows())
            assert {"T1", "U", "S", "H"} <= {*found}, (name, cell.key)
            assert all(0 <= found[metric] <= 100 for metric in ("T1", "U", "S", "H")), cell.key
        for kind in plan.experiment.tables[name].figures:
            assert (folder / layout.figure("paper", name, kind, "png")).stat().st_size > 1000


def test_what_was_read_is_on_record(mission):
    folder, _ = mission
    first = json.loads((folder / layout.first_seen()).read_text())
    assert list(first) == ["xlsa17/xlsa17.zip"]  # the only one without a published checksum
    sources = {"xlsa17", "cub-images", "awa2-images", "sun-images", "numberbatch", "wikipedia2vec"}
    assert {path.stem for path in (folder / "data/fetched").glob("*.json")} == sources
    frame = pl.read_parquet(folder / layout.metrics("paper"))
    assert frame["split_version"].unique().to_list() == ["xlsa17-2.0"]


def test_it_is_done_once(mission):
    _folder, run = mission
    again = run("--dry-run")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "Nothing to be done" in again.stdout + again.stderr
