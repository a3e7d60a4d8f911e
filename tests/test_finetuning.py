"""Training a backbone: what it learns, what it keeps, what it saves."""

import gc
import json
import multiprocessing
import random
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from icis.backbones import (
    LoadedBackbone,
    create_model,
    decode,
    evaluation_transform,
    load_backbone,
)
from icis.base_classifier import stratified_holdout
from icis.compat import timm
from icis.config import Backbone
from icis.course import forward_precision
from icis.errors import IcisError
from icis.finetuning import LabelledImages, SeededOrder, save_backbone
from icis.seeding import derive_seed
from tests.hub import tiny_checkpoint
from tests.small_images import (
    CLASSES,
    COUNT,
    assert_same_weights,
    break_one,
    features_of,
    tiny,
    trained_on,
    with_dropout,
    write_images,
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


# --- training, saving, loading ----------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(images):
    return trained_on(images, tiny())


def without_classifier(trained):
    """Return the trained model in memory as an extractor, past save and load."""
    trained.model.reset_classifier(0)
    return LoadedBackbone(trained.model.eval(), trained.data, "in memory")


def test_saved_and_loaded_gives_identical_features(images, tmp_path):
    config = tiny(epochs=2)
    trained = trained_on(images, config)
    save_backbone(trained, tmp_path)
    loaded = load_backbone(config, tmp_path)
    assert loaded.architecture == "test_resnet"
    assert loaded.data == trained.data
    found = features_of(loaded, images)
    assert found.shape == (COUNT, 96)
    assert np.array_equal(found, features_of(without_classifier(trained), images))
    assert found.std(axis=0).max() > 0.01


def test_saved_checkpoint_stands_on_its_own(images, trained, tmp_path):
    """Another experiment takes it as local-dir weights, without repeating the transform."""
    save_backbone(trained, tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    loaded = load_backbone(Backbone(weights=f"local-dir:{tmp_path}"))
    assert loaded.data == trained.data
    again = load_backbone(tiny(), tmp_path)
    assert np.array_equal(features_of(loaded, images), features_of(again, images))


@pytest.mark.parametrize("forgetful", [False, True])
def test_training_from_a_checkpoint_keeps_its_model_arguments(images, tmp_path, forgetful):
    """Without pad_type the same weights make another network, and nothing complains."""
    start = timm.create_model("mobilenetv2_035", pad_type="same")
    timm.models.save_for_hf(
        start, tmp_path / "start", model_args={"pad_type": "same"}, safe_serialization=True
    )
    config = tiny(model="", weights=f"local-dir:{tmp_path}/start")
    trained = trained_on(images, config)
    if forgetful:  # as timm was before 1.0.31
        trained.model._model_args = {}
    save_backbone(trained, tmp_path / "trained")
    about = json.loads((tmp_path / "trained/config.json").read_text())
    assert about["model_args"]["pad_type"] == "same"
    assert about["num_classes"] == CLASSES
    found = features_of(load_backbone(config, tmp_path / "trained"), images)
    assert np.array_equal(found, features_of(without_classifier(trained), images))


@pytest.fixture(scope="module")
def dropout(tmp_path_factory):
    return with_dropout(tmp_path_factory.mktemp("dropout"))


def test_same_seed_same_weights_with_any_number_of_workers(images, dropout):
    config = tiny(weights=dropout, model="", epochs=2)
    torch.manual_seed(1)
    one = trained_on(images, config)
    torch.manual_seed(2)
    again = trained_on(images, config)
    with_workers = trained_on(images, config, workers=2)
    assert one.model.drop_rate == 0.5
    assert_same_weights(one, again)
    assert_same_weights(one, with_workers)
    assert one.history.equals(with_workers.history)


def test_other_seed_other_weights(images, trained):
    other = trained_on(images, tiny(seed=1))
    assert not torch.equal(other.model.fc.weight, trained.model.fc.weight)


def test_random_starts_do_not_depend_on_what_ran_before(images, trained):
    torch.manual_seed(12345)
    random.seed(54321)
    assert_same_weights(trained_on(images, tiny()), trained)


def test_training_learns(images):
    trained = trained_on(images, tiny(epochs=6, learning_rate=3e-3))
    losses = trained.history["loss"].to_list()
    assert losses[-1] < 0.7 * losses[0]
    assert trained.epoch == 6
    assert trained.history["holdout_accuracy"].is_null().all()


def test_holdout_keeps_the_best_epoch(images):
    source, names, labels = images
    config = tiny(epochs=5, selection="holdout", holdout=0.4, learning_rate=3e-3)
    trained = trained_on(images, config)
    accuracies = trained.history["holdout_accuracy"].to_list()
    assert trained.epoch == accuracies.index(max(accuracies)) + 1
    _, held = stratified_holdout(torch.tensor(labels), 0.4, 0)
    transform = evaluation_transform(trained.data)
    pixels = torch.stack([transform(decode(source, names[row])) for row in held.tolist()])
    with torch.inference_mode():
        predicted = trained.model.eval()(pixels).argmax(1)
    target = torch.tensor(labels)[held]
    per_class = [float((predicted[target == c] == c).double().mean()) for c in range(CLASSES)]
    assert 100 * np.mean(per_class) == pytest.approx(max(accuracies))


def test_an_epoch_of_one_batch_trains(images):
    source, names, labels = images
    model = create_model(tiny(), num_classes=CLASSES)
    few = (source, names[:8], labels[:8])
    torch.manual_seed(0)
    trained = trained_on(few, tiny(learning_rate=0.01))
    again = trained_on(few, tiny(learning_rate=1e-12))
    assert model.fc.weight.shape == trained.model.fc.weight.shape
    assert (trained.model.fc.weight - again.model.fc.weight).abs().max() > 1e-3


def test_a_loss_that_is_no_number_names_the_epoch(images):
    with pytest.raises(IcisError, match=r"backbone: the loss became nan in epoch \d"):
        trained_on(images, tiny(learning_rate=1e30, epochs=3))


def test_augmentation_leaves_the_global_generators_alone(images):
    source, names, labels = images
    drawn = LabelledImages(
        source, names, labels, lambda image: torch.tensor([random.random(), torch.rand(())])
    )
    random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), float(torch.rand(()))
    random.seed(1)
    torch.manual_seed(1)
    first, again, other = drawn[0, 7][0], drawn[1, 7][0], drawn[0, 8][0]
    assert (random.random(), float(torch.rand(()))) == expected
    assert torch.equal(first, again)
    assert not (first == other).any()


def test_every_epoch_has_an_order_and_augmentations_of_its_own():
    order = SeededOrder(20, 0, shuffle=True)
    first, second = list(order), list(order)
    assert sorted(row for row, _ in first) == list(range(20))
    assert [row for row, _ in first] != [row for row, _ in second]
    assert len({seed for _, seed in first + second}) == 40
    assert list(SeededOrder(20, 0, shuffle=True)) == first
    assert list(SeededOrder(20, 1, shuffle=True)) != first
    assert [row for row, _ in SeededOrder(20, 0, shuffle=False)] == list(range(20))


# --- unreadable images ---


@pytest.fixture
def one_broken(images, tmp_path):
    """Return the images with one of them cut off."""
    return break_one(images, tmp_path)


def refusal(images, config, *, workers):
    """Return the error's text.

    pytest.raises would keep the error, and so the loader's workers, until the collector finds them
    and takes 5 s to end each.
    """
    try:
        trained_on(images, config, workers=workers)
    except IcisError as error:
        return str(error)
    return "the image was read"


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("recipe", [{}, {"selection": "holdout", "holdout": 0.9, "batch_size": 2}])
def test_an_unreadable_image_is_named_in_one_line(one_broken, recipe, workers):
    told = refusal(one_broken, tiny(**recipe), workers=workers)
    assert re.fullmatch(r"image 'image21\.png' is unreadable: .+", told)


def test_workers_end_with_the_error(one_broken):
    gc.collect()
    gc.disable()  # what only the collector would find lives on for as long as it likes
    try:
        assert "unreadable" in refusal(one_broken, tiny(), workers=2)
        assert not multiprocessing.active_children()
    finally:
        gc.enable()


# --- what is trained, and how -----------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_stays_close(images, precision):
    config = {"epochs": 3, "selection": "holdout", "holdout": 0.2}
    full = trained_on(images, tiny(**config, precision="float32"))
    low = trained_on(images, tiny(**config, precision=precision))
    losses = full.history["loss"].to_numpy(), low.history["loss"].to_numpy()
    assert not np.array_equal(*losses)
    np.testing.assert_allclose(*losses, rtol=0.03)
    assert {value.dtype for value in low.model.parameters()} == {torch.float32}


def test_auto_precision_goes_by_the_device(images, monkeypatch):
    assert forward_precision("auto", "cpu") == "float32"
    assert forward_precision("float16", "cpu") == "float16"
    for capability, expected in (((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, found=capability: found)
        assert forward_precision("auto", "cuda:1") == expected
    assert_same_weights(trained_on(images, tiny()), trained_on(images, tiny(precision="float32")))


def test_frozen_epochs_train_the_classifier_alone(images):
    torch.manual_seed(derive_seed("backbone weights", 0))
    start = create_model(tiny(), num_classes=CLASSES).state_dict()
    frozen = trained_on(images, tiny(epochs=2, frozen_epochs=2)).model.state_dict()
    changed = {key for key, value in frozen.items() if not torch.equal(value, start[key])}
    assert changed == {"fc.weight", "fc.bias"}  # no running statistics either
    thawed = trained_on(images, tiny(epochs=2, frozen_epochs=1)).model.state_dict()
    assert not torch.equal(thawed["conv1.0.weight"], start["conv1.0.weight"])
    assert all(thawed[key].isfinite().all() for key in thawed)


def test_pretrained_weights_get_a_new_classifier(images, tmp_path):
    """Also where the checkpoint has as many classes as the data set."""
    folder = tiny_checkpoint(tmp_path, "test_resnet", "a/b", classes=CLASSES)
    config = tiny(model="", weights=f"local-dir:{folder}", learning_rate=1e-12)
    found = trained_on(images, config).model.state_dict()
    given = load_file(folder / "model.safetensors")
    torch.testing.assert_close(found["conv1.0.weight"], given["conv1.0.weight"])
    assert (found["fc.weight"] - given["fc.weight"]).abs().max() > 1e-3
