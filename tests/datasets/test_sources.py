"""Listing files, and parts of images."""

import io
import tarfile

import numpy as np
import polars as pl
import pytest
from PIL import Image

from icis.backbones import decode
from icis.datasets.sources import PartsSource, open_source, with_parts
from icis.errors import IcisError


def picture(orientation=1, width=6, height=4):
    """Return a PNG whose pixel (x, y) is (10 x, 10 y, 0) where it is upright."""
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([10 * columns, 10 * rows, 0 * rows], axis=2).astype(np.uint8)
    image, exif = Image.fromarray(pixels), Image.Exif()
    if orientation == 6:  # the camera was turned: viewers turn it by 270 degrees
        image = image.transpose(Image.Transpose.ROTATE_90)
    exif[0x0112] = orientation
    data = io.BytesIO()
    image.save(data, "PNG", exif=exif)
    return data.getvalue()


@pytest.fixture
def root(tmp_path):
    for name in ("b/2.png", "b/1.png", "a.png", "c/d/3.png"):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture())
    return tmp_path / "root"


def pack(root, prefix="./"):
    path = root.with_name("root.tar")
    with tarfile.open(path, "w") as archive:
        for file in sorted(root.rglob("*"), reverse=True):
            archive.add(file, f"{prefix}{file.relative_to(root)}", recursive=False)
    return path


@pytest.mark.parametrize("prefix", ["", "./"])
def test_folder_and_tar_list_the_same_files(root, prefix):
    folder, tar = open_source(root), open_source(pack(root, prefix))
    assert folder.names() == tar.names() == ["a.png", "b/1.png", "b/2.png", "c/d/3.png"]
    for source in (folder, tar):
        assert all(source.has(name) and source.box(name) is None for name in source.names())


def test_links_are_followed_but_not_in_circles(root, tmp_path):
    (tmp_path / "elsewhere/e").mkdir(parents=True)
    (tmp_path / "elsewhere/e/4.png").write_bytes(picture())
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (root / "c/back").symlink_to(root)
    (root / "c/self").symlink_to(".")
    assert open_source(root).names() == [
        "a.png", "b/1.png", "b/2.png", "c/d/3.png", "link/e/4.png"
    ]  # fmt: skip


def test_parts_have_names_of_their_own(root):
    files = open_source(root)
    source = PartsSource(files, {"two": ("a.png", (1, 0, 4, 2)), "one": ("a.png", None)})
    assert source.names() == ["one", "two"]
    assert source.read("one") == source.read("two") == files.read("a.png")
    assert source.fingerprint(["one", "two"]) == files.fingerprint(["a.png"])
    assert source.has("one")
    assert not source.has("a.png")
    assert not PartsSource(files, {"x": ("gone.png", None)}).has("x")
    with pytest.raises(IcisError, match="there is no image 'a.png' in the index"):
        source.read("a.png")
    whole, part = (np.asarray(decode(source, name)) for name in ("one", "two"))
    assert whole.shape == (4, 6, 3)
    np.testing.assert_array_equal(part, whole[0:2, 1:4])


def test_an_index_tells_its_parts(root):
    files = open_source(root)
    frame = pl.DataFrame({"image": ["a.png"]})
    assert with_parts(files, frame) is files
    frame = pl.DataFrame({
        "image": ["x#1", "x#2"], "file": ["a.png"] * 2, "left": [None, 1], "top": [None, 2],
        "right": [None, 3], "bottom": [None, 4],
    })  # fmt: skip
    source = with_parts(files, frame)
    assert [source.box(name) for name in source.names()] == [None, (1, 2, 3, 4)]


class Part:
    """A source of one part of one image."""

    def __init__(self, data, box):
        self.data, self._box = data, box

    def read(self, name):
        return self.data

    def box(self, name):
        return self._box


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize(
    ("box", "part"),
    [
        ((0, 0, 6, 4), (0, 0, 6, 4)),
        ((2, 1, 3, 4), (2, 1, 3, 4)),
        ((-5, -1, 2, 9), (0, 0, 2, 4)),
        ((4, 0, 90, 1), (4, 0, 6, 1)),
    ],
)
def test_a_box_is_cut_out_of_the_upright_image(orientation, box, part):
    found = np.asarray(decode(Part(picture(orientation), box), "x"))
    left, top, right, bottom = part
    assert found.shape == (bottom - top, right - left, 3)
    assert found[0, 0].tolist() == [10 * left, 10 * top, 0]
    assert found[-1, -1].tolist() == [10 * (right - 1), 10 * (bottom - 1), 0]


@pytest.mark.parametrize("box", [(6, 0, 9, 4), (0, 4, 6, 5), (2, 2, 2, 3), (-3, 0, 0, 4)])
def test_a_box_outside_of_the_image_is_named(box):
    with pytest.raises(IcisError) as caught:
        decode(Part(picture(), box), "x#2")
    assert str(caught.value) == f"image 'x#2': its box {list(box)} is empty in an image of 6 x 4"
