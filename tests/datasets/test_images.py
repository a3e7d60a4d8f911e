"""Image folders and tars with a table of splits."""

import io
import tarfile

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

from icis import layout
from icis.config import ImagesDataset, parse_experiment
from icis.datasets.images import parse_lines, parse_table, read_images
from icis.datasets.sources import FolderSource, TarSource, open_source
from icis.errors import IcisError
from icis.plan import Plan
from icis.stages import describe, extract
from icis.stages import index as index_stage

ROWS = [
    ("images/wren/1.png", "wren", "trainval"),
    ("images/wren/2.png", "wren", "test_seen"),
    ("images/auk/1.png", "auk", "test_unseen"),
    ("images/kite/1.png", "kite", "trainval"),
    ("images/kite/2.png", "kite", "trainval"),
]


def picture(shade):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 255 - shade)).save(file, "png")
    return file.getvalue()


def csv(rows=ROWS, header="file,class,split"):
    return "\n".join([header, *(",".join(row) for row in rows)]) + "\n"


@pytest.fixture
def birds(tmp_path):
    """Make a folder of small images with splits.csv."""
    root = tmp_path / "birds"
    for shade, (file, *_) in enumerate(ROWS):
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(shade))
    (root / "splits.csv").write_text(csv())
    return root


def pack(folder, prefix=""):
    """Put a folder's files into a tar beside it."""
    path = folder.with_name(f"{folder.name}.tar")
    with tarfile.open(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.add(file, f"{prefix}{file.relative_to(folder)}", recursive=False)
    return path


def read(root, **settings):
    return read_images(ImagesDataset(kind="images", root=str(root), **settings))


def refusal(root, **settings):
    with pytest.raises(IcisError) as caught:
        read(root, **settings)
    return str(caught.value)


@pytest.mark.parametrize("prefix", ["", "./"])
def test_a_folder_and_a_tar_give_the_same_index(birds, prefix):
    folder, _ = read(birds)
    tar, _ = read(pack(birds, prefix))
    assert folder.frame.equals(tar.frame)
    assert folder.classes == tar.classes
    assert folder.frame.rows() == ROWS
    assert folder.classes.seen == ("kite", "wren")
    assert folder.classes.unseen == ("auk",)
    sources = open_source(birds), open_source(pack(birds, prefix))
    for name in folder.frame["image"]:
        assert sources[0].read(name) == sources[1].read(name)


def test_csv_and_parquet_give_the_same_index(birds):
    expected, _ = read(birds)
    pl.read_csv(birds / "splits.csv").write_parquet(birds / "splits.parquet")
    found, _ = read(birds, splits="splits.parquet")
    assert found.frame.equals(expected.frame)
    pl.read_csv(birds / "splits.csv").with_columns(
        pl.col("class", "split").cast(pl.Categorical)
    ).write_parquet(birds / "categories.parquet")
    assert read(birds, splits="categories.parquet")[0].frame.equals(expected.frame)


def test_splits_may_lie_elsewhere_with_other_columns(birds, tmp_path):
    (birds / "splits.csv").unlink()
    table = tmp_path / "my splits.csv"
    table.write_text("note," + csv(header="path,label,part").replace("\nimages", "\nx,images"))
    index, sources = read(
        birds, splits=str(table), file_column="path", class_column="label", split_column="part"
    )
    assert index.frame.rows() == ROWS
    assert str(table) in sources


def test_the_order_of_the_rows_and_of_a_class_list_is_kept(birds):
    (birds / "splits.csv").write_text(csv(ROWS[::-1]))
    (birds / "classes.txt").write_text("wren\ta small bird\nauk\nkite\n\n")
    index, _ = read(birds, class_list="classes.txt")
    assert index.frame.rows() == ROWS[::-1]
    assert index.classes.names == ("wren", "auk", "kite")
    assert index.classes.is_seen == (True, False, True)


def test_numbers_as_class_names_keep_their_zeros(birds):
    names = {"wren": "001", "auk": "010", "kite": "100"}
    (birds / "splits.csv").write_text(csv([(f, names[c], s) for f, c, s in ROWS]))
    (birds / "classes.txt").write_text("100\n010\n001\n")
    index, _ = read(birds, class_list="classes.txt")
    assert index.classes.names == ("100", "010", "001")
    assert read(birds)[0].classes.names == ("001", "010", "100")


def test_windows_files(birds):
    (birds / "splits.csv").write_bytes(b"\xef\xbb\xbf" + csv().replace("\n", "\r\n").encode())
    (birds / "classes.txt").write_bytes(b"\xef\xbb\xbfwren\r\nauk\r\nkite\r\n")
    index, _ = read(birds, class_list="classes.txt")
    assert index.frame.rows() == ROWS
    assert index.classes.names == ("wren", "auk", "kite")


def test_the_hashes_change_with_every_file_read(birds):
    (birds / "classes.txt").write_text("wren\nauk\nkite\n")
    (birds / "unlisted.png").write_bytes(b"1")

    def state(root):
        return read(root, class_list="classes.txt")[1]

    before = state(birds)
    assert "splits.csv" in before
    (birds / "unlisted.png").write_bytes(b"2")
    assert state(birds) == before
    for file in (ROWS[2][0], "splits.csv", "classes.txt"):
        content = (birds / file).read_bytes()
        (birds / file).write_bytes(content + b"\n")
        assert state(birds) != before, file
        (birds / file).write_bytes(content)
    packed = state(pack(birds))
    (birds / ROWS[0][0]).write_bytes(picture(99))
    assert state(pack(birds)) != packed


# faults


def test_an_absent_image_is_named(birds):
    (birds / ROWS[3][0]).unlink()
    for root in (birds, pack(birds)):
        assert refusal(root) == f"splits.csv lists 'images/kite/1.png', which {root} lacks"


@pytest.mark.parametrize("name", ["../secret.png", "images/../../secret.png", "/etc/hostname"])
def test_a_path_out_of_the_folder_is_refused(birds, tmp_path, name):
    (tmp_path / "secret.png").write_bytes(picture(0))
    (birds / "splits.csv").write_text(csv([*ROWS, (name, "kite", "trainval")]))
    for root in (birds, pack(birds)):
        assert refusal(root) == f"{name!r} leads out of {root}: name a path inside"
        with pytest.raises(IcisError, match="leads out of"):
            open_source(root).read(name)


def test_a_path_out_of_the_folder_is_refused_for_the_splits_too(birds):
    (birds.parent / "splits.csv").write_text(csv())
    for key in ("splits", "class_list"):
        assert "leads out of" in refusal(birds, **{key: "../splits.csv"})


def test_a_link_in_the_folder_may_lead_anywhere(birds, tmp_path):
    (birds / "images").rename(tmp_path / "big disk")
    (birds / "images").symlink_to(tmp_path / "big disk")
    assert read(birds)[0].frame.rows() == ROWS


def test_ways_to_write_a_path_are_one(birds):
    rows = [(f"./{file}", *rest) for file, *rest in ROWS]
    (birds / "splits.csv").write_text(csv(rows))
    assert read(birds)[0].frame.equals(read(pack(birds))[0].frame)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            [*ROWS[:-1], (ROWS[-1][0], "kite", "test-seen")],
            "splits.csv: row 5 has the split 'test-seen'; did you mean 'test_seen'?",
        ),
        ([*ROWS, ROWS[0]], "'images/wren/1.png' is listed twice (trainval, trainval)"),
        (
            [*ROWS[:-1], (ROWS[-1][0], "auk", "trainval")],
            "splits.csv: class 'auk' has 1 images in trainval or test_seen and 1 in test_unseen",
        ),
        (
            [*ROWS[:-2], (ROWS[-1][0], "kite", "test_seen")],
            "splits.csv: the seen class 'kite' has test_seen images but none in trainval",
        ),
        ([*ROWS, ("", "kite", "trainval")], "splits.csv: row 6 has no image"),
        ([], "splits.csv: there is no trainval image"),
    ],
)
def test_a_faulty_row_is_named(birds, rows, expected):
    (birds / "splits.csv").write_text(csv(rows))
    assert expected in refusal(birds)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("wren\nauk\nkite\nauk\n", "the class name 'auk' stands twice in the class list"),
        ("wren\nauk\nkite\nowl\n", "class 'owl' has no image"),
        ("wren\nauk\n", "image 'images/kite/1.png' has the class 'kite', which the class list lac"),
        ("", "has the class 'wren', which the class list lacks"),
    ],
)
def test_a_faulty_class_list_is_named(birds, names, expected):
    (birds / "classes.txt").write_text(names)
    assert expected in refusal(birds, class_list="classes.txt")


def test_absent_files_are_named(birds, tmp_path):
    absent = tmp_path / "absent"
    assert refusal(absent) == (
        f"{absent} does not exist; it should be a folder of images or a .tar"
    )
    assert refusal(birds, splits="s.csv") == f"s.csv is neither a file here nor inside {birds}"
    assert refusal(birds, splits=str(absent)) == (
        f"{absent} is neither a file here nor inside {birds}"
    )
    tar = pack(birds)
    assert refusal(tar, class_list="c.txt") == f"c.txt is neither a file here nor inside {tar}"


def test_an_absent_column_is_named_with_what_there_is(birds):
    assert refusal(birds, split_column="part") == (
        "splits.csv: there is no column 'part', only file, class, split; "
        "set file_column, class_column, split_column"
    )


def test_files_that_are_something_else(birds, tmp_path):
    for content in (b"", b"a,b\n1,2,3\n"):
        (birds / "splits.csv").write_bytes(content)
        assert refusal(birds).startswith("splits.csv is no readable table: ")
    (birds / "splits.parquet").write_text(csv())
    assert refusal(birds, splits="splits.parquet").startswith("splits.parquet is no readable table")
    (birds / "splits.csv").write_text(csv())
    (birds / "classes.txt").write_bytes(b"wren\xff\n")
    assert refusal(birds, class_list="classes.txt").startswith("classes.txt is no text in UTF-8")
    other = tmp_path / "birds.zip"
    other.write_bytes(b"PK")
    assert refusal(other) == (
        f"{other} is neither a folder nor a .tar (unpack a compressed archive first)"
    )
    for content in (b"no tar at all" * 100, b""):
        broken = tmp_path / "broken.tar"
        broken.write_bytes(content)
        assert str(broken) in refusal(broken)


def test_a_compressed_or_cut_tar_is_named(birds):
    tar = pack(birds)
    whole = tar.read_bytes()
    compressed = tar.with_name("compressed.tar")
    with tarfile.open(compressed, "w:gz") as archive:
        archive.add(birds, ".")
    assert refusal(compressed).startswith(f"{compressed} is no readable uncompressed tar: ")
    source = TarSource(tar)
    members = source.members
    (offset, size) = members["splits.csv"]
    tar.write_bytes(whole[: offset + size // 2])
    assert str(tar) in refusal(tar)
    with pytest.raises(IcisError, match=r"birds\.tar is cut off inside 'splits\.csv'"):
        source.read("splits.csv")


def test_sources_name_what_they_lack(birds):
    with pytest.raises(IcisError, match=r"birds/absent\.png cannot be read: No such file"):
        FolderSource(birds).read("absent.png")
    with pytest.raises(IcisError, match=r"birds\.tar has no member 'absent\.png'"):
        TarSource(pack(birds)).read("absent.png")
    assert not FolderSource(birds).has("images")  # a folder is no file
    assert not TarSource(pack(birds)).has("images")


def test_a_link_in_a_tar_is_no_member(birds):
    (birds / "link.png").symlink_to("/etc/hostname")
    assert not TarSource(pack(birds)).has("link.png")


def test_lines_and_tables():
    assert parse_lines(b"a\tone\n\n b c \n", "x") == ["a", " b c "]
    assert parse_table(b"a,b\n01,02\n\n", "x.csv", text=["a"]).rows() == [("01", 2)]


# as a few lines of an experiment file, through the stages


@pytest.fixture
def plan(birds, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (birds / "att.csv").write_text("class,a,b\nauk,1,0\nwren,0,1\nkite,1,2\n")

    def make(root, **settings):
        data = {
            "name": "small",
            "datasets": {
                "birds": {
                    "kind": "images",
                    "root": str(root),
                    "descriptors": {"att": {"file": "att.csv"}},
                    **settings,
                }
            },
            "backbones": {"tiny": {"model": "resnet18"}},
            "heads": {"last": {}},
            "methods": {"mlp": {"method": "mlp"}},
            "tables": {
                "main": {
                    "datasets": ["birds"],
                    "backbones": ["tiny"],
                    "heads": ["last"],
                    "descriptors": ["att"],
                    "methods": ["mlp"],
                }
            },
        }
        return Plan(parse_experiment(data, source="e.yaml"))

    return make


def test_a_folder_or_a_tar_is_added_by_a_few_lines(plan, birds):
    found = []
    for root in (birds, pack(birds)):
        made = plan(root)
        assert made.missing_files() == []
        index_stage.run(made, "birds")
        describe.run(made, "birds", "att")
        found.append(pl.read_parquet(layout.descriptors("birds", "att")))
        layout.index("birds").unlink()
        layout.descriptors("birds", "att").unlink()
    assert found[0].equals(found[1])
    assert found[0]["class"].to_list() == ["auk", "kite", "wren"]


def test_a_fault_leaves_no_index(plan, birds):
    (birds / "splits.csv").write_text(csv([*ROWS, ROWS[0]]))
    with pytest.raises(IcisError, match="listed twice"):
        index_stage.run(plan(birds), "birds")
    assert not layout.index("birds").parent.exists()


@pytest.mark.parametrize(
    ("content", "threads"),
    [(picture(3)[:45], 1), (b"", 1), (b"text", 1), (picture(3)[:45], 2)],
    ids=["cut", "empty", "text", "in a thread"],
)
def test_an_unreadable_image_is_named_and_leaves_no_features(
    plan, birds, monkeypatch, content, threads
):
    from icis import backbones

    made = plan(birds)
    index_stage.run(made, "birds")
    (birds / ROWS[3][0]).write_bytes(content)
    data = {"input_size": (3, 8, 8), "interpolation": "bilinear", "crop_pct": 1.0,
            "mean": (0, 0, 0), "std": (1, 1, 1)}  # fmt: skip
    tiny = backbones.LoadedBackbone(torch.nn.Flatten(), data, "tiny")
    monkeypatch.setattr(backbones, "load_backbone", lambda *_: tiny)
    monkeypatch.setattr(backbones, "weights_identity", lambda *_: {})
    with pytest.raises(IcisError) as caught:
        extract.run(made, "birds", "tiny", device="cpu", threads=threads)
    assert "images/kite/1.png" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert not layout.features("birds", "tiny").exists()
    (birds / ROWS[3][0]).write_bytes(picture(3))
    extract.run(made, "birds", "tiny", device="cpu", threads=threads)
    vectors = pl.read_parquet(layout.features("birds", "tiny"))
    assert vectors.select("image", "class", "split").rows() == ROWS
    shades = [np.frombuffer(value, "<f4")[0] * 255 for value in vectors["vector"]]
    np.testing.assert_allclose(shades, range(5), atol=1e-4)


# real images


@pytest.mark.real_data
def test_tiny_imagenet_in_its_tar(real_data):
    index, _ = read(real_data / "images/tiny-imagenet-200.tar", class_list="classes.txt")
    assert dict(index.frame["split"].value_counts().iter_rows()) == {
        "trainval": 7500, "test_seen": 7500, "test_unseen": 2500
    }  # fmt: skip
    assert (len(index.classes.seen), len(index.classes.unseen)) == (150, 50)
    lines = TarSource(real_data / "images/tiny-imagenet-200.tar").read("classes.txt").decode()
    assert index.classes.names == tuple(line.split("\t")[0] for line in lines.splitlines())
