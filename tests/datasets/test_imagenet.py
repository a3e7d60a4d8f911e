"""ImageNet's validation images in each of their layouts."""

import tarfile

import numpy as np
import pytest
from scipy.io import savemat

from icis import layout
from icis.artifacts import file_sha256
from icis.config import ImageNetDataset, parse_experiment
from icis.datasets.imagenet import read_imagenet
from icis.datasets.index import load_index
from icis.errors import IcisError
from icis.plan import Plan
from icis.stages import index as index_stage
from icis.stages.common import image_source

WNIDS = ["n01440764", "n02119789", "n01443537"]  # by number of class; not sorted
TRUTH = [2, 1, 3, 2, 1]  # the class of image 1, 2, …
CLASS_OF = {number: WNIDS[each - 1] for number, each in enumerate(TRUTH, start=1)}
TRUTH_FILE = "ILSVRC2012_validation_ground_truth.txt"
DEVKIT = "ILSVRC2012_devkit_t12/data"


def name(number):
    return f"ILSVRC2012_val_{number:08d}.JPEG"


def put(path, data=b"a JPEG"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def folders(root, inner=""):
    for number, wnid in CLASS_OF.items():
        put(root / inner / wnid / name(number))


def flat(root, inner="val"):
    for number in CLASS_OF:
        put(root / inner / name(number))


def solution(root, rows=None):
    rows = rows or [
        f"{name(number)[:-5]},{wnid} 85 1 499 272 {wnid} 1 2 3 4 "
        for number, wnid in [*CLASS_OF.items()][::-1]
    ]
    put(root / "LOC_val_solution.csv", "\n".join(["ImageId,PredictionString", *rows]).encode())


def devkit(root, truth=TRUTH, leaves=WNIDS):
    """Write the ground truth and meta.mat, whose last classes are parents."""
    put(root / DEVKIT / TRUTH_FILE, "".join(f"{each}\n" for each in truth).encode())
    kinds = [
        ("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O"),
        ("children", "O"),
    ]  # fmt: skip
    rows = [(np.uint16(n), wnid, "a thing", 0, np.zeros(0)) for n, wnid in enumerate(leaves, 1)]
    rows += [(np.uint16(1001), "n00001740", "entity", 2, np.array([1, 2]))]
    synsets = np.array(rows, dtype=kinds).reshape(-1, 1)
    savemat(root / DEVKIT / "meta.mat", {"synsets": synsets})


def read(root):
    return read_imagenet(ImageNetDataset(kind="imagenet-val", root=str(root)))


def refusal(root):
    with pytest.raises(IcisError) as caught:
        read(root)
    return str(caught.value)


def pack(root):
    path = root.with_name("val.tar")
    with tarfile.open(path, "w") as archive:
        archive.add(root, ".")
    return path


def build(layout_name, root):
    if layout_name == "folders":
        folders(root)
    else:
        flat(root)
        {"kaggle": solution, "devkit": devkit}[layout_name](root)


@pytest.mark.parametrize("layout_name", ["folders", "kaggle", "devkit"])
@pytest.mark.parametrize("packed", [False, True])
def test_each_layout_gives_the_same_classes(tmp_path, layout_name, packed):
    root = tmp_path / "imagenet"
    build(layout_name, root)
    index, sources = read(pack(root) if packed else root)
    found = dict(index.frame.select("image", "class").iter_rows())
    assert {image.rsplit("/")[-1]: each for image, each in found.items()} == {
        name(number): wnid for number, wnid in CLASS_OF.items()
    }
    assert all((root / image).is_file() for image in found)
    assert index.classes.names == tuple(sorted(WNIDS))
    assert all(index.classes.is_seen)
    assert {*index.frame["split"]} == {"test_seen"}
    assert index.frame["image"].is_sorted()
    labels = {"folders": 0, "kaggle": 1, "devkit": 2}[layout_name]
    assert len(sources) == 1 + labels


def test_files_of_labels_are_hashed(tmp_path):
    build("devkit", tmp_path)
    _, sources = read(tmp_path)
    for file in (TRUTH_FILE, "meta.mat"):
        path = tmp_path / DEVKIT / file
        assert sources[str(path)] == file_sha256(path)


def test_training_images_beside_do_not_matter_where_a_table_names_the_images(tmp_path):
    build("kaggle", tmp_path)
    put(tmp_path / "train/n01440764/n01440764_10026.JPEG")
    put(tmp_path / "test/ILSVRC2012_test_00000001.JPEG")
    assert len(read(tmp_path)[0].frame) == len(TRUTH)


def test_sorted_images_with_their_table_must_agree(tmp_path):
    folders(tmp_path)
    solution(tmp_path)
    assert len(read(tmp_path)[0].frame) == len(TRUTH)
    (tmp_path / WNIDS[1] / name(1)).rename(tmp_path / WNIDS[0] / name(1))
    assert refusal(tmp_path) == (
        f"{tmp_path}: '{WNIDS[0]}/{name(1)}' is {WNIDS[1]} according to LOC_val_solution.csv"
    )


# what cannot be read


def test_what_was_looked_for_is_named(tmp_path):
    flat(tmp_path)
    assert refusal(tmp_path) == (
        f"{tmp_path}: looked for folders named by wnid (n01440764/*.JPEG), for "
        f"LOC_val_solution.csv and for {TRUTH_FILE} with meta.mat, and found none of them beside "
        "5 images; put one there, or sort the images into wnid folders"
    )
    assert "beside 0 images" in refusal_of_empty(tmp_path / "empty")
    assert refusal(tmp_path / "nowhere").startswith(f"{tmp_path}/nowhere does not exist")


def refusal_of_empty(root):
    root.mkdir()
    return refusal(root)


def test_wnid_folders_lie_in_one_place(tmp_path):
    folders(tmp_path, "val")
    put(tmp_path / "train/n01440764/n01440764_10026.JPEG")
    assert refusal(tmp_path) == (
        f"{tmp_path}: wnid folders lie in 2 places (train, val); set root to the folder of the "
        "validation images alone"
    )
    assert len(read(tmp_path / "val")[0].frame) == len(TRUTH)


def test_images_in_no_wnid_folder_are_refused(tmp_path):
    folders(tmp_path)
    put(tmp_path / "new/cat.JPEG")
    assert "1 images lie in no wnid folder, the first is 'new/cat.JPEG'" in refusal(tmp_path)


@pytest.mark.parametrize("layout_name", ["kaggle", "devkit"])
def test_labels_and_images_must_be_complete(tmp_path, layout_name):
    build(layout_name, tmp_path)
    put(tmp_path / "val" / name(6))
    assert f"says nothing of 1 images, the first is 'val/{name(6)}'; is it cut" in refusal(tmp_path)
    (tmp_path / "val" / name(6)).unlink()
    put(tmp_path / "again" / name(1))
    assert f"again/{name(1)} and val/{name(1)} are the same image" in refusal(tmp_path)
    (tmp_path / "again" / name(1)).unlink()
    for number in (2, 4):
        (tmp_path / "val" / name(number)).unlink()
    text = refusal(tmp_path)
    assert text.startswith(f"{tmp_path}: 2 of the 5 images of ")
    assert text.endswith(f" are absent, the first is {name(2)}; put all of them there")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["ILSVRC2012_val_00000001,"], "row 1 is 'ILSVRC2012_val_00000001', None; expected an"),
        (["ILSVRC2012_val_00000001,cat 1 2"], "row 1 is 'ILSVRC2012_val_00000001', 'cat 1 2'; ex"),
        (["1,n01440764 1 2"], "row 1 is '1', 'n01440764 1 2'; expected an image like ILSVRC2012"),
        (
            ["ILSVRC2012_val_00000001,n01440764 1", "ILSVRC2012_val_00000001,n02119789 1"],
            "row 2 gives ILSVRC2012_val_00000001 another wnid than a row before it",
        ),
    ],
)
def test_a_fault_of_the_table_is_named(tmp_path, rows, expected):
    flat(tmp_path)
    solution(tmp_path, rows)
    assert refusal(tmp_path).startswith(f"{tmp_path}/LOC_val_solution.csv: {expected}")


def test_a_table_of_other_columns_is_refused(tmp_path):
    flat(tmp_path)
    put(tmp_path / "LOC_val_solution.csv", b"image,wnid\n1,2\n")
    assert "has no column 'ImageId', only image, wnid" in refusal(tmp_path)
    put(tmp_path / "LOC_val_solution.csv", b"")
    assert "LOC_val_solution.csv is no readable table" in refusal(tmp_path)


@pytest.mark.parametrize("value", ["1001", "4", "0", "n01440764", "1.5"])
def test_a_class_number_that_is_no_leaf_is_refused(tmp_path, value):
    flat(tmp_path)
    devkit(tmp_path, [2, value, 3, 2, 1])
    assert refusal(tmp_path) == (
        f"{tmp_path}/{DEVKIT}/{TRUTH_FILE}: line 2 is {value!r}, expected the number of a class "
        "of meta.mat in 1 … 1000"
    )


def test_faults_of_the_development_kit_are_named(tmp_path):
    flat(tmp_path)
    devkit(tmp_path)
    meta = tmp_path / DEVKIT / "meta.mat"
    put(tmp_path / "t3/meta.mat")
    assert "has meta.mat twice" in refusal(tmp_path)
    (tmp_path / "t3/meta.mat").unlink()
    savemat(meta, {"synsets": np.array([(1,)], dtype=[("ILSVRC2010_ID", "O")])})
    assert f"{meta}: synsets has no ILSVRC2012_ID and WNID" in refusal(tmp_path)
    savemat(meta, {"other": 1})
    assert f"{meta} has no variable 'synsets'; it has: other" in refusal(tmp_path)
    meta.write_bytes(b"text")
    assert f"{meta} is no readable .mat file" in refusal(tmp_path)
    meta.unlink()
    assert f"{TRUTH_FILE} needs meta.mat of the same development kit" in refusal(tmp_path)


def test_through_the_stage(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build("folders", tmp_path / "val")
    data = {
        "name": "small",
        "datasets": {"imagenet": {"kind": "imagenet-val", "root": "val"}, "shapes": {
            "kind": "drawn"}},
        "backbones": {"tiny": {"model": "resnet10t", "weights": "pretrained"}},
        "heads": {"last": {}},
        "methods": {"mlp": {"method": "mlp"}},
        "tables": {"main": {
            "datasets": ["shapes"], "backbones": ["tiny"], "heads": ["last"],
            "descriptors": ["att"], "methods": ["mlp"],
        }},
    }  # fmt: skip
    plan = Plan(parse_experiment(data, source="e.yaml"))
    index_stage.run(plan, "imagenet")
    index, metadata = load_index(layout.index("imagenet"))
    assert metadata["dataset"] == "imagenet"
    assert metadata["split_version"] == "own"
    source = image_source(plan, "imagenet", index.frame)
    assert source.read(index.frame["image"][0]) == b"a JPEG"
    assert source.box(index.frame["image"][0]) is None
