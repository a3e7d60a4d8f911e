"""Extraction with a real checkpoint on real photographs."""

import tarfile

import numpy as np
import polars as pl
import pytest

from icis import layout
from icis.artifacts import write_table
from icis.backbones import own_classifier
from icis.config import parse_experiment
from icis.features import load_features
from icis.plan import Plan
from icis.stages import extract
from tests.pipeline import tiny

pytestmark = [pytest.mark.slow, pytest.mark.real_data]


@pytest.fixture
def plan(real_data, tmp_path, monkeypatch):
    """Return a plan of the 1,000 packed samples of ImageNet."""
    monkeypatch.chdir(tmp_path)
    tar = real_data / "images/imagenet-samples-256.tar"
    with tarfile.open(tar) as archive:
        names = sorted(name for name in archive.getnames() if name.endswith(".JPEG"))
    wnids = [name.rsplit("/", 1)[-1].removesuffix(".JPEG") for name in names]
    frame = pl.DataFrame({"image": names, "class": wnids, "split": ["test_seen"] * len(names)})
    classes = {"names": wnids, "is_seen": [True] * len(wnids)}
    about = {"sources": {}, "split_version": "none", "classes": classes}
    write_table(layout.index("samples"), frame, about)

    def make(precision):
        experiment = tiny()
        experiment["datasets"] = {
            "samples": {
                "kind": "images", "root": str(tar),  "descriptors": {"att": {"file": "att.csv"}},
            }
        }  # fmt: skip
        folder = real_data / "backbones/mobilenetv2_100.coral_in1k"
        experiment["backbones"] = {
            "net": {"weights": f"local-dir:{folder}", "precision": precision}
        }
        experiment["tables"]["main"] |= {"datasets": ["samples"], "backbones": ["net"]}
        return Plan(parse_experiment(experiment, source="here"))

    return make


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_checkpoints_own_head_knows_the_photographs(plan, precision):
    """README of the real data: 87.6 % top-1 on these images."""
    made = plan(precision)
    extract.run(made, "samples", "net", threads=2, device="cpu")
    found = load_features(layout.features("samples", "net"))
    weight, bias = own_classifier(made.backbone("net"))
    # ImageNet's order is that of the sorted wnids, and so is the index's
    assert found.rows["class"].to_list() == sorted(found.rows["class"])
    top1 = (found.vectors @ weight.T + bias).argmax(axis=1) == np.arange(1000)
    print(f"top-1 of {precision}: {100 * top1.mean():.1f}")
    assert top1.mean() > 0.8
    if precision == "bfloat16":
        cosine = found.metadata["cosine_to_float32"]
        print(f"cosine of bfloat16 to float32: {cosine}")
        assert cosine["mean"] > 0.999
        assert cosine["min"] > 0.99
