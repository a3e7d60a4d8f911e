"""A training run that is killed and started again ends as if nothing had been."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest
import torch

from icis import layout
from tests import pipeline
from tests.pipeline import environment, write
from tests.small_images import (
    CLASSES,
    COUNT,
    assert_same_weights,
    tiny,
    trained_on,
    with_dropout,
    write_images,
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def dropout(tmp_path_factory):
    return with_dropout(tmp_path_factory.mktemp("dropout"))


class StopError(Exception):
    """Stands for a kill between two epochs."""


def stopped(images, config, partial, epoch):
    def progress(done, loss):
        if done == epoch:
            raise StopError

    with pytest.raises(StopError):
        trained_on(images, config, partial=partial, progress=progress)


RECIPES = {
    "last": {},
    "holdout": {"selection": "holdout", "holdout": 0.3},
    "frozen": {"frozen_epochs": 2},
    "float16": {"precision": "float16"},
}


@pytest.mark.parametrize("name", RECIPES)
def test_training_goes_on_bit_by_bit(images, dropout, tmp_path, name):
    config = tiny(model="", weights=dropout, epochs=4, learning_rate=3e-3, **RECIPES[name])
    calm = trained_on(images, config)
    seen = []
    for epoch in (1, 3):
        stopped(images, config, tmp_path, epoch)
        torch.manual_seed(epoch)
        np.random.seed(epoch)
    again = trained_on(
        images, config, partial=tmp_path, progress=lambda epoch, loss: seen.append(epoch)
    )
    assert seen == [4]
    assert_same_weights(again, calm)
    assert again.history.equals(calm.history)
    assert again.epoch == calm.epoch
    after_the_end = trained_on(images, config, partial=tmp_path)
    assert_same_weights(after_the_end, calm)
    assert {each.name for each in tmp_path.iterdir()} == {"checkpoint.json", "epoch-4.safetensors"}


@pytest.mark.parametrize("damage", ["bit", "short", "gone", "mark", "empty"])
def test_a_damaged_checkpoint_starts_from_the_beginning(images, tmp_path, capsys, damage):
    config = tiny(epochs=3)
    stopped(images, config, tmp_path, 2)
    mark, tensors = tmp_path / "checkpoint.json", tmp_path / "epoch-2.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-1] ^= 1
    if damage == "bit":
        tensors.write_bytes(data)
    elif damage == "short":
        tensors.write_bytes(data[:1000])
    elif damage == "gone":
        tensors.unlink()
    else:
        mark.write_text("" if damage == "empty" else mark.read_text()[:-20])
    seen = []
    again = trained_on(
        images, config, partial=tmp_path, progress=lambda epoch, loss: seen.append(epoch)
    )
    assert seen == [1, 2, 3]
    assert_same_weights(again, trained_on(images, config))
    told = [line for line in capsys.readouterr().err.splitlines() if "damaged" in line]
    assert len(told) == 1
    assert "training starts from the beginning" in told[0]


def test_a_kill_while_saving_leaves_the_epoch_before(images, tmp_path, monkeypatch):
    config = tiny(epochs=3)
    stopped(images, config, tmp_path, 1)
    (tmp_path / "epoch-2.safetensors").write_bytes(b"whole, but not named yet")
    (tmp_path / ".epoch-2.safetensors.1.tmp").write_bytes(b"half")
    seen = []
    trained_on(images, config, partial=tmp_path, progress=lambda epoch, loss: seen.append(epoch))
    assert seen == [2, 3]
    assert {each.name for each in tmp_path.iterdir()} == {"checkpoint.json", "epoch-3.safetensors"}


# --- the stage --------------------------------------------------------------------------------

EPOCHS = 8


def experiment(weights, **training):
    """Return an experiment on the small images, whose test images cannot be read."""
    made = pipeline.tiny()
    made["datasets"] = {
        "small": {
            "kind": "images", "root": "images", "splits": "splits.csv",
            "descriptors": {"att": {"file": "att.csv"}},
        }
    }  # fmt: skip
    train = {"epochs": EPOCHS, "batch_size": 8, "selection": "holdout", "holdout": 0.3, **training}
    network = {"model": "", "weights": weights, "transform": {"image_size": 32, "crop_pct": 1.0}}
    made["backbones"] = {"net": {**network, "train": train}}
    made["tables"]["main"] |= {"datasets": ["small"], "backbones": ["net"]}
    return made


def prepare(folder, weights, **training):
    """Write images, their table of splits and the index; return the command that trains."""
    write_images(folder / "images")
    rows = [(f"image{number:02d}.png", f"c{number % CLASSES}", "trainval")
            for number in range(COUNT)]  # fmt: skip
    for name, split in (("c0", "test_seen"), ("new", "test_unseen")):
        (folder / f"images/{split}.png").write_bytes(b"no image")
        rows.append((f"{split}.png", name, split))
    table = pl.DataFrame(rows, schema=["file", "class", "split"], orient="row")
    table.write_csv(folder / "images/splits.csv")
    names = sorted({name for _, name, _ in rows})
    values = {"class": names, "a": range(len(names)), "b": [1] * len(names)}
    pl.DataFrame(values).write_csv(folder / "images/att.csv")
    file = write(folder, experiment(weights, **training))
    run = subprocess.run(
        icis(file, "index", "small"), cwd=folder, capture_output=True, text=True, check=False,
        env=environment(),
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    return icis(file, "finetune", "small", "net", "--device", "cpu", "--threads", "1")


def icis(file, *arguments):
    return [sys.executable, "-m", "icis", *arguments, "--config", str(file)]


def finished(command, folder):
    run = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, env=environment()
    )
    assert run.returncode == 0, run.stderr
    return run.stderr


def test_a_killed_stage_goes_on_and_ends_with_the_same_bits(tmp_path, dropout):
    calm, shaken = tmp_path / "calm", tmp_path / "shaken"
    finished(prepare(calm, dropout), calm)
    command = prepare(shaken, dropout)
    partial = shaken / layout.partial_backbone("small", "net")
    (partial / "other").mkdir(parents=True)
    process = subprocess.Popen(
        command, cwd=shaken, env=environment(), stderr=subprocess.DEVNULL, start_new_session=True
    )
    while not list(partial.glob("*/checkpoint.json")):
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(json.loads(next(partial.glob("*/checkpoint.json")).read_text())["facts"]["history"])
    assert done < EPOCHS
    told = finished(command, shaken)
    assert f"training goes on after epoch {done} of {EPOCHS}" in told
    assert not partial.exists()
    folders = [each / layout.backbone("small", "net") for each in (calm, shaken)]
    for name in ("config.json", "model.safetensors", "history.parquet", "trained.json"):
        one, other = ((folder / name).read_bytes() for folder in folders)
        assert one == other, name
    history = pl.read_parquet(folders[0] / "history.parquet")
    accuracies = history["holdout_accuracy"].to_list()
    about = json.loads((folders[0] / "trained.json").read_text())
    best = accuracies.index(max(accuracies)) + 1
    assert about["selection"] == f"holdout (epoch {best} of {EPOCHS})"
    assert about["precision"] == "float32"
    start = dropout.removeprefix("local-dir:")
    assert f"{start}/model.safetensors" in about["sources"]
    again = (folders[1] / "trained.json").stat().st_mtime_ns
    finished(command, shaken)  # the same model is there: nothing to do
    assert (folders[1] / "trained.json").stat().st_mtime_ns == again
