"""The parts of extraction: pixels, the forward pass, devices and precision."""

import gc
import io
import multiprocessing
from contextlib import closing

import numpy as np
import pytest
import torch
from PIL import Image

from icis.backbones import (
    LoadedBackbone,
    decode,
    evaluation_transform,
    normalise,
    pixel_transform,
)
from icis.config import Backbone
from icis.errors import IcisError
from icis.extraction import forward as forwarding
from icis.extraction.decoding import Chunks, ahead, alternating
from icis.extraction.forward import Forward, cpu_flags, pick_devices, pick_precision
from icis.extraction.run import Course, Settings, _chunks, _report, extract

DATA = {
    "input_size": (3, 32, 32), "interpolation": "bilinear", "crop_pct": 1.0,
    "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225),
}  # fmt: skip


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


class Memory:
    """A source of images in memory; what is no array is the file's bytes."""

    def __init__(self, images):
        self.files = {}
        for number, image in enumerate(images):
            data = image
            if not isinstance(image, bytes):
                file = io.BytesIO()
                Image.fromarray(image).save(file, "PNG")
                data = file.getvalue()
            self.files[str(number)] = data

    def has(self, name):
        return name in self.files

    def read(self, name):
        return self.files[name]

    def box(self, name):
        return None


# --- pixels -----------------------------------------------------------------------------------


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(3, 32, 32), (3, 24, 40)])
def test_pixels_normalised_by_the_batch_equal_timms_transform(
    crop_mode, crop_pct, interpolation, size
):
    data = {**DATA, "crop_mode": crop_mode, "crop_pct": crop_pct}
    data |= {"interpolation": interpolation, "input_size": size}
    images = [Image.fromarray(noise(h, w, 3)) for h, w in ((50, 70), (90, 41), (20, 20))]
    pixels = [pixel_transform(data)(image) for image in images]
    assert all(each.dtype == np.uint8 and each.shape == (*size[1:], 3) for each in pixels)
    found = normalise(torch.from_numpy(np.stack(pixels)), data)
    expected = torch.stack([evaluation_transform(data)(image) for image in images])
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found - expected).abs().max() < 1e-5


def test_a_huge_image_is_named_before_it_is_decoded(monkeypatch):
    source = Memory([noise(40, 40, 3)])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 700)
    with pytest.raises(IcisError, match=r"image '0' is unreadable: .*1600 pixels.*exceeds"):
        decode(source, "0")


def test_jpegs_are_decoded_whole_before_they_are_resized():
    """Pillow's draft mode would be faster, and gives other pixels."""
    file = io.BytesIO()
    Image.fromarray(noise(400, 400, 3)).save(file, "JPEG")
    image = decode(Memory([file.getvalue()]), "0")
    assert image.size == (400, 400)
    whole = Image.open(io.BytesIO(file.getvalue()))
    assert np.array_equal(np.asarray(image), np.asarray(whole))


# --- decoding in parallel ---------------------------------------------------------------------

ROWS = [range(0, 5), range(5, 10), range(10, 13)]


@pytest.mark.parametrize("way", [
    lambda chunks: alternating(chunks, 1),
    lambda chunks: alternating(chunks, 3),
    lambda chunks: ahead(chunks, 2, pin=False),
])  # fmt: skip
def test_chunks_come_in_order(way):
    images = [noise(32, 32, 3, seed=number) for number in range(13)]
    images[6] = b"nothing"
    chunks = Chunks(Memory(images), [str(number) for number in range(13)], DATA, ROWS)
    found = list(way(chunks))
    assert [each.rows for each in found] == ROWS
    assert [len(each.unreadable) for each in found] == [0, 1, 0]
    assert "image '6' is unreadable" in found[1].unreadable[0]
    assert all(each.seconds > 0 for each in found)
    for each in found:
        for row, pixels in zip(each.rows, each.pixels, strict=True):
            assert row == 6 or np.array_equal(pixels, images[row])


def test_workers_end_when_nobody_listens_any_more():
    chunks = Chunks(Memory([noise(32, 32, 3)] * 13), [str(n) for n in range(13)], DATA, ROWS)
    gc.collect()
    gc.disable()
    try:
        with closing(ahead(chunks, 2, pin=False)) as images:
            next(images)
            assert multiprocessing.active_children()
        assert not multiprocessing.active_children()
    finally:
        gc.enable()


def test_chunks_are_whole_batches_and_stay_inside_a_shard():
    forward = Forward(backbone(), device="cpu", precision="float32", batch_size=4)
    for threads in (1, 2, 5):
        chunks = _chunks([range(0, 50), range(100, 150)], forward, threads)
        assert [row for rows in chunks for row in rows] == [*range(50), *range(100, 150)]
        assert all(len(rows) % 4 == 0 or rows.stop in (50, 150) for rows in chunks)
        assert max(len(rows) for rows in chunks) >= min(50, 4 * threads)


# --- the forward pass -------------------------------------------------------------------------


class Small(torch.nn.Module):
    """A model that runs out of memory above so many images."""

    def __init__(self, limit=1000):
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv2d(3, 16, 5)
        self.limit, self.batches = limit, []

    def forward(self, pixels):
        self.batches.append(len(pixels))
        if len(pixels) > self.limit:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return self.conv(pixels).relu().mean((2, 3))


def backbone(**settings):
    return LoadedBackbone(Small(**settings).eval(), DATA, "small")


def test_a_batch_that_does_not_fit_is_halved_for_good():
    pixels = torch.from_numpy(noise(20, 32, 32, 3))
    told = []
    model = backbone(limit=3)
    forward = Forward(model, device="cpu", precision="float32", batch_size=12, say=told.append)
    found = forward(pixels)
    assert model.model.batches == [12, 6, 3, 3, 3, 3, 3, 3, 2]
    assert forward.batch_size == 3
    assert told == [
        "cpu: no memory for 12 images, 6 from here on",
        "cpu: no memory for 6 images, 3 from here on",
    ]
    whole = Forward(backbone(), device="cpu", precision="float32", batch_size=3)(pixels)
    assert np.array_equal(found, whole)
    model.model.limit = 1  # something else came to take memory
    assert len(forward(pixels)) == 20
    assert forward.batch_size == 1


def test_no_room_for_a_single_image_is_named():
    forward = Forward(backbone(limit=0), device="cpu", precision="float32", batch_size=8)
    with pytest.raises(IcisError, match="too little memory for a single image; use --device cpu"):
        forward(torch.from_numpy(noise(20, 32, 32, 3)))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_is_compared_with_float32(precision):
    pixels = torch.from_numpy(noise(40, 32, 32, 3))
    forward = Forward(backbone(), device="cpu", precision=precision, batch_size=40)
    found = forward.compare(pixels)
    full = Forward(backbone(), device="cpu", precision="float32", batch_size=16)(pixels)
    low = forward(pixels)
    assert low.dtype == np.float32
    assert not np.array_equal(low, full)
    cosine = torch.cosine_similarity(torch.from_numpy(low), torch.from_numpy(full)).numpy()[:32]
    assert found.mean_cosine == pytest.approx(cosine.mean(), abs=1e-6)
    assert found.min_cosine == pytest.approx(cosine.min(), abs=1e-6)
    assert 0.99 < found.min_cosine <= found.mean_cosine <= 1
    assert found.as_metadata() == {
        "mean": found.mean_cosine, "min": found.min_cosine, "images": 32,
    }  # fmt: skip


def test_features_that_are_all_zero_are_alike():
    zero = np.zeros((2, 3))
    one = np.array([[0.0, 0, 0], [1, 0, 0]])
    assert forwarding._cosine(zero, one).tolist() == [1.0, 0.0]


def test_the_callers_settings_of_cudnn_stay():
    before = torch.backends.cudnn.allow_tf32
    Forward(backbone(), device="cpu", precision="float32", batch_size=4)(
        torch.from_numpy(noise(4, 32, 32, 3))
    )
    assert torch.backends.cudnn.allow_tf32 == before


# --- devices and precision --------------------------------------------------------------------


@pytest.fixture
def gpus(monkeypatch):
    """Pretend that there are GPUs of some compute capabilities."""

    def pretend(*capabilities):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(
            torch.cuda, "get_device_capability",
            lambda device: capabilities[int(device.partition(":")[2] or 0)],
        )  # fmt: skip

    return pretend


def test_devices(gpus):
    gpus()
    assert pick_devices("auto") == ["cpu"]
    assert pick_devices("cpu, cpu") == ["cpu", "cpu"]
    with pytest.raises(IcisError, match="device cuda is asked for, but torch sees no GPU"):
        pick_devices("cuda")
    gpus((8, 0), (9, 0))
    assert pick_devices("auto") == ["cuda:0", "cuda:1"]
    assert pick_devices("cuda") == ["cuda"]
    assert pick_devices("cuda:1,cuda:0") == ["cuda:1", "cuda:0"]
    with pytest.raises(IcisError, match="device cuda:2 is asked for, but torch sees 2 GPUs"):
        pick_devices("cuda:0,cuda:2")
    for wrong in ("gpu", "", "cuda:", "cuda:0,", "cuda:-1", "mps"):
        with pytest.raises(IcisError, match="should be auto, cpu, cuda, cuda:N, or a list"):
            pick_devices(wrong)


def test_precision_is_asked_of_the_hardware(gpus, monkeypatch):
    gpus((9, 0), (8, 0), (7, 5), (6, 1))
    places = [f"cuda:{number}" for number in range(4)]
    found = [pick_precision("auto", [place]) for place in places]
    assert found == ["bfloat16", "bfloat16", "float16", "float32"]
    assert pick_precision("auto", places[:2]) == "bfloat16"
    assert pick_precision("auto", places[:3]) == "float16"
    assert pick_precision("auto", places) == "float32"
    assert pick_precision("float16", ["cpu"]) == "float16"
    for flags, expected in (
        ({"avx2"}, "float32"), ({"amx_bf16"}, "bfloat16"), ({"avx512_bf16", "fma"}, "bfloat16"),
    ):  # fmt: skip
        monkeypatch.setattr(forwarding, "cpu_flags", lambda flags=flags: flags)
        assert pick_precision("auto", ["cpu"]) == expected


def test_flags_of_the_cpu(tmp_path):
    (tmp_path / "info").write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16 sse\nbugs\t: none\n")
    assert cpu_flags(tmp_path / "info") == {"fpu", "avx512_bf16", "sse"}
    assert cpu_flags(tmp_path / "none") == set()


def test_settings_of_a_backbone():
    assert Backbone(model="resnet18").batch_size == "auto"
    assert Backbone(model="resnet18", batch_size=7).batch_size == 7
    for wrong in ({"batch_size": 0}, {"batch_size": "many"}, {"precision": "float64"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Backbone(model="resnet18", **wrong)
    assert Settings().batch("cuda:0") == forwarding.GPU_BATCH
    assert Settings().batch("cpu") == forwarding.CPU_BATCH
    assert Settings(batch_size=7).batch("cuda:0") == 7


def test_the_report_counts_images_time_and_cores(capsys):
    courses = [Course(100, 2.0, 1.0, 16), Course(300, 2.0, 3.0, 8)]
    _report("a/b", courses, Settings(precision="float16"), ["cuda:0", "cuda:1"], 4, 10.0)
    told = capsys.readouterr().err
    assert "features a/b: 400 images in 10.0 s, 40.0 images/s\n" in told
    assert "decoding 10.0 ms an image and core, model 10.0 ms an image and device" in told
    assert "float16, batches of 8, 16, cuda:0,cuda:1, 4 threads" in told


def test_a_list_of_images_needs_no_index():
    images = [noise(32, 32, 3, seed=number) for number in range(9)]
    found = np.concatenate(
        list(extract(backbone(), Memory(images), [str(n) for n in range(9)], threads=2,
                     precision="float32"))
    )  # fmt: skip
    whole = Forward(backbone(), device="cpu", precision="float32", batch_size=16)
    assert np.array_equal(found, whole(torch.from_numpy(np.stack(images))))
