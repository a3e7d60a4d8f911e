"""Every method and kind of head through the whole DAG: subsets, transfer, gaps, failures."""

import json

import numpy as np
import polars as pl
import pytest
from PIL import Image

from icis import layout
from icis.artifacts import read_frame
from icis.batches import Batches
from icis.compat import timm
from icis.config import read_experiment
from icis.methods import METHODS
from icis.plan import Plan
from tests.pipeline import changed, copy, planned, snakemake, times, tiny, write

SHORT = {"hidden": 16, "max_epochs": 25}
METHOD_SETTINGS = {
    "conse": {"method": "conse", "name": "ConSE"},
    "costa": {"method": "costa", "name": "COSTA"},
    "wavg": {"method": "wavg", "name": "WAvg"},
    "smo": {"method": "smo", "name": "SMO"},
    "subreg": {"method": "subreg", "name": "Sub.Reg.", **SHORT},
    "wdae": {"method": "wdae", "name": "wDAE", "max_epochs": 2, "neighbours": 3, "mlp": SHORT},
    "mlp": {"method": "mlp", "name": "MLP", **SHORT},
    "greedy": {"method": "conse", "name": "ConSE, top 99", "top": 99},
    "icis": {"method": "icis", "name": "ICIS", **SHORT},
}
COMPONENTS = 42  # of the drawn attributes
GIVEN_CLASSES = [f"w{number}" for number in range(10)]
METRICS = "results/tiny/cells/*/*/*/*/*.parquet"
ALL = list(METHOD_SETTINGS)
SOUND = [key for key in ALL if key != "greedy"]


def experiment(folder):
    """Return an experiment with every method and kind of head, and make the files it names."""
    made = tiny()
    made["methods"] = METHOD_SETTINGS
    made["backbones"]["frozen"] = {
        "weights": f"local-dir:{folder / 'frozen'}",
        "transform": {"image_size": 32, "crop_pct": 1.0},
    }
    made["datasets"]["drawn"]["descriptors"] = {
        "att": {"file": "attributes.csv", "normalize": "l2"},
        "clip": {"file": str(folder / "clip.npy"), "optional": True},
    }
    made["datasets"]["val"] = {"kind": "images", "root": str(folder / "val"), "test_only": True}
    made["heads"] |= {
        "own": {"kind": "given"},
        "imagenet": {
            "kind": "given", "classes": str(folder / "names.txt"), "test_seen": "val",
            "descriptors": {"att": {"file": str(folder / "given.csv")},
                            "clip": {"file": str(folder / "given.csv")}},
        },
    }  # fmt: skip
    common = {"datasets": ["drawn"], "descriptors": ["att"]}
    made["tables"] = {
        "main": {**common, "backbones": ["small"], "heads": ["last"], "methods": ALL,
                 "metrics": ["T1", "U", "S", "H", "AUSUC", "H_cal", "H_norm", "norm_ratio",
                             "train_loss", "held_out_loss", "held_out_cosine", "held_out_w2a",
                             "to_seen"],
                 "figures": ["bars", "curve", "classes", "ladder", "agreement"]},
        "subsets": {**common, "backbones": ["small"], "heads": ["last"], "seeds": 1,
                    "methods": ["conse", "mlp", "icis"], "n_seen": ["all", 6, 4],
                    "metrics": ["T1", "H"], "figures": ["efficiency"]},
        "own": {**common, "backbones": ["small"], "heads": ["own"], "seeds": 1,
                "methods": SOUND, "rescale": "transfer"},
        "transfer": {**common, "descriptors": ["att", "clip"], "backbones": ["frozen"],
                     "heads": ["imagenet"], "seeds": 1, "methods": ["conse", "smo", "icis"],
                     "rescale": "transfer"},
    }  # fmt: skip
    return made


def make_files(folder):
    """Write the checkpoint with its ten classes, their descriptors and validation images."""
    model = timm.create_model("resnet10t", num_classes=len(GIVEN_CLASSES))
    settings = {"input_size": (3, 32, 32), "crop_pct": 1.0, "interpolation": "bilinear"}
    model.pretrained_cfg.update(settings)
    timm.models.save_for_hf(
        model, folder / "frozen", model_config={"architecture": "resnet10t"},
        safe_serialization=True,
    )  # fmt: skip
    (folder / "names.txt").write_text("\n".join(GIVEN_CLASSES))
    rng = np.random.default_rng(0)
    values = {f"c{i}": rng.random(len(GIVEN_CLASSES)) for i in range(COMPONENTS)}
    pl.DataFrame({"class": GIVEN_CLASSES, **values}).write_csv(folder / "given.csv")
    (folder / "val").mkdir()
    rows = []
    for name in GIVEN_CLASSES:
        for number in range(2):
            file = f"{name}-{number}.png"
            pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "val" / file)
            rows.append({"file": file, "class": name, "split": "test_seen"})
    pl.DataFrame(rows).write_csv(folder / "val/splits.csv")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Run everything once; one row fails."""
    folder = tmp_path_factory.mktemp("rows")
    make_files(folder)
    write(folder / "run", experiment(folder))
    done = snakemake(folder / "run")
    assert (folder / "run" / layout.metrics("tiny")).is_file(), done.stdout + done.stderr
    return folder / "run", done


def metrics(folder):
    return pl.read_parquet(folder / layout.metrics("tiny"))


def test_every_registered_method_takes_part():
    assert {each["method"] for each in METHOD_SETTINGS.values()} == set(METHODS)


def test_a_failed_row_leaves_the_rest_complete_and_the_exit_status_says_so(finished):
    folder, done = finished
    assert done.returncode != 0
    assert "1 of the rows of table 'main' failed" in done.stderr
    assert "top is 99, but there are only 8 seen classes" in done.stderr
    frame = metrics(folder)
    failed = frame.filter(metric="failed")
    assert failed["variant"].unique().to_list() == ["top-99"]
    assert failed["seed"].sort().to_list() == [0, 1]
    [log] = {text.split("(log: ")[1].rstrip(")") for text in failed["problem"]}
    assert "top is 99" in (folder / log).read_text()
    table = (folder / layout.table("tiny", "main", "md")).read_text()
    rows = {line.split("|")[1].strip(): line for line in table.splitlines() if "|" in line}
    columns = next(iter(rows.values())).count("|") - 2  # but for the method's
    assert rows["ConSE, top 99"].count("failed") == columns > 10
    assert "failed" not in "".join(rows[name] for name in ("ConSE", "COSTA", "ICIS", "wDAE"))
    assert not (folder / layout.complete("tiny", "main")).exists()
    assert (folder / layout.complete("tiny", "subsets")).exists()
    assert (folder / layout.tracked("tiny")).exists()


def test_the_same_command_tries_failed_rows_again_and_nothing_else(finished, tmp_path):
    folder, _ = finished
    run = copy(folder, tmp_path / "run")
    before = sorted(path for path in run.rglob("*.parquet"))
    jobs = planned(run)
    assert sorted(path for path in run.rglob("*.parquet")) == before  # a dry run changes nothing
    assert jobs["cells"] == 1
    assert "train_head" not in jobs
    heads, evaluated = times(run, "results/**/*.safetensors"), times(run, METRICS)
    assert snakemake(run).returncode != 0
    assert times(run, "results/**/*.safetensors") == heads
    assert changed(evaluated, run, METRICS) == {"conse-top-99.parquet"}
    mended = json.loads((run / "experiment.json").read_text())
    mended["methods"]["greedy"] = {"method": "conse", "name": "ConSE, top 3", "top": 3}
    write(run, mended)
    done = snakemake(run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not len(metrics(run).filter(metric="failed"))
    assert planned(run) == {}


def test_diagnostics_are_there_for_whom_they_mean_something(finished):
    folder, _ = finished
    frame = metrics(folder).filter(head="linear-last_epochs-5", n_seen=8)
    have = {
        metric: set(frame.filter(metric=metric)["method"])
        for metric in ("AUSUC", "H_cal", "H_norm", "norm_ratio", "train_loss", "held_out_loss",
                       "held_out_cosine", "held_out_w2a", "to_seen")
    }  # fmt: skip
    everyone = set(METHODS)
    assert have["AUSUC"] == have["H_cal"] == have["to_seen"] == everyone
    # a scorer that is not linear has no rows, and so no norm
    linear = everyone - {"conse"}
    assert have["norm_ratio"] == have["H_norm"] == have["held_out_cosine"] == linear
    assert have["train_loss"] == {"mlp", "subreg", "icis", "wdae"}
    assert {"mlp", "subreg", "icis"} <= have["held_out_loss"]
    assert have["held_out_w2a"] == {"icis"}
    # one seed is run with classes held out; its offset serves all seeds
    assert frame.filter(metric="held_out_cosine")["seed"].unique().to_list() == [0]
    assert sorted(frame.filter(metric="H_cal")["seed"].unique()) == [0, 1]


def test_the_offset_gives_the_calibrated_accuracies(finished):
    folder, _ = finished
    frame = metrics(folder).filter(method="icis", head="linear-last_epochs-5", n_seen=8)
    cell = ("drawn", "small", "linear-last_epochs-5", "att", "icis-hidden-16_max-epochs-25")
    curves = read_frame(folder / layout.curves("tiny", *cell))
    for seed in (0, 1):
        of_seed = frame.filter(seed=seed)
        value = {row["metric"]: row["value"] for row in of_seed.iter_rows(named=True)}
        after = curves.filter(pl.col("seed") == seed, pl.col("offset") >= value["offset"])
        assert after["seen"][0] == pytest.approx(value["S_cal"])
        assert after["unseen"][0] == pytest.approx(value["U_cal"])
        plain = curves.filter(pl.col("seed") == seed, pl.col("offset") >= 0)
        assert plain["unseen"][0] == pytest.approx(value["U"])


def test_single_classes_average_to_the_metrics(finished):
    folder, _ = finished
    cell = ("drawn", "small", "linear-last_epochs-5", "att", "conse-default")
    classes = read_frame(folder / layout.classes("tiny", *cell)).filter(seed=0)
    frame = metrics(folder).filter(method="conse", variant="default", seed=0, n_seen=8)
    frame = frame.filter(head="linear-last_epochs-5")
    for metric, rows, column in (("S", True, "accuracy"), ("U", False, "accuracy"),
                                 ("T1", False, "zsl")):  # fmt: skip
        mean = classes.filter(seen=rows)[column].mean()
        assert mean == pytest.approx(frame.filter(metric=metric)["value"].item())


def test_subsets_are_nested_and_the_joint_head_keeps_every_seen_class(finished):
    from icis.scorers import load_scorers

    folder, _ = finished
    frame = metrics(folder).filter(method="icis", head="linear-last_epochs-5", seed=0)
    assert sorted(frame["n_seen"].unique()) == [4, 6, 8]
    known = frame.filter(metric="known_classes").sort("n_seen")["value"].to_list()
    assert known == [4, 6, 8]
    place = layout.cell("tiny", "drawn", "small", "linear-last_epochs-5", "att",
                        "icis-hidden-16_max-epochs-25@4-seen")  # fmt: skip
    scorers, about = load_scorers(folder / place / "seed-0.safetensors")
    assert len(scorers["joint"].classes) == 12
    assert about["known_classes"] == 4


def test_the_backbones_own_classifier_serves_as_seen_head(finished):
    folder, _ = finished
    heads = read_frame(folder / layout.seen_heads("drawn", "small", "given-own"))
    assert len(heads) == 8
    assert heads["seed"].null_count() == 8
    frame = metrics(folder).filter(head="given-own")
    assert set(frame["method"]) == set(METHODS)
    # the transfer step: predicted rows have about the seen rows' mean norm
    ratio = frame.filter(metric="norm_ratio")["value"]
    assert len(ratio) == len(SOUND) - 1
    assert ratio.is_between(0.9, 1.6).all()


def test_a_given_head_is_tested_on_another_data_sets_images(finished):
    folder, _ = finished
    frame = metrics(folder).filter(head="given-imagenet")
    assert frame["n_seen"].unique().to_list() == [10]
    for metric in ("T1", "U", "S", "H", "AUSUC"):
        assert len(frame.filter(metric=metric)) == 3
    assert frame.filter(metric="chance_all")["value"].unique().to_list() == [
        pytest.approx(100 / 14)
    ]
    assert "H_cal" not in frame["metric"].to_list()


def test_an_absent_optional_file_leaves_cells_empty_and_says_which(finished):
    folder, _ = finished
    table = (folder / layout.table("tiny", "transfer", "md")).read_text()
    assert "Left out, all rows on drawn / clip" in table
    row = next(line for line in table.splitlines() if line.startswith("| ICIS"))
    cells = [cell.strip() for cell in row.split("|")[2:-1]]
    assert all(cells[:4])
    assert cells[4:] == [""] * 4


def test_one_table_alone_computes_its_cells_only(finished, tmp_path):
    folder, _ = finished
    write(tmp_path / "run", experiment(folder.parent))
    jobs = planned(tmp_path / "run", layout.complete("tiny", "subsets").as_posix())
    assert "track" not in jobs
    # three cells on all seen classes stand in the table main too, six in this one alone
    assert jobs["cells"] == 2
    plan = Plan(read_experiment(tmp_path / "run/experiment.json"))
    batches = Batches(plan).of(plan.table_cells["subsets"])
    assert {cell.key for batch in batches for cell in batch.cells} == {
        cell.key for cell in plan.table_cells["subsets"]
    }


def test_every_figure_is_there(finished):
    folder, _ = finished
    for kind in ("bars", "curve", "classes", "ladder", "agreement"):
        for suffix in ("svg", "pdf", "png"):
            assert (folder / layout.figure("tiny", "main", kind, suffix)).stat().st_size > 1000
    page = (folder / layout.table("tiny", "main", "html")).read_text()
    assert page.count("<figure") == 5
    differences = pl.read_csv(folder / layout.differences("tiny", "main", "csv"))
    assert len(differences)
