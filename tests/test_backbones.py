"""Backbones: decoding, training, saving and loading, extraction; tiny models on drawn images."""

import gc
import io
import json
import multiprocessing
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from icis.backbones import (
    LoadedBackbone,
    create_model,
    decode,
    decoder_identity,
    evaluation_transform,
    load_backbone,
)
from icis.compat import timm
from icis.config import Backbone, Training, Transform
from icis.datasets.sources import open_source
from icis.errors import IcisError
from icis.extraction import extract
from icis.finetuning import LabelledImages, SeededOrder, save_backbone, train_backbone
from icis.heads import Head

COUNT, CLASSES = 40, 4
SMALL = Transform(image_size=32, crop_pct=1.0, interpolation="bilinear")


def tiny(*, model="resnet10t", weights="random", transform=SMALL, **training):
    recipe = Training(**{"epochs": 1, "batch_size": 8, "crop_scale": 0.5, **training})
    return Backbone(model=model, weights=weights, transform=transform, train=recipe)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Return a source of 40 noisy 32 x 32 images, their names and labels."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    names, labels = [], []
    for number in range(COUNT):
        label = number % CLASSES
        pixels = generator.integers(0, 120, (32, 32, 3))
        pixels[:, :, label % 3] += 60 + 30 * (label // 3)
        name = f"image{number:02d}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
        names.append(name)
        labels.append(label)
    return open_source(folder), names, labels


def trained_on(images, config, *, workers=0):
    source, names, labels = images
    return train_backbone(
        config, source, names, labels, classes=CLASSES, workers=workers, device="cpu"
    )


def features_of(backbone, images, **settings):
    source, names, _ = images
    how = {"batch_size": 16, "precision": "float32", "workers": 0, "device": "cpu", **settings}
    return np.concatenate(list(extract(backbone, source, names, **how)))


def assert_same_weights(one, other):
    one, other = one.model.state_dict(), other.model.state_dict()
    assert one.keys() == other.keys()
    for key, value in one.items():
        assert torch.equal(value, other[key]), key


# --- importing timm ---------------------------------------------------------------------------


def test_timm_can_be_imported_in_a_fresh_process():
    code = "from icis.compat import timm; print(timm.is_model('resnet10t'))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"


# --- decoding ---------------------------------------------------------------------------------


class Bytes:
    """A source of one file."""

    def __init__(self, image, kind="PNG", **settings):
        if isinstance(image, bytes):
            self.data = image
        else:
            file = io.BytesIO()
            image.save(file, kind, **settings)
            self.data = file.getvalue()

    def read(self, name):
        return self.data


def picture():
    """Return a picture [20, 30, 3] without any symmetry."""
    rows, columns = np.mgrid[0:20, 0:30]
    return np.stack([8 * columns, 12 * rows, 4 * (rows + columns)], axis=2).astype(np.uint8)


def pixels_of(source):
    image = decode(source, "x")
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def test_rgb_is_untouched():
    assert (pixels_of(Bytes(Image.fromarray(picture()))) == picture()).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG2000", "PPM"])
def test_grey_of_8_and_16_bits(kind):
    grey = picture()[:, :, 0]
    expected = np.repeat(grey[:, :, None], 3, axis=2)
    assert (pixels_of(Bytes(Image.fromarray(grey), kind)) == expected).all()
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    assert deep.mode == "I;16"
    assert (pixels_of(Bytes(deep, kind)) == expected).all()


def test_big_endian_16_bits():
    grey = picture()[:, :, 0]
    deep = Image.frombytes("I;16B", (30, 20), (grey.astype(">u2") * 257).astype(">u2").tobytes())
    found = pixels_of(Bytes(deep, "TIFF"))
    assert (found == grey[:, :, None]).all()


def test_rgba_keeps_its_colours():
    alpha = np.full((20, 30, 1), 200, dtype=np.uint8)
    image = Image.fromarray(np.concatenate([picture(), alpha], axis=2))
    assert image.mode == "RGBA"
    assert (pixels_of(Bytes(image)) == picture()).all()


def test_grey_with_alpha_and_black_and_white():
    grey = Image.fromarray(picture()[:, :, 0])
    with_alpha = grey.convert("LA")
    assert (pixels_of(Bytes(with_alpha)) == np.asarray(grey)[:, :, None]).all()
    bits = grey.point(lambda v: 255 * (v > 100)).convert("1")
    assert (pixels_of(Bytes(bits)) == np.asarray(bits.convert("L"))[:, :, None]).all()


@pytest.mark.filterwarnings("error")
def test_palette():
    image = Image.fromarray(picture()).quantize(64)
    assert (pixels_of(Bytes(image)) == np.asarray(image.convert("RGB"))).all()
    transparent = Bytes(image, transparency=bytes(range(64)))
    assert (pixels_of(transparent) == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk(kind):
    image = Image.fromarray(picture()).convert("CMYK")
    settings = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    assert np.abs(pixels_of(Bytes(image, kind, **settings)) - picture()).max() <= 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_exif_rotation_is_undone(kind, orientation):
    # as cameras store it: the turn that exif_transpose would make, made backwards
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = Image.fromarray(picture())
    stored = image.transpose(back[orientation]) if orientation in back else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    found = pixels_of(Bytes(stored, kind, exif=exif, **settings))
    assert found.shape == (20, 30, 3)
    assert np.abs(found - picture()).max() <= (6 if kind == "JPEG" else 0)


def test_exif_rotation_of_16_bits():
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = Image.fromarray(picture()[:, :, 0].astype(np.uint16) * 257)
    stored = deep.transpose(Image.Transpose.ROTATE_90)
    assert (pixels_of(Bytes(stored, exif=exif)) == picture()[:, :, :1]).all()


@pytest.mark.parametrize("data", [b"", b"no image", b"\x89PNG\r\n\x1a\n", bytes(1000)])
def test_what_is_no_image_is_named(data):
    with pytest.raises(IcisError, match="image 'folder/x.png' is unreadable") as caught:
        decode(Bytes(data), "folder/x.png")
    assert "0x" not in str(caught.value)


def test_floating_point_pixels_are_refused():
    image = Image.fromarray(picture()[:, :, 0].astype(np.float32) / 255)
    with pytest.raises(IcisError, match="image 'x' is unreadable: .*floating-point"):
        decode(Bytes(image, "TIFF"), "x")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "AVIF"])
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_decode_or_are_named(kind):
    """No other exception, whatever a decoder stumbles over."""
    whole, draw = Bytes(Image.fromarray(picture()), kind).data, random.Random(0)
    refused = 0
    for _ in range(150):
        data = bytearray(whole[: draw.choice([len(whole), draw.randrange(len(whole))])])
        for _ in range(min(draw.choice([1, 3, 20]), len(data))):
            data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            decode(Bytes(bytes(data)), "x")
        except IcisError as error:
            refused += 1
            assert "image 'x' is unreadable" in str(error)
    assert refused > 20


def test_truncated_photographs_are_named():
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    data = Bytes(Image.fromarray(noise), "JPEG").data
    with pytest.raises(IcisError, match="image 'x' is unreadable: .*truncated"):
        decode(Bytes(data[: len(data) // 2]), "x")


def test_decoder_identity_names_versions():
    assert decoder_identity().startswith(f"Pillow {Image.__version__}, libjpeg")


# --- creating models --------------------------------------------------------------------------


def test_unknown_model_is_refused():
    with pytest.raises(IcisError, match="backbone no_such_net: .*cannot be had"):
        create_model(tiny(model="no_such_net"), num_classes=0)


def test_folder_without_config_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    config = Backbone(weights=f"local-dir:{tmp_path}")
    with pytest.raises(IcisError, match=r"has no config\.json: it is no timm local-dir"):
        load_backbone(config)
    with pytest.raises(IcisError, match=r"has no config\.json"):
        load_backbone(tiny(), tmp_path)


@pytest.mark.parametrize("text", ["{", "{}", '{"architecture": "no_such_net"}'])
def test_folder_with_a_broken_config_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(IcisError, match=f"local-dir:{tmp_path}.* cannot be had"):
        load_backbone(Backbone(weights=f"local-dir:{tmp_path}"))


def test_configured_transform_is_applied():
    config = tiny(transform=Transform(image_size=48, crop_pct=0.5, interpolation="lanczos"))
    data = load_backbone(config).data
    assert data["input_size"] == (3, 48, 48)
    assert data["crop_pct"] == 0.5
    assert data["interpolation"] == "lanczos"
    pixels = evaluation_transform(data)(Image.fromarray(picture()))
    assert pixels.shape == (3, 48, 48)
    # resize the shorter side to 48 / 0.5, crop the middle, normalise
    resized = Image.fromarray(picture()).resize((144, 96), Image.Resampling.LANCZOS)
    middle = np.asarray(resized.crop((48, 24, 96, 72))) / 255
    expected = (middle - np.array(data["mean"])) / np.array(data["std"])
    np.testing.assert_allclose(pixels.permute(1, 2, 0).numpy(), expected, atol=1e-5)


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
    assert loaded.architecture == "resnet10t"
    assert loaded.data == trained.data
    found = features_of(loaded, images)
    assert found.shape == (COUNT, 512)
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
    """Return a starting checkpoint whose training draws random numbers in the model too."""
    folder = tmp_path_factory.mktemp("dropout")
    torch.manual_seed(0)
    start = timm.create_model("resnet10t", drop_rate=0.5)
    timm.models.save_for_hf(start, folder, model_args={"drop_rate": 0.5}, safe_serialization=True)
    return f"local-dir:{folder}"


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
    from icis.base_classifier import stratified_holdout

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


# --- extraction -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return load_backbone(tiny())


def test_features_are_the_models_output_in_the_order_of_the_names(images, backbone):
    source, names, _ = images
    transform = evaluation_transform(backbone.data)
    order = [names[k] for k in np.random.default_rng(0).permutation(COUNT)]
    expected = []
    for name in order:
        with torch.no_grad():
            expected.append(backbone.model(transform(decode(source, name))[None])[0].numpy())
    for workers in (0, 2):
        found = features_of(backbone, (source, order, None), workers=workers, batch_size=7)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, np.stack(expected), atol=1e-5)


def test_bfloat16_is_close_to_float32(images, backbone):
    full, low = (features_of(backbone, images, precision=p) for p in ("float32", "bfloat16"))
    assert low.dtype == np.float32
    assert not np.array_equal(full, low)
    np.testing.assert_allclose(low, full, atol=0.05 * np.abs(full).max())


def test_between_batches_the_caller_has_its_own_modes(images, backbone):
    source, names, _ = images
    how = {"batch_size": 16, "precision": "bfloat16", "workers": 0, "device": "cpu"}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    for _ in extract(backbone, source, names, **how):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()
        assert not torch.is_autocast_enabled("cpu")
    assert torch.equal(torch.get_rng_state(), state)


# --- unreadable images ------------------------------------------------------------------------


@pytest.fixture
def one_broken(images, tmp_path):
    """Return the images with one of them cut off."""
    source, names, labels = images
    for name in names:
        data = source.read(name)
        (tmp_path / name).write_bytes(data[: len(data) // 2] if name == names[21] else data)
    return open_source(tmp_path), names, labels


MESSAGE = r"^image 'image21\.png' is unreadable: .+$"


@pytest.mark.parametrize("workers", [0, 2])
def test_extraction_names_an_unreadable_image_in_one_line(one_broken, backbone, workers):
    with pytest.raises(IcisError, match=MESSAGE) as caught:
        features_of(backbone, one_broken, workers=workers)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_training_names_an_unreadable_image_in_one_line(one_broken, workers):
    with pytest.raises(IcisError, match=MESSAGE) as caught:
        trained_on(one_broken, tiny(), workers=workers)
    assert "\n" not in str(caught.value)


def test_holdout_names_an_unreadable_image_in_one_line(one_broken):
    config = tiny(selection="holdout", holdout=0.9, batch_size=2)
    with pytest.raises(IcisError, match=MESSAGE) as caught:
        trained_on(one_broken, config, workers=2)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("train", [False, True])
def test_workers_end_with_the_error(one_broken, backbone, train):
    gc.collect()
    gc.disable()  # what only the collector would find lives on for as long as it likes
    try:
        if train:
            trained_on(one_broken, tiny(), workers=2)
        else:
            features_of(backbone, one_broken, workers=2)
        pytest.fail("the image was read")
    except IcisError:
        pass
    try:
        assert not multiprocessing.active_children()
    finally:
        gc.enable()


def test_a_missing_image_is_named(images, backbone):
    source, names, _ = images
    with pytest.raises(IcisError, match=r"gone\.png cannot be read"):
        features_of(backbone, (source, [*names, "gone.png"], None), workers=2)


# --- real data --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.real_data
def test_a_real_checkpoint_with_its_own_head_knows_real_photographs(real_data, tmp_path):
    """README of the real data: 87.6 % top-1 on these images."""
    folder = real_data / "backbones/mobilenetv2_100.coral_in1k"
    source = open_source(real_data / "images/imagenet-samples-256.tar")
    with np.load(real_data / "heads/imagenet1k_mobilenetv2.npz", allow_pickle=False) as file:
        wnids = tuple(file["wnids"].tolist())
        head = Head(torch.from_numpy(file["W"]), torch.from_numpy(file["b"]), wnids)
    names = [f"images/{wnid}.JPEG" for wnid in wnids]
    backbone = load_backbone(Backbone(weights=f"local-dir:{folder}"))
    classifier = load_file(folder / "model.safetensors")
    assert torch.equal(classifier["classifier.weight"], head.weight)
    features = features_of(backbone, (source, names, None), workers=2, batch_size=50)
    top1 = head.scores(torch.from_numpy(features)).argmax(1) == torch.arange(1000)
    assert float(top1.double().mean()) >= 0.8
