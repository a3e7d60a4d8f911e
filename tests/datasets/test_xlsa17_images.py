"""Images in the xlsa17 layout: names, folders, boxes, counts; all layouts are the true ones."""

import io
import tarfile

import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy.io import savemat

from icis import layout
from icis.artifacts import file_sha256, read_metadata
from icis.backbones import decode
from icis.config import Xlsa17Dataset, parse_experiment
from icis.datasets.index import load_index
from icis.datasets.xlsa17 import read_xlsa17
from icis.errors import IcisError
from icis.plan import Plan
from icis.stages import index as index_stage
from icis.stages.common import image_source, images_config

# class: folder below the images; not in alphabetical order
CUB = {
    "002.Laysan_Albatross": "002.Laysan_Albatross",
    "001.Black_footed_Albatross": "001.Black_footed_Albatross",
    "010.Red_winged_Blackbird": "010.Red_winged_Blackbird",
}
AWA2 = {"grizzly+bear": "grizzly+bear", "antelope": "antelope", "killer+whale": "killer+whale"}
SUN = {
    "athletic_field_outdoor": "a/athletic_field/outdoor",
    "access_road": "a/access_road",
    "airport_airport": "a/airport/airport",
    "athletic_field": "a/athletic_field",
}
FLO = {"class-001": "", "class-002": "", "class-003": ""}
LAYOUTS = {
    "CUB": (CUB, "/BS/Deep_Fragments/work/MSc/CUB_200_2011/CUB_200_2011/images/", "images/"),
    "AWA2": (AWA2, "/BS/xian/work/data/Animals_with_Attributes2//JPEGImages/", "JPEGImages/"),
    "SUN": (SUN, "/BS/Deep_Fragments/work/MSc/data/SUN/images/", "SUNAttributeDB_Images/images/"),
    "FLO": (FLO, "/BS/xian/work/data/flowers/jpg/", "jpg/"),
}


def jpeg(size=(12, 8)):
    file = io.BytesIO()
    Image.new("RGB", size, (10, 200, 30)).save(file, "jpeg")
    return file.getvalue()


JPEG = jpeg()


def cells(names):
    return np.array(names, dtype=object).reshape(-1, 1)


def column(values):
    return np.array(values, dtype=np.uint16).reshape(-1, 1)


def save(folder, names, labels, files, *, unseen, **changes):
    """Write labels.mat and splits.mat: of a seen class the last row is test_seen."""
    rows = {split: [] for split in ("trainval", "test_seen", "test_unseen")}
    for row, label in enumerate(labels, start=1):
        last = label not in labels[row:]
        seen = "test_seen" if last else "trainval"
        rows["test_unseen" if label in unseen else seen].append(row)
    locs = {f"{split}_loc": column(found) for split, found in rows.items()}
    about = {"att": np.eye(4)[:, : len(names)], **locs, "allclasses_names": cells(names), **changes}
    savemat(folder / "splits.mat", {k: v for k, v in about.items() if v is not None})
    savemat(folder / "labels.mat", {"labels": column(labels), "image_files": cells(files)})
    return Xlsa17Dataset(
        kind="xlsa17",
        splits=str(folder / "splits.mat"),
        labels=str(folder / "labels.mat"),
        images=str(folder / "root"),
    )


def unpack(folder, files):
    for file in files:
        path = folder / "root" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG)


def pack(folder):
    with tarfile.open(folder / "root.tar", "w") as archive:
        for file in sorted((folder / "root").rglob("*"), reverse=True):
            archive.add(file, f"./{file.relative_to(folder / 'root')}", recursive=False)
    return str(folder / "root.tar")


def miniature(folder, name="AWA2", *, prefix=None, inner=None, relabel=None, **changes):
    """Write a data set of two seen classes with 3 images each, others unseen with 1."""
    classes, foreign, within = LAYOUTS[name]
    names, labels, files = list(classes), [], []
    for number, each in enumerate(names, start=1):
        for _ in range(3 if number <= 2 else 1):
            labels.append(number)
            place = f"{classes[each]}/" if classes[each] else ""
            files.append(f"{place}image_{len(labels):05d}.jpg")
    order = [*range(0, len(files), 2), *range(1, len(files), 2)]  # rows are in no folder's order
    labels, files = [labels[each] for each in order], [files[each] for each in order]
    foreign, within = foreign if prefix is None else prefix, within if inner is None else inner
    unpack(folder, [within + file for file in files])
    unseen = range(3, len(names) + 1)
    listed = [foreign + file for file in files]
    config = save(folder, names, relabel or labels, listed, unseen=unseen, **changes)
    return config, [within + file for file in files], [names[each - 1] for each in labels]


def with_root(config, root):
    return config.model_copy(update={"images": str(root)})


def refusal(config):
    with pytest.raises(IcisError) as caught:
        read_xlsa17(config)
    return str(caught.value)


# joining


@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_find_their_files_by_name(tmp_path, name):
    config, files, classes = miniature(tmp_path, name)
    index, sources, facts = read_xlsa17(config)
    row = index.frame["row"].to_list()
    assert sorted(row) == [*range(len(files))]
    assert index.frame["image"].to_list() == [files[each] for each in row]
    assert index.frame["class"].to_list() == [classes[each] for each in row]
    assert index.frame.columns == ["image", "class", "split", "row"]
    assert index.classes.names == tuple(LAYOUTS[name][0])
    assert facts["images_not_listed"] == 0
    count = f"{tmp_path}/root/ ({len(files)} images)"
    assert [*sources] == [f"{tmp_path}/splits.mat", f"{tmp_path}/labels.mat", count]


@pytest.mark.parametrize("name", LAYOUTS)
def test_prefix_and_tar_do_not_change_the_index(tmp_path, name):
    config, *_ = miniature(tmp_path, name)
    expected = read_xlsa17(config)[0]
    for prefix in ("", "\\\\server\\data\\", "images//", "/home/me/"):
        again, *_ = miniature(tmp_path, name, prefix=prefix)
        assert read_xlsa17(again)[0].frame.equals(expected.frame)
    packed = with_root(config, pack(tmp_path))
    index, sources, _ = read_xlsa17(packed)
    assert index.frame.equals(expected.frame)
    assert sources[packed.images] == file_sha256(tmp_path / "root.tar")


def test_extensions_may_differ_in_case(tmp_path):
    config, files, _ = miniature(tmp_path)
    first = tmp_path / "root" / files[0]
    first.rename(first.with_suffix(".JPG"))
    index, *_ = read_xlsa17(config)
    image = index.frame.filter(pl.col("row") == 0)["image"].item()
    assert image == files[0].replace(".jpg", ".JPG")


def test_an_absent_image_is_named(tmp_path):
    config, files, _ = miniature(tmp_path)
    for file in files[2:4]:
        (tmp_path / "root" / file).unlink()
    foreign = LAYOUTS["AWA2"][1]
    first = foreign + files[2].removeprefix("JPEGImages/")
    assert refusal(config) == (
        f"{tmp_path}/labels.mat: 2 of the 7 images that it lists are not in {tmp_path}/root, the "
        f"first is {first!r}; put all of them there"
    )


def test_without_names_there_is_no_joining(tmp_path):
    config, *_ = miniature(tmp_path)
    savemat(tmp_path / "labels.mat", {"labels": column([1, 1, 2, 3, 1, 2, 2])})
    assert refusal(config) == (
        f"{tmp_path}/labels.mat has no image_files, by which images are found; leave images out"
    )


# folders and classes


@pytest.mark.parametrize("name", ["CUB", "AWA2", "SUN"])
def test_a_folder_of_another_class_is_refused(tmp_path, name):
    _, files, classes = miniature(tmp_path, name)
    names = list(LAYOUTS[name][0])
    wrong = [1 + names.index(each) for each in [*classes[1:], classes[0]]]  # off by a row
    config, *_ = miniature(tmp_path, name, relabel=wrong)
    text = refusal(config)
    row = next(row for row, each in enumerate(classes) if names[wrong[row] - 1] != each)
    assert f"image {files[row]!r} has the label {names[wrong[row] - 1]!r}" in text
    assert f"lies in the folder {files[row].rpartition('/')[0]!r}" in text
    assert f"of the class {classes[row]!r}" in text


def test_folders_spell_class_names_in_their_own_way(tmp_path):
    config, files, _ = miniature(tmp_path, inner="JPEGImages/")
    for file in {each.rpartition("/")[0] for each in files}:
        folder = tmp_path / "root" / file
        folder.rename(folder.with_name(folder.name.replace("+", " ").title()))
    index, *_ = read_xlsa17(config)
    assert index.frame["image"][0].startswith("JPEGImages/Grizzly Bear/")


def test_a_class_folder_without_a_split_is_refused(tmp_path):
    config, *_ = miniature(tmp_path)
    unpack(tmp_path, ["JPEGImages/unicorn/unicorn_1.jpg", "JPEGImages/unicorn/._x.jpg"])
    assert refusal(config) == (
        f"{tmp_path}/root: JPEGImages/unicorn is a class folder with no split: no class of "
        f"{tmp_path}/splits.mat has its name and none of its images is in trainval, test_seen or "
        "test_unseen; take it away or use splits that know it"
    )


def test_more_images_of_known_classes_are_counted(tmp_path):
    config, *_ = miniature(tmp_path)
    unpack(tmp_path, [
        "JPEGImages/antelope/more.jpg", "JPEGImages/Killer Whale/1.png", "cover.jpg",
        "JPEGImages/__MACOSX/._more.jpg", "licence/text.txt",
    ])  # fmt: skip
    assert read_xlsa17(config)[2]["images_not_listed"] == 3


def test_folders_are_no_classes_where_none_is(tmp_path):
    config, *_ = miniature(tmp_path, "FLO")
    unpack(tmp_path, ["segmim/segmim_00001.jpg"])
    assert read_xlsa17(config)[2]["images_not_listed"] == 1


# published numbers and the version


COUNTS = {
    "classes": 3, "seen": 2, "unseen": 1, "attributes": 4, "images": 7, "trainval": 4,
    "test_seen": 2, "test_unseen": 1,
}  # fmt: skip


def test_published_counts_hold(tmp_path):
    config, *_ = miniature(tmp_path)
    assert len(read_xlsa17(config.model_copy(update={"counts": COUNTS}))[0].frame) == 7


def test_every_count_that_differs_is_named(tmp_path):
    config, *_ = miniature(tmp_path)
    wrong = COUNTS | {"images": 8, "trainval": 5, "seen": 3, "attributes": 85}
    text = refusal(config.model_copy(update={"counts": wrong}))
    lines = text.splitlines()
    assert lines[0] == f"{tmp_path}/splits.mat does not have the published numbers:"
    assert sorted(line.split(";")[0] for line in lines[1:]) == [
        "  attributes: published 85, found 4",
        "  images: published 8, found 7",
        "  seen: published 3, found 2",
        "  trainval: published 5, found 4",
    ]
    assert "1.0 and 2.0 are often mixed up" in text
    assert f"likely {tmp_path}/labels.mat is cut off" in text


def test_a_cut_labels_file_is_told_by_the_counts(tmp_path):
    """Not by a row that the splits name and the file lacks."""
    config, files, _ = miniature(tmp_path)
    savemat(tmp_path / "labels.mat", {"labels": column([1, 2, 2]), "image_files": cells(files[:3])})
    text = refusal(config.model_copy(update={"counts": COUNTS}))
    assert "images: published 7, found 3" in text


def test_a_number_that_nothing_has_is_refused(tmp_path):
    config, *_ = miniature(tmp_path)
    text = refusal(config.model_copy(update={"counts": {"imagse": 7}}))
    assert text == "counts: there is no number 'imagse'; did you mean 'images'?"


def test_the_version_is_recorded_or_contradicted(tmp_path):
    tuning = {"train_loc": column([1]), "val_loc": column([2])}
    config, *_ = miniature(tmp_path, **tuning)
    assert read_xlsa17(config)[2]["split_version"] == "xlsa17-2.0"
    stated = config.model_copy(update={"split_version": "xlsa17-1.0"})
    assert "is xlsa17-2.0, judging by" in refusal(stated)
    config, *_ = miniature(tmp_path)
    assert read_xlsa17(config)[2]["split_version"] == (
        "xlsa17 (1.0 or 2.0: the file has no train_loc)"
    )


# objects in images (aPY)

OBJECTS = [
    # file, class, box as in the lists, list; the rows are in this order
    ("2008_000002.jpg", "person", (1, 1, 6, 8), 0),
    ("2008_000002.jpg", "diningtable", (3, 2, 12, 8), 0),
    ("2008_000002.jpg", "person", (7, 1, 12, 8), 0),
    ("2008_000009.jpg", "person", (2, 2, 5, 5), 0),
    ("2008_000007.jpg", "person", (1, 1, 12, 8), 1),
    ("2008_000007.jpg", "diningtable", (1, 5, 20, 9), 1),
    ("2008_000009.jpg", "diningtable", (4, 4, 4, 4), 0),
    ("wolf_1.jpg", "wolf", (1, 1, 12, 8), 2),
]
APY = ["diningtable", "wolf", "person"]
LISTS = ("apascal_train.txt", "apascal_test.txt", "ayahoo_test.txt")


def objects(folder, *, lines=None, columns=None):
    """Write aPY in its layout; ``lines`` changes the lists of objects."""
    boxes = folder / "attribute_data"
    boxes.mkdir(exist_ok=True)
    listed = OBJECTS if lines is None else lines
    for number, name in enumerate(LISTS):
        text = "".join(
            " ".join([file, label, *map(str, box), *["0"] * 64]) + "\n"
            for file, label, box, which in listed
            if which == number
        )
        (boxes / name).write_text(text)
    place = {"wolf_1.jpg": "ayahoo_test_images/"}
    voc = "VOCdevkit/VOC2008/JPEGImages/"
    files = [place.get(file, voc) + file for file, *_ in OBJECTS]
    unpack(folder, files)
    unpack(folder, ["VOCdevkit/VOC2008/SegmentationClass/2008_000002.png"])
    labels = [1 + APY.index(label) for _, label, *_ in OBJECTS]
    config = save(folder, APY, labels, [f"/BS/xian/data/aPY//{each}" for each in files], unseen=[2])
    return config.model_copy(update={"boxes": str(boxes)}), files


def test_rows_are_the_objects_of_the_lists(tmp_path):
    config, files = objects(tmp_path)
    index, sources, facts = read_xlsa17(config)
    frame = index.frame.sort("row")
    assert frame.columns == [
        "image", "class", "split", "row", "file", "left", "top", "right", "bottom"
    ]  # fmt: skip
    assert frame["file"].to_list() == files
    assert frame.select("left", "top", "right", "bottom").rows() == [
        (x1 - 1, y1 - 1, x2, y2) for _, _, (x1, y1, x2, y2), _ in OBJECTS
    ]
    voc = "VOCdevkit/VOC2008/JPEGImages/"
    assert frame["image"][0] == f"{voc}2008_000002.jpg#1"
    assert frame["image"][7] == "ayahoo_test_images/wolf_1.jpg"
    assert facts["images_not_listed"] == 1
    assert all(str(tmp_path / "attribute_data" / name) in sources for name in LISTS)


def test_the_order_of_the_lists_counts_within_an_image_and_class_only(tmp_path):
    expected = read_xlsa17(objects(tmp_path)[0])[0].frame
    shuffled = [OBJECTS[each] for each in (7, 6, 1, 0, 5, 2, 4, 3)]
    assert read_xlsa17(objects(tmp_path, lines=shuffled)[0])[0].frame.equals(expected)
    upper = [(file.upper(), label.title(), box, part) for file, label, box, part in OBJECTS]
    assert read_xlsa17(objects(tmp_path, lines=upper)[0])[0].frame.equals(expected)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            OBJECTS[:2] + OBJECTS[3:-1],
            "labels.mat: 2 of 8 rows have no box in the lists of {folder}/attribute_data; the "
            "first is row 3, 'person' in '/BS/xian/data/aPY//VOCdevkit/VOC2008/JPEGImages/"
            "2008_000002.jpg', of which the lists have 1",
        ),
        (
            [*OBJECTS, ("wolf_2.jpg", "wolf", (1, 1, 2, 2), 2), OBJECTS[0]],
            "attribute_data: the lists have 2 objects more than {folder}/labels.mat has rows, the "
            "first is 'person' in '2008_000002.jpg'; is that file cut off?",
        ),
        (
            [*OBJECTS[:4], ("2008_000007.jpg", "person", (6, 1, 5, 8), 1), *OBJECTS[5:]],
            "attribute_data/apascal_test.txt: line 1: the box 6 1 5 8 of 2008_000007.jpg is empty",
        ),
        (
            [("2008_000002.jpg", "person", ("1", "x", 6, 8), 0), *OBJECTS[1:]],
            "attribute_data/apascal_train.txt: line 1: expected image, class, x1 y1 x2 y2 in "
            "whole numbers and attributes, not '2008_000002.jpg person 1 x 6 8 0 0",
        ),
    ],
)
def test_boxes_that_do_not_fit_the_rows_are_named(tmp_path, lines, expected):
    config, _ = objects(tmp_path, lines=lines)
    assert refusal(config).startswith(f"{tmp_path}/{expected.format(folder=tmp_path)}")


def test_an_absent_list_is_named(tmp_path):
    config, _ = objects(tmp_path)
    (tmp_path / "attribute_data/apascal_test.txt").unlink()
    assert refusal(config) == (
        f"{tmp_path}/attribute_data/apascal_test.txt does not exist; boxes should name the folder "
        "of apascal_train.txt, apascal_test.txt, ayahoo_test.txt"
    )


def test_rows_that_share_a_file_without_boxes_are_whole_images(tmp_path):
    config, files = objects(tmp_path)
    index, *_ = read_xlsa17(config.model_copy(update={"boxes": None}))
    frame = index.frame.sort("row")
    assert frame["file"].to_list() == files
    assert frame["left"].to_list() == [None] * 8
    assert frame.schema["bottom"] == pl.Int64
    assert len(frame["image"].unique()) == 8


# through the stages


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Return a plan of objects and of features of the same."""
    monkeypatch.chdir(tmp_path)
    objects(tmp_path)
    both = {"kind": "xlsa17", "splits": "splits.mat"}
    data = {
        "name": "small",
        "datasets": {
            "APY": both | {"labels": "labels.mat", "images": "root", "boxes": "attribute_data"},
            "FEATURES": both | {"features": {"r101": "labels.mat"}},
            "SHAPES": {"kind": "drawn"},
        },
        "heads": {"last": {}},
        "methods": {"mlp": {"method": "mlp"}},
        "tables": {"main": {
            "datasets": ["FEATURES"], "backbones": ["r101"], "heads": ["last"],
            "descriptors": ["att"], "methods": ["mlp"],
        }},
    }  # fmt: skip
    return Plan(parse_experiment(data, source="e.yaml"))


def test_objects_are_cut_out_of_their_images(plan):
    index_stage.run(plan, "APY")
    index, metadata = load_index(layout.index("APY"))
    assert metadata["split_version"] == "xlsa17 (1.0 or 2.0: the file has no train_loc)"
    assert metadata["images_not_listed"] == 1
    assert metadata["dataset"] == "APY"
    source = image_source(plan, "APY", index.frame)
    assert source.names() == sorted(index.frame["image"])
    sizes = {}
    for name, row in index.frame.select("image", "row").iter_rows():
        assert source.has(name)
        sizes[row] = decode(source, name).size
    assert sizes == {
        0: (6, 8), 1: (10, 7), 2: (6, 8), 3: (4, 4), 4: (12, 8), 5: (12, 4), 6: (1, 1), 7: (12, 8)
    }  # fmt: skip
    # without the index, files are whole images
    file = index.frame["file"][0]
    assert decode(image_source(plan, "APY"), file).size == (12, 8)


def test_each_kind_has_its_source(plan):
    with pytest.raises(IcisError, match=r"datasets.FEATURES has features only; set its images"):
        image_source(plan, "FEATURES")
    with pytest.raises(IcisError, match=r"datasets.APY has no table of images: its kind is xlsa17"):
        images_config(plan, "APY")
    assert images_config(plan, "SHAPES").root == str(layout.raw("SHAPES"))
    layout.raw("SHAPES").mkdir(parents=True)
    assert image_source(plan, "SHAPES").names() == []


def test_the_index_of_features_has_no_images_to_count(plan):
    index_stage.run(plan, "FEATURES")
    assert "images_not_listed" not in read_metadata(layout.index("FEATURES"))


# real files


@pytest.mark.real_data
def test_tiny_joins_its_tar(real_data):
    """The .mat lists train/<wnid>/images/<file>, the tar has images/<wnid>/<file>."""
    folder, tar = real_data / "xlsa17/TINY", real_data / "images/tiny-imagenet-200.tar"
    config = Xlsa17Dataset(
        kind="xlsa17",
        splits=str(folder / "cn_splits.mat"),
        labels=str(folder / "mnv2.mat"),
        images=str(tar),
        counts={
            "classes": 200, "seen": 150, "unseen": 50, "attributes": 300, "images": 20000,
            "trainval": 7500, "test_seen": 7500, "test_unseen": 2500,
        },
    )  # fmt: skip
    index, sources, facts = read_xlsa17(config)
    with tarfile.open(tar) as archive:
        table = pl.read_csv(archive.extractfile("splits.csv").read())
    joined = index.frame.join(table, left_on="image", right_on="file")
    assert len(joined) == len(table) == 17500
    assert joined["class"].equals(joined["class_right"].rename("class"))
    assert joined["split"].equals(joined["split_right"].rename("split"))
    assert facts["images_not_listed"] == 0
    assert str(tar) in sources
