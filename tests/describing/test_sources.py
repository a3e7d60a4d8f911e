"""Every kind of descriptors through the stages, for data sets and for given heads."""

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from icis import layout
from icis.artifacts import file_sha256, read_metadata, write_table
from icis.config import parse_experiment
from icis.datasets.descriptors import load_descriptors
from icis.datasets.index import Classes
from icis.describing.names import imagenet_wnids
from icis.errors import IcisError
from icis.plan import Plan
from icis.stages import describe, describe_head
from tests.describing.models import tiny_clip

CLASSES = Classes(("ox", "grizzly+bear", "zebra"), (True, True, False))
VECTORS = "grizzly_bear 1 0 0\nox 0 3 4\nzebra 0 0 2\nhorse 1 1 0\n"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Return the folder of a tiny CLIP with embeddings of 6."""
    return tiny_clip(tmp_path_factory.mktemp("clip"), 6)


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Return a plan with one descriptor of a data set of three classes, and of ImageNet's head."""
    monkeypatch.chdir(tmp_path)
    rows = [("o.png", "ox", "trainval"), ("b.png", "grizzly+bear", "trainval"),
            ("z.png", "zebra", "test_unseen")]  # fmt: skip
    frame = pl.DataFrame(rows, schema=["image", "class", "split"], orient="row")
    about = {"classes": CLASSES.as_metadata(), "sources": {}, "split_version": "own"}
    write_table(layout.index("zoo"), frame, about)
    (tmp_path / "zoo").mkdir()
    (tmp_path / "vectors.txt").write_text(VECTORS)

    def make(**source):
        head = {"kind": "given", "classes": "imagenet-1k", "descriptors": {"made": source}}
        data = {
            "name": "small",
            "datasets": {"zoo": {"kind": "images", "root": "zoo", "descriptors": {"made": source}}},
            "backbones": {"r18": {"model": "resnet18"}},
            "heads": {"imagenet": head},
            "methods": {"mlp": {"method": "mlp"}},
            "tables": {"main": {"datasets": ["zoo"], "backbones": ["r18"], "heads": ["imagenet"],
                                "descriptors": ["made"], "methods": ["mlp"]}},
        }  # fmt: skip
        return Plan(parse_experiment(data, source="e.yaml"))

    return make


def made():
    return load_descriptors(layout.descriptors("zoo", "made"))


def test_words_describe_a_data_set(plan, tmp_path):
    describe.run(plan(kind="words", vectors="vectors.txt"), "zoo", "made")
    assert made().classes == CLASSES
    np.testing.assert_allclose(made().vectors, [[0, 0.6, 0.8], [1, 0, 0], [0, 0, 1]], rtol=1e-6)
    about = read_metadata(layout.descriptors("zoo", "made"))
    assert about["sources"]["vectors.txt"] == file_sha256(tmp_path / "vectors.txt")
    assert about["words"]["whole_names"] == 3
    assert about["dim"] == 3
    json.dumps(about)


def test_words_are_scaled_only_where_asked_and_names_may_be_given(plan, tmp_path):
    (tmp_path / "names.txt").write_text("zebra\thorse zebra\nox\tox\ngrizzly+bear\tgrizzly bear\n")
    source = {"kind": "words", "vectors": "vectors.txt", "names": "names.txt", "normalize": "none"}
    describe.run(plan(**source), "zoo", "made")
    np.testing.assert_array_equal(made().vectors, [[0, 3, 4], [1, 0, 0], [0.5, 0.5, 1]])
    assert "names.txt" in read_metadata(layout.descriptors("zoo", "made"))["sources"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [("zebra 0 0 0", "'zebra' is all zeros"), ("zebra 2 2 2", "'zebra' is constant (2)"),
     ("zebra nan 0 1", "rows hold NaN or infinity, the first is row 3 (zebra)"),
     ("horse 1 2 3", "no word of the names of 1 of 3 classes: zebra")],
)  # fmt: skip
def test_word_vectors_that_say_nothing_are_refused(plan, tmp_path, line, expected):
    (tmp_path / "vectors.txt").write_text(VECTORS.replace("zebra 0 0 2", line))
    with pytest.raises(IcisError) as caught:
        describe.run(plan(kind="words", vectors="vectors.txt"), "zoo", "made")
    assert expected in str(caught.value)
    assert not layout.descriptors("zoo", "made").exists()


def test_text_describes_a_data_set(plan, clip):
    describe.run(plan(kind="text", model=f"local-dir:{clip}"), "zoo", "made")
    assert made().vectors.shape == (3, 6)
    np.testing.assert_allclose(np.linalg.norm(made().vectors, axis=1), 1, rtol=1e-6)
    about = read_metadata(layout.descriptors("zoo", "made"))
    assert about["text"]["names"] == ["ox", "grizzly bear", "zebra"]
    assert about["text"]["device"] == "cpu"
    assert len(about["sources"]) == 2  # the weights, and the index


def test_text_describes_imagenets_own_head(plan, clip):
    prepared = plan(kind="text", model=f"local-dir:{clip}", templates=["{name}"])
    describe_head.run(prepared, "given-imagenet", "made")
    path = layout.head_descriptors("given-imagenet", "made")
    found = load_descriptors(path)
    assert found.classes.names == imagenet_wnids()
    assert found.vectors.shape == (1000, 6)
    about = read_metadata(path)
    assert about["text"]["names"][:2] == ["tench", "goldfish"]
    assert about["sources"]["timm ImageNetInfo"][0].isdigit()


def test_words_describe_imagenets_own_head(plan, tmp_path):
    rng = np.random.default_rng(0)
    names = [f"word{row}" for row in range(1000)]
    lines = [f"{name} {' '.join(map(str, rng.normal(size=5)))}\n" for name in names]
    (tmp_path / "vectors.txt").write_text("".join(lines))
    pairs = zip(imagenet_wnids(), names, strict=True)
    (tmp_path / "names.txt").write_text("".join(f"{wnid}\t{name}\n" for wnid, name in pairs))
    prepared = plan(kind="words", vectors="vectors.txt", names="names.txt")
    describe_head.run(prepared, "given-imagenet", "made")
    found = load_descriptors(layout.head_descriptors("given-imagenet", "made"))
    row = np.array(lines[7].split()[1:], dtype=float)
    np.testing.assert_allclose(found.vectors[7], row / np.linalg.norm(row), rtol=1e-6)


def test_descriptors_from_files_need_no_text_encoder():
    code = (
        "import sys, icis.stages.describe, icis.stages.describe_head; "
        "sys.exit(bool({'open_clip', 'transformers', 'sentence_transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
