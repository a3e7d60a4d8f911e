"""Pretrained weights: from the hub (played here), from folders, and everything wrong with them."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from icis.artifacts import file_sha256
from icis.backbones import create_model, load_backbone, own_classifier, weights_identity
from icis.compat import timm
from icis.config import Backbone
from icis.errors import IcisError
from tests.hub import HubServer, tiny_checkpoint

SCRIPT = """
import json, sys, time
import numpy as np, torch
from icis.backbones import (
    architecture_of, create_model, load_backbone, own_classifier, weights_identity
)
from icis.config import Backbone
from icis.errors import IcisError

folder, *configs = sys.argv[1:]
for number, text in enumerate(configs):
    config = Backbone(**json.loads(text))
    began = time.perf_counter()
    try:
        whole = create_model(config)
    except IcisError as error:
        print(json.dumps({"error": str(error)}))
        continue
    seconds = time.perf_counter() - began
    loaded = load_backbone(config)
    with torch.inference_mode():
        features = loaded.model(torch.linspace(-1, 1, 3 * 160 * 160).view(1, 3, 160, 160))
    weight, bias = own_classifier(config)
    np.savez(f"{folder}/{number}.npz", features=features.numpy(), weight=weight, bias=bias)
    print(json.dumps({
        "architecture": loaded.architecture, "seconds": seconds, "classes": whole.num_classes,
        "data": {key: str(value) for key, value in loaded.data.items()},
        "identity": weights_identity(config),
    }))
"""
NAME = "timm/resnet101.tv_in1k"
PRETRAINED = {"model": "resnet101.tv_in1k"}


def start(folder, environment, *configs):
    """Load the models in a new process, which prints a line for each."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", SCRIPT, str(folder), *map(json.dumps, configs)]
    return subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def results(process):
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return [json.loads(line) for line in out.splitlines()]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Return a hub: a tiny network under a large one's name, others, and broken ones."""
    folder = tmp_path_factory.mktemp("hub")
    tiny_checkpoint(folder, "test_resnet", NAME, seed=1)
    tiny_checkpoint(folder, "test_vit", "some/vit", classes=10, seed=2)
    tiny_checkpoint(folder, "test_resnet", "bad/pickle", classes=3)
    (folder / "bad/pickle/model.safetensors").rename(folder / "bad/pickle/pytorch_model.bin")
    return HubServer(folder, folder.parent / f"{folder.name}-cache")


@pytest.fixture(scope="module")
def loaded(hub, tmp_path_factory):
    """Return what processes print: with the hub, without it, and without hub and cache."""
    folder = tmp_path_factory.mktemp("loaded")
    with hub as environment:
        commit = hub.commit("some/vit")
        online = results(
            start(
                folder / "online",
                environment,
                PRETRAINED,
                {"weights": f"hf-hub:some/vit@{commit}"},
                {"weights": "hf-hub:some/vit@v9"},
                {"weights": "hf-hub:some/nothing"},
                {"weights": "hf-hub:bad/pickle"},
                {"model": "resnet101.no_such"},
                {"model": "resnet1001"},
            )
        )
        asked = list(hub.requests)
    empty = {**environment, "HF_HOME": f"{folder}/empty", "HF_HUB_CACHE": f"{folder}/empty/hub"}
    nothing = start(folder / "nothing", empty, PRETRAINED)  # the client tries again for 23 s
    offline = results(start(folder / "offline", environment, PRETRAINED))
    return folder, online, asked, offline, nothing


def test_pretrained_weights_are_what_the_hub_repository_says(hub, loaded):
    folder, (first, *_), _, _, _ = loaded
    assert first["architecture"] == "test_resnet"
    assert first["classes"] == 1000
    assert first["data"]["input_size"] == "(3, 160, 160)"
    assert first["data"]["crop_pct"] == "0.95"
    model = timm.create_model(f"local-dir:{hub.folder / NAME}", pretrained=True, num_classes=0)
    with torch.inference_mode():
        expected = model.eval()(torch.linspace(-1, 1, 3 * 160 * 160).view(1, 3, 160, 160))
    with np.load(folder / "online/0.npz") as found:
        np.testing.assert_allclose(found["features"], expected.numpy(), rtol=1e-5)
        tensors = load_file(hub.folder / NAME / "model.safetensors")
        assert found["weight"].shape == (1000, 96)
        assert np.array_equal(found["weight"], tensors["fc.weight"].numpy())
        assert np.array_equal(found["bias"], tensors["fc.bias"].numpy())


def test_hub_weights_are_identified_by_commit_and_hash(hub, loaded):
    _, (first, vit, *_), _, _, _ = loaded
    for found, name in ((first, NAME), (vit, "some/vit")):
        place = f"hf-hub:{name}@{hub.commit(name)}"
        assert found["identity"] == {
            f"{place}/{file}": file_sha256(hub.folder / name / file)
            for file in ("config.json", "model.safetensors")
        }


def test_a_repository_may_be_named_with_its_revision(loaded):
    _, (_, vit, *_), _, _, _ = loaded
    assert vit["architecture"] == "test_vit"
    assert vit["classes"] == 10


def test_the_client_fetches_each_file_once(loaded):
    asked = loaded[2]
    fetched = [each for each in asked if each.startswith("GET") and "safetensors" in each]
    assert len(fetched) == len(set(fetched)) == 2


def test_without_the_hub_the_cache_serves(loaded):
    folder, (first, *_), _, (again,), _ = loaded
    assert again["identity"] == first["identity"]
    with np.load(folder / "online/0.npz") as one, np.load(folder / "offline/0.npz") as other:
        assert np.array_equal(one["features"], other["features"])


@pytest.mark.parametrize(
    ("number", "parts"),
    [
        (2, ["some/vit has no revision 'v9'", "local-dir:FOLDER"]),
        (3, ["no repository some/nothing", "check the name", "local-dir:FOLDER"]),
        (4, ["bad/pickle should have config.json and model.safetensors", "local-dir:FOLDER"]),
        (5, ["resnet101 has no weights 'no_such'", "tv_in1k"]),
        (6, ["knows no 'resnet1001'; did you mean 'resnet101'"]),
    ],
)
def test_what_is_not_on_the_hub_is_named(loaded, number, parts):
    error = loaded[1][number]["error"]
    assert "\n" not in error
    for part in parts:
        assert part in error


def test_a_damaged_cache_is_found_out(hub, loaded, tmp_path):
    """Also where only a bit of the tensors is another."""
    with hub as environment:
        fresh = {**environment, "HF_HOME": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub")}
        assert "identity" in results(start(tmp_path / "one", fresh, PRETRAINED))[0]
        blob = next(tmp_path.rglob("model.safetensors")).resolve()
        data = bytearray(blob.read_bytes())
        data[-1] ^= 1
        blob.write_bytes(data)
        error = results(start(tmp_path / "two", fresh, PRETRAINED))[0]["error"]
    assert "is damaged (its SHA-256 is not" in error
    assert "delete it and fetch it anew" in error


def test_without_hub_and_cache_one_is_told_what_to_do(loaded):
    error = results(loaded[4])[0]["error"]
    assert "\n" not in error
    for part in ("cannot be reached", "not in the cache", "HF_ENDPOINT", "local-dir:FOLDER"):
        assert part in error


# --- folders ----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    return tiny_checkpoint(tmp_path, "test_resnet", "a/b", classes=7)


def local(folder, **settings):
    return Backbone(weights=f"local-dir:{folder}", **settings)


def change(folder, **tensors):
    """Write other tensors, None for none."""
    path = folder / "model.safetensors"
    changed = {**load_file(path), **{key.replace("__", "."): v for key, v in tensors.items()}}
    save_file({key: value for key, value in changed.items() if value is not None}, path)


@pytest.mark.parametrize("model", ["", "test_resnet", "test_resnet.r160_in1k"])
def test_a_folder_is_loaded_with_or_without_its_models_name(folder, model):
    weight, bias = own_classifier(local(folder, model=model))
    assert weight.shape == (7, 96)
    assert bias.shape == (7,)
    tensors = load_file(folder / "model.safetensors")
    found = create_model(local(folder), num_classes=0).state_dict()
    assert set(tensors) - set(found) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, tensors[key]) for key, value in found.items())


def test_a_folder_of_another_model_than_named_is_refused(folder):
    with pytest.raises(IcisError, match=r"model is resnet101\.tv_in1k, but .* says test_resnet"):
        load_backbone(local(folder, model="resnet101.tv_in1k"))


@pytest.mark.parametrize("classes", [None, 0, 4])
@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        (
            {"conv1__0__weight": torch.zeros(9, 3, 3, 3)},
            r"1 of another shape: conv1\.0\.weight is \[9, 3, 3, 3\]",
        ),
        (
            {"fc__weight": torch.zeros(5, 96)},
            r"1 of another shape: fc\.weight is \[5, 96\], not \[7,",
        ),
        ({"bn1__weight": None}, r"1 missing: bn1\.weight; put"),
        ({"more__weight": torch.zeros(1)}, r"1 not in the model: more\.weight; put"),
    ],
)
def test_tensors_that_do_not_fit_are_named(folder, tensors, told, classes):
    change(folder, **tensors)
    with pytest.raises(IcisError, match=f"do not fit the test_resnet .*{told}") as caught:
        create_model(local(folder), num_classes=classes)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_of_many_tensors_that_do_not_fit_the_first_are_named(folder):
    about = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**about, "architecture": "test_vit"}))
    with pytest.raises(
        IcisError, match=r"test_vit .*\d+ missing: cls_token, .*, \.\.\.; \d+ not in"
    ) as e:
        load_backbone(local(folder))
    assert len(str(e.value)) < 800


@pytest.mark.parametrize("kept", [0, 4, 1000, -1])
def test_a_truncated_file_is_named(folder, kept):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(IcisError, match=r"model\.safetensors is damaged .*; delete it and fetch"):
        load_backbone(local(folder))


def test_a_folder_without_weights_says_what_is_there(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(IcisError, match=r"there is no model\.safetensors in .*only: config\.json"):
        load_backbone(local(folder))


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"architecture": null}'])
def test_a_config_without_architecture_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(IcisError, match=r"config\.json should name an 'architecture'"):
        load_backbone(local(folder))


def test_identity_of_folders_and_of_random_weights(folder):
    sums = {str(folder / file): file_sha256(folder / file)
            for file in ("config.json", "model.safetensors")}  # fmt: skip
    assert weights_identity(local(folder)) == sums
    assert weights_identity(Backbone(model="resnet10t"), folder) == sums
    random = Backbone(model="resnet10t", weights="random", train={})
    assert list(weights_identity(random)) == ["random"]


@pytest.mark.parametrize("weights", ["hf-hub:", "hf-hub:name", "hf-hub:a/b/c", "hf-hub:a/b@"])
def test_a_malformed_hub_name_is_refused(weights):
    with pytest.raises(ValueError, match=r"or 'hf-hub:ORG/NAME'"):
        Backbone(weights=weights)


@pytest.mark.parametrize("model", ["hf-hub:timm/resnet18.a1_in1k", "timm/resnet18.a1_in1k"])
def test_a_repository_is_no_model_name(model):
    with pytest.raises(ValueError, match="is named by 'weights'"):
        Backbone(model=model)
