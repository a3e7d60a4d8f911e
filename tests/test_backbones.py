"""Backbones: decoding, loading, extraction; tiny models on drawn images."""

import io
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
    create_model,
    decode,
    decoder_identity,
    evaluation_transform,
    load_backbone,
)
from icis.config import Backbone, Transform
from icis.datasets.sources import open_source
from icis.errors import IcisError
from icis.extraction.run import extract
from icis.heads import Head
from tests.small_images import COUNT, break_one, features_of, tiny, write_images


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


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

    def box(self, name):
        return None


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
    for threads in (1, 2):
        found = features_of(backbone, (source, order, None), threads=threads, batch_size=7)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, np.stack(expected), atol=1e-5)


def test_bfloat16_is_close_to_float32(images, backbone):
    full, low = (features_of(backbone, images, precision=p) for p in ("float32", "bfloat16"))
    assert low.dtype == np.float32
    assert not np.array_equal(full, low)
    np.testing.assert_allclose(low, full, atol=0.05 * np.abs(full).max())


def test_between_batches_the_caller_has_its_own_modes(images, backbone):
    source, names, _ = images
    how = {"batch_size": 16, "precision": "bfloat16", "threads": 1, "device": "cpu"}
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
    return break_one(images, tmp_path)


MESSAGE = r"^image 'image21\.png' is unreadable: .+$"


@pytest.mark.parametrize("threads", [1, 2])
def test_extraction_names_an_unreadable_image_in_one_line(one_broken, backbone, threads):
    with pytest.raises(IcisError, match=MESSAGE) as caught:
        features_of(backbone, one_broken, threads=threads)
    assert "\n" not in str(caught.value)


def test_a_missing_image_is_named(images, backbone):
    source, names, _ = images
    with pytest.raises(IcisError, match=r"gone\.png cannot be read"):
        features_of(backbone, (source, [*names, "gone.png"], None), threads=2)


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
    features = features_of(backbone, (source, names, None), threads=2, batch_size=50)
    top1 = head.scores(torch.from_numpy(features)).argmax(1) == torch.arange(1000)
    assert float(top1.double().mean()) >= 0.8
