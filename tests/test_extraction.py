"""Extraction in shards: the same features however it is run, and however often it is killed."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from icis import layout
from icis.backbones import LoadedBackbone
from icis.compat import timm
from icis.config import parse_experiment
from icis.errors import IcisError
from icis.extraction.shards import Shards, model_hash
from icis.features import load_features
from icis.plan import Plan
from icis.stages import extract
from icis.stages import index as index_stage
from tests.pipeline import environment, tiny

COUNT, SHARD = 50, 16
PATH = layout.features("pictures", "net")
PARTIAL = layout.partial_features("pictures", "net")


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Make 50 images and a checkpoint once; tests work on links to them."""
    folder = tmp_path_factory.mktemp("template")
    generator = np.random.default_rng(0)
    (folder / "images").mkdir()
    rows = ["file,class,split"]
    for number in generator.permutation(COUNT):
        name = f"{number:02d}.png"
        pixels = generator.integers(0, 256, (40, 36, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name)
        split = "test_unseen" if number % 5 == 0 else "trainval" if number % 2 else "test_seen"
        rows.append(f"{name},{'auk' if number % 5 == 0 else 'wren'},{split}")
    (folder / "images/splits.csv").write_text("\n".join(rows) + "\n")
    save_checkpoint(folder / "checkpoint", seed=0)
    return folder


def save_checkpoint(folder, seed):
    torch.manual_seed(seed)
    model = timm.create_model("resnet10t", num_classes=3)
    model.pretrained_cfg.update(input_size=(3, 32, 32), crop_pct=1.0)
    timm.models.save_for_hf(model, folder, safe_serialization=True)


def prepare(template, folder, monkeypatch):
    """Make a folder of links to the images, with their index, the current one."""
    monkeypatch.chdir(folder)
    (folder / "images").mkdir()
    for path in (template / "images").iterdir():
        os.link(path, folder / "images" / path.name)
    (folder / "checkpoint").symlink_to(template / "checkpoint")
    index_stage.run(planned(), "pictures")


@pytest.fixture
def workplace(template, tmp_path, monkeypatch):
    prepare(template, tmp_path, monkeypatch)
    return tmp_path


def planned(**backbone):
    experiment = tiny()
    descriptors = {"att": {"file": "att.csv"}}
    experiment["datasets"] = {
        "pictures": {"kind": "images", "root": "images", "descriptors": descriptors}
    }
    net = {"weights": "local-dir:checkpoint", "precision": "float32", "batch_size": 4}
    experiment["backbones"] = {"net": {**net, **backbone}}
    experiment["tables"]["main"] |= {"datasets": ["pictures"], "backbones": ["net"]}
    return Plan(parse_experiment(experiment, source="here"))


def run(*, threads=1, device="cpu", shard=SHARD, **backbone):
    extract.run(planned(**backbone), "pictures", "net", threads=threads, device=device, shard=shard)
    return load_features(PATH)


def parts():
    return {path.name: path.stat().st_mtime_ns for path in PARTIAL.glob("*/*.parquet")}


def break_image(name):
    path = Path("images") / name
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:60])
    return data


@pytest.fixture
def undisturbed(workplace):
    """Return the bytes of an undisturbed run's file."""
    run()
    data = PATH.read_bytes()
    PATH.unlink()
    return data


# --- one file, however it is made -------------------------------------------------------------


def test_rows_are_the_indexs_and_vectors_the_models(workplace):
    found = run()
    index = pl.read_parquet(layout.index("pictures"))
    assert found.rows.equals(index.select("image", "class", "split"))
    assert found.rows["image"].to_list() != sorted(found.rows["image"])
    assert found.vectors.shape == (COUNT, 512)
    model = timm.create_model("local-dir:checkpoint", pretrained=True, num_classes=0).eval()
    data = timm.data.resolve_model_data_config(model)
    transform = timm.data.create_transform(**data, is_training=False)
    for row in (0, 15, 16, COUNT - 1):
        image = Image.open(f"images/{found.rows['image'][row]}")
        with torch.no_grad():
            expected = model(transform(image)[None])[0].numpy()
        np.testing.assert_allclose(found.vectors[row], expected, atol=1e-5)


def test_metadata_tells_what_the_vectors_come_from(workplace, capsys):
    about = run().metadata
    assert about["precision"] == "float32"
    assert about["device"] == "cpu"
    assert "cosine_to_float32" not in about
    assert about["dim"] == 512
    told = capsys.readouterr().err
    assert "features pictures/net: 50 images in" in told
    assert "float32, batches of 4, cpu, 1 threads" in told


@pytest.mark.parametrize("settings", [
    {"threads": 2},
    {"threads": 3, "device": "cpu,cpu"},
])  # fmt: skip
def test_the_file_does_not_depend_on_threads_and_devices(undisturbed, settings):
    run(**settings)
    assert PATH.read_bytes() == undisturbed
    assert not PARTIAL.exists()


def test_worker_processes_give_the_same_file(undisturbed, monkeypatch):
    """As they decode for a GPU."""
    from icis.extraction import run as running
    from icis.extraction.decoding import ahead

    monkeypatch.setattr(running, "_decoded", lambda chunks, *_: ahead(chunks, 2, pin=False))
    run()
    assert PATH.read_bytes() == undisturbed


def test_vectors_do_not_depend_on_the_size_of_shards(undisturbed):
    one = load_vectors(undisturbed)
    assert np.array_equal(one, run(shard=4).vectors)
    assert np.array_equal(one, run(shard=1000).vectors)


def load_vectors(data):
    Path("copy.parquet").write_bytes(data)
    return load_features(Path("copy.parquet")).vectors


# --- kills, damage, changes -------------------------------------------------------------------

KILLED = """
import os, signal, sys
from tests.test_extraction import run

fsync, calls = os.fsync, []

def killing(file):
    if "/data/" in os.readlink(f"/proc/self/fd/{{file}}"):  # not what is remembered of the code
        calls.append(file)
    if len(calls) == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(file)

os.fsync = killing
run(device="{device}")
"""


def killed(at, device="cpu"):
    """Run in a process that kills itself while it writes the ``at``-th file."""
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(at=at, device=device)],
        capture_output=True, text=True, check=False, env=environment(PYTHONPATH=str(root)),
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.fixture(scope="module")
def after_kill(template, tmp_path_factory):
    """Return the folder of what a run leaves that is killed while it writes its last shard."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        prepare(template, folder, patch)
        killed(4)
    return folder / "data/partial"


@pytest.fixture
def with_three_shards(after_kill, workplace):
    shutil.copytree(after_kill, workplace / "data/partial", dirs_exist_ok=True)
    return parts()


@pytest.mark.parametrize("at", [3, 5])
def test_a_killed_run_is_taken_up_where_it_was(undisturbed, capsys, at):
    killed(at)
    before = parts()
    assert len(before) == at - 1
    assert not PATH.exists()
    assert len(list(PARTIAL.glob("*/.part-*.tmp"))) == (at < 5)  # killed while it wrote
    run()
    assert PATH.read_bytes() == undisturbed
    told = capsys.readouterr().err
    rows = min(COUNT, SHARD * (at - 1))
    assert (f"{rows} images are done already ({at - 1} shards)" in told) == (at > 1)
    assert (f"net: {COUNT - rows} images in" in told) == (at < 5)
    assert not PARTIAL.exists()


def test_finished_shards_are_not_touched(with_three_shards):
    before = with_three_shards
    broken = pl.read_parquet(layout.index("pictures"))["image"][COUNT - 1]
    break_image(broken)
    with pytest.raises(IcisError, match="1 of 50 images cannot be read"):
        run()
    assert parts() == before
    assert len(before) == 3


def test_a_device_that_dies_is_named(undisturbed):
    from icis.extraction import run as running

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "_process", dying)
        with pytest.raises(IcisError, match=r"device cpu ended with exit status 7.*is kept"):
            run(device="cpu,cpu")
    assert not PATH.exists()
    run()
    assert PATH.read_bytes() == undisturbed


def dying(*_):
    os._exit(7)


@pytest.mark.parametrize("damage", ["cut", "flipped", "other rows", "other key"])
def test_a_damaged_shard_is_computed_again(undisturbed, with_three_shards, capsys, damage):
    path = next(PARTIAL.glob("*/part-00001.parquet"))
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "other rows":
        path.write_bytes(path.with_name("part-00000.parquet").read_bytes())
    else:
        names = pl.read_parquet(layout.index("pictures"))["image"].to_list()
        Shards(path.parent, names, "another", SHARD).write(1, np.ones((SHARD, 512), "f4"), {})
    run()
    assert PATH.read_bytes() == undisturbed
    assert "32 images are done already (2 shards)" in capsys.readouterr().err


@pytest.mark.parametrize("change", ["weights", "precision", "index", "transform"])
def test_what_belongs_to_other_settings_is_not_taken_and_goes(with_three_shards, capsys, change):
    [old] = PARTIAL.iterdir()
    settings = {}
    if change == "weights":
        Path("checkpoint").unlink()
        save_checkpoint(Path("checkpoint"), seed=1)
    elif change == "precision":
        settings = {"precision": "bfloat16"}
    elif change == "transform":
        settings = {"transform": {"crop_pct": 0.9}}
    else:
        lines = Path("images/splits.csv").read_text().splitlines()
        Path("images/splits.csv").unlink()
        Path("images/splits.csv").write_text("\n".join(lines[:-1]) + "\n")
        index_stage.run(planned(), "pictures")
    found = run(**settings)
    assert "done already" not in capsys.readouterr().err
    assert len(found.vectors) == COUNT - (change == "index")
    assert not old.exists()


def test_batch_size_and_reporting_do_not_make_features_stale():
    one, other = planned(), planned(batch_size="auto", unreadable="stop")
    assert one.features_fingerprint("pictures", "net") == other.features_fingerprint(
        "pictures", "net"
    )
    assert one.features_fingerprint("pictures", "net") != planned(
        precision="bfloat16"
    ).features_fingerprint("pictures", "net")


def test_a_models_hash_knows_weights_statistics_and_structure():
    def hashed(change=lambda model: None, **settings):
        torch.manual_seed(0)
        model = timm.create_model("mobilenetv2_035", num_classes=0, **settings)
        change(model)
        return model_hash(model)

    def statistics(model):
        model.bn1.running_mean[3] += 1e-3

    assert hashed() == hashed()
    assert len({hashed(), hashed(statistics), hashed(pad_type="same")}) == 3


# --- images that cannot be read ---------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
def test_all_unreadable_images_are_listed_and_their_shards_alone_computed_later(
    undisturbed, capsys, device
):
    names = pl.read_parquet(layout.index("pictures"))["image"].to_list()
    bad = {name: break_image(name) for name in (names[2], names[14], names[40])}
    Path("images", names[41]).rename("away.png")
    with pytest.raises(IcisError) as caught:
        run(device=device)
    told = str(caught.value)
    assert "4 of 50 images cannot be read" in told
    for name in bad:
        assert f"image '{name}' is unreadable: " in told
    assert f"{names[41]} cannot be read: No such file" in told
    assert sorted(parts()) == ["part-00001.parquet", "part-00003.parquet"]
    assert not PATH.exists()
    for name, data in bad.items():
        Path("images", name).write_bytes(data)
    Path("away.png").rename(f"images/{names[41]}")
    capsys.readouterr()
    run()
    assert "features pictures/net: 32 images in" in capsys.readouterr().err
    assert PATH.read_bytes() == undisturbed


def test_a_long_list_is_cut_off(workplace):
    for name in pl.read_parquet(layout.index("pictures"))["image"][:30]:
        break_image(name)
    with pytest.raises(IcisError, match=r"(?s)30 of 50 images.*… and 10 more") as caught:
        run()
    assert str(caught.value).count("is unreadable") == 20


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
def test_stop_ends_at_the_first(workplace, device):
    name = pl.read_parquet(layout.index("pictures"))["image"][20]
    break_image(name)
    with pytest.raises(IcisError, match=f"^image '{name}' is unreadable: [^\n]+$"):
        run(device=device, unreadable="stop")
    assert not PATH.exists()


# --- disk, devices, settings ------------------------------------------------------------------


@pytest.mark.parametrize("where", ["shard", "file"])
def test_a_full_disk_is_named_and_leaves_nothing_half(undisturbed, where):
    fsync = os.fsync

    def full(file):
        path = str(Path(f"/proc/self/fd/{file}").readlink())
        if ("partial" in path) == (where == "shard"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(IcisError, match="no space is left on the disk; make room, then run"):
            run()
    assert not PATH.exists()
    assert len(parts()) == (0 if where == "shard" else 4)
    assert not list(Path("data").rglob("*.tmp"))
    run()
    assert PATH.read_bytes() == undisturbed


def test_features_that_are_no_numbers_are_named(workplace):
    from icis import backbones

    class Broken(torch.nn.Module):
        def forward(self, pixels):
            return pixels.mean((2, 3)) / 0

    data = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (1,) * 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            backbones, "load_backbone", lambda *_: LoadedBackbone(Broken(), data, "broken")
        )
        with pytest.raises(IcisError, match=r"features: 16 of 16 rows hold NaN or infinity"):
            run()


def test_the_verb_extracts_on_devices_by_list(undisturbed):
    file = Path("experiment.json")
    file.write_text(json.dumps(planned().experiment.identity()))
    command = [sys.executable, "-m", "icis", "extract", "pictures", "net", "--config", str(file)]
    done = subprocess.run(
        [*command, "--threads", "2", "--device", "cpu,cpu"],
        capture_output=True, text=True, check=False, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "cpu, 2 threads" in done.stderr  # of one shard there is nothing to deal out
    # torch's own threads may change the rounding
    np.testing.assert_allclose(load_features(PATH).vectors, load_vectors(undisturbed), atol=1e-5)


def test_a_device_that_there_is_not_is_named_before_any_work(workplace):
    with pytest.raises(IcisError, match="'gpu' should be auto, cpu, cuda, cuda:N, or a list"):
        run(device="cpu,gpu")
    assert not PARTIAL.exists()
