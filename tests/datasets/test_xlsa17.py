"""Features and splits in the xlsa17 layout."""

import h5py
import numpy as np
import polars as pl
import pytest
from scipy.io import savemat

from icis import layout
from icis.artifacts import column_vectors, file_sha256, read_metadata, read_table
from icis.config import FileDescriptors, Xlsa17Dataset, parse_experiment
from icis.datasets.descriptors import read_descriptors
from icis.datasets.matlab import positions, read_variables, read_variables_of, strings
from icis.datasets.xlsa17 import read_features, read_xlsa17
from icis.errors import IcisError
from icis.plan import Plan
from icis.stages import describe, extract
from icis.stages import index as index_stage

CLASSES = ["wren", "auk", "kite"]  # not in alphabetical order
LABELS = [3, 1, 2, 1, 3, 2, 1]  # 1-based: kite wren auk wren kite auk wren
LOCS = {"trainval_loc": [7, 1, 2], "test_seen_loc": [4], "test_unseen_loc": [6, 3]}
FEATURES = np.arange(14, dtype=np.float64).reshape(2, 7)


def cells(names):
    return np.array(names, dtype=object).reshape(-1, 1)


def column(values, dtype=np.uint16):
    return np.array(values, dtype=dtype).reshape(-1, 1)


def write(folder, *, features=None, splits=None):
    """Write features.mat and splits.mat; None takes a variable out."""
    data = {
        "features": FEATURES,
        "labels": column(LABELS, np.uint8),
        "image_files": cells([f"{row}.jpg" for row in range(1, 8)]),
    } | (features or {})
    about = {
        "allclasses_names": cells(CLASSES),
        "att": np.array([[1.0, 0, 1], [0, 1, 2]]),
        **{key: column(value) for key, value in LOCS.items()},
    } | (splits or {})
    for name, variables in (("features", data), ("splits", about)):
        kept = {key: value for key, value in variables.items() if value is not None}
        savemat(folder / f"{name}.mat", kept)
    return Xlsa17Dataset(
        kind="xlsa17",
        splits=str(folder / "splits.mat"),
        features={"r101": str(folder / "features.mat")},
    )


def refusal(read, *args):
    with pytest.raises(IcisError) as caught:
        read(*args)
    return str(caught.value)


# the index


def test_rows_and_classes_keep_their_order(tmp_path):
    config = write(tmp_path)
    index, sources, _ = read_xlsa17(config)
    assert index.classes.names == tuple(CLASSES)
    assert index.classes.is_seen == (True, False, True)
    assert index.frame.rows() == [
        ("7.jpg", "wren", "trainval", 6),
        ("1.jpg", "kite", "trainval", 0),
        ("2.jpg", "wren", "trainval", 1),
        ("4.jpg", "wren", "test_seen", 3),
        ("6.jpg", "auk", "test_unseen", 5),
        ("3.jpg", "auk", "test_unseen", 2),
    ]
    assert sources == {
        str(tmp_path / name): file_sha256(tmp_path / name)
        for name in ("splits.mat", "features.mat")
    }


def test_features_stand_in_the_order_of_the_index(tmp_path):
    config = write(tmp_path)
    index, *_ = read_xlsa17(config)
    found = read_features(config, "r101", index)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, FEATURES.T[[6, 0, 1, 3, 5, 2]])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
@pytest.mark.parametrize("count", [200, 255])
def test_labels_of_one_byte_are_widened(tmp_path, dtype, count):
    if dtype == np.int16:
        count += 100  # more classes than a byte counts
    names = [f"class {number:03d}" for number in range(count, 0, -1)]
    labels = np.arange(1, count + 1)
    config = write(
        tmp_path,
        features={
            "features": np.ones((2, count + 1)),
            "labels": column([*labels, 1], dtype),
            "image_files": None,
        },
        splits={
            "allclasses_names": cells(names),
            "trainval_loc": column(labels[:-1]),
            "test_seen_loc": column([count + 1]),
            "test_unseen_loc": column([count]),
        },
    )
    index, *_ = read_xlsa17(config)
    assert index.frame["class"].to_list() == [*names[:-1], names[0], names[-1]]
    assert index.classes.unseen == (names[-1],)
    assert len(read_features(config, "r101", index)) == count + 1


def test_rows_of_one_image_get_names_of_their_own(tmp_path):
    files = cells(["a.jpg", "b.jpg", "a.jpg", "c.jpg", "d.jpg", "e.jpg", "f.jpg"])
    index, *_ = read_xlsa17(write(tmp_path, features={"image_files": files}))
    assert index.frame["image"].to_list() == [
        "f.jpg", "a.jpg#1", "b.jpg", "c.jpg", "e.jpg", "a.jpg#3"
    ]  # fmt: skip


def test_names_may_be_a_matrix_of_characters(tmp_path):
    index, *_ = read_xlsa17(write(tmp_path, splits={"allclasses_names": CLASSES}))
    assert index.classes.names == tuple(CLASSES)


def test_without_names_classes_and_images_are_numbered(tmp_path):
    config = write(tmp_path, features={"image_files": None}, splits={"allclasses_names": None})
    index, *_ = read_xlsa17(config)
    assert index.classes.names == ("class-001", "class-002", "class-003")
    assert index.frame["image"][0] == "row-000007"
    source = FileDescriptors(file="splits.mat")
    path = tmp_path / "splits.mat"
    found = read_descriptors(source, path, path.read_bytes(), index.classes)
    np.testing.assert_array_equal(found.vectors, [[1, 0], [0, 1], [1, 2]])


# faults of the splits


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (
            {"test_seen_loc": column([4, 1])},
            "splits.mat: image '1.jpg' is listed twice (trainval, test_seen)",
        ),
        (
            {"test_unseen_loc": column([6, 3, 6])},
            "splits.mat: image '6.jpg' is listed twice (test_unseen, test_unseen)",
        ),
        (
            {"trainval_loc": column([7, 1, 2, 8])},
            "splits.mat: trainval_loc: entry 4 is 8, expected a whole number in 1 … 7",
        ),
        (
            {"trainval_loc": column([0, 7, 1, 2])},  # counted from 0
            "splits.mat: trainval_loc: entry 1 is 0, expected a whole number in 1 … 7",
        ),
        (
            {"test_seen_loc": column([1.5], np.float64)},
            "splits.mat: test_seen_loc: entry 1 is 1.5, expected a whole number in 1 … 7",
        ),
        (
            {"test_seen_loc": column([np.nan], np.float64)},
            "splits.mat: test_seen_loc: entry 1 is nan, expected a whole number in 1 … 7",
        ),
        (
            {"test_seen_loc": "all"},
            "splits.mat: test_seen_loc: expected whole numbers in 1 … 7, not <U3",
        ),
        (
            {"test_seen_loc": None},
            "splits.mat has no variable 'test_seen_loc'; it has: allclasses_names, att, "
            "test_unseen_loc, trainval_loc",
        ),
        (
            {"test_seen_loc": np.zeros((0, 1))},
            "splits.mat: there is no test_seen image, so no seen class to work with",
        ),
        (
            {"trainval_loc": column([7, 1, 2, 3]), "test_unseen_loc": column([6])},
            "splits.mat: class 'auk' has 1 images in trainval or test_seen and 1 in test_unseen; "
            "a class is seen or unseen",
        ),
        (
            {"trainval_loc": column([7, 2])},
            "splits.mat: class 'kite' has no image, so nothing says whether it is seen; "
            "give it images or take it from the class list",
        ),
        (
            {"trainval_loc": column([7, 2]), "test_seen_loc": column([4, 1])},
            "splits.mat: the seen class 'kite' has test_seen images but none in trainval",
        ),
        (
            {"allclasses_names": cells(["wren", "auk", "wren"])},
            "splits.mat: the class name 'wren' stands twice in the class list",
        ),
        (
            {"allclasses_names": cells(CLASSES[:2])},
            "features.mat: labels: entry 1 is 3, expected a whole number in 1 … 2",
        ),
        (
            {"allclasses_names": None, "att": None},
            "splits.mat has neither 'allclasses_names' nor 'att': which classes are there?",
        ),
    ],
)
def test_a_fault_of_the_splits_is_named(tmp_path, splits, expected):
    assert refusal(read_xlsa17, write(tmp_path, splits=splits)) == f"{tmp_path}/{expected}"


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (
            {"labels": column([3, 1, 2, 1, 4, 2, 1], np.uint8)},
            "features.mat: labels: entry 5 is 4, expected a whole number in 1 … 3",
        ),
        (
            {"labels": column([2, 0, 1, 0, 2, 1, 0], np.uint8)},  # counted from 0
            "features.mat: labels: entry 2 is 0, expected a whole number in 1 … 3",
        ),
        (
            {"labels": None},
            "features.mat has no variable 'labels'; it has: features, image_files",
        ),
        (
            {"image_files": cells(["1.jpg", "2.jpg"])},
            "features.mat: there are 7 labels but 2 image_files",
        ),
        (
            {"labels": np.zeros((0, 1)), "image_files": None},
            "splits.mat: trainval_loc: entry 1 is 7, expected a whole number in 1 … 0",
        ),
    ],
)
def test_a_fault_of_the_labels_is_named(tmp_path, features, expected):
    assert refusal(read_xlsa17, write(tmp_path, features=features)) == f"{tmp_path}/{expected}"


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (
            {"features": FEATURES.T},
            "features are [7, 2] of float64, but there are 7 labels; expected numbers [D, N]",
        ),
        (
            {"features": FEATURES[:, :6]},
            "features are [2, 6] of float64, but there are 7 labels; expected numbers [D, N]",
        ),
        (
            {"features": cells(CLASSES)},
            "features are [3] of <U4, but there are 7 labels; expected numbers [D, N]",
        ),
        ({"features": None}, "has no variable 'features'; it has: image_files, labels"),
        (
            {"labels": column([3, 1, 2, 1, 3, 2, 3])},
            "row 7 is of class 'kite', not 'wren'",
        ),
        (
            {"labels": column([3, 1, 2, 1, 3, 2, 4])},
            "labels: entry 7 is 4, expected a whole number in 1 … 3",
        ),
        (
            {"labels": column(LABELS[:6]), "features": FEATURES[:, :6]},
            "has 6 rows, the splits name row 7",
        ),
    ],
)
def test_features_of_another_backbone_must_agree(tmp_path, features, expected):
    config = write(tmp_path)
    index, *_ = read_xlsa17(config)
    (tmp_path / "other").mkdir()
    write(tmp_path / "other", features={"image_files": None, **features})
    path = tmp_path / "other/features.mat"
    both = config.model_copy(update={"features": {**config.features, "other": str(path)}})
    expected = expected.replace("image_files, labels", "labels")
    separator = " " if expected.startswith("has") else ": "
    assert refusal(read_features, both, "other", index) == f"{path}{separator}{expected}"
    assert len(read_features(both, "r101", index)) == 6


@pytest.mark.parametrize("content", [b"", b"text", b"MATLAB 5.0 MAT-file" + bytes(300)])
def test_a_file_that_is_no_mat_file_is_named(tmp_path, content):
    config = write(tmp_path)
    (tmp_path / "splits.mat").write_bytes(content)
    assert refusal(read_xlsa17, config).startswith(f"{tmp_path}/splits.mat is no readable .mat")
    (tmp_path / "splits.mat").unlink()
    assert refusal(read_xlsa17, config) == f"{tmp_path}/splits.mat does not exist"


def test_a_cut_file_is_named(tmp_path):
    config = write(tmp_path)
    path = tmp_path / "features.mat"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert f"{path}" in refusal(read_xlsa17, config)


def test_variables_of_a_file_in_hdf5(tmp_path):
    path = tmp_path / "new.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["features"] = FEATURES.T  # MATLAB's order of axes
        file["features"].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file".ljust(124) + bytes([0, 2]) + b"IM")
    np.testing.assert_array_equal(read_variables(path, ["features"])["features"], FEATURES)
    assert refusal(read_variables, path, ["labels"]) == (
        f"{path} has no variable 'labels'; it has: features"
    )
    found = read_variables_of(path.read_bytes(), path, ["features"])
    np.testing.assert_array_equal(found["features"], FEATURES)


def test_positions_and_strings():
    np.testing.assert_array_equal(positions(np.array([[255]], np.uint8), 255, "x"), [254])
    np.testing.assert_array_equal(positions(3, 3, "x"), [2])
    assert strings("one") == ["one"]
    assert strings(np.array(["a ", "bcd"])) == ["a", "bcd"]


# through the stages


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = {
        "name": "small",
        "datasets": {
            "BIRDS": {
                "kind": "xlsa17",
                "splits": "splits.mat",
                "features": {"r101": "features.mat"},
            }
        },
        "heads": {"last": {}},
        "methods": {"mlp": {"method": "mlp"}},
        "tables": {
            "main": {
                "datasets": ["BIRDS"],
                "backbones": ["r101"],
                "heads": ["last"],
                "descriptors": ["att"],
                "methods": ["mlp"],
            }
        },
    }
    return Plan(parse_experiment(data, source="e.yaml"))


def test_a_data_set_is_added_by_a_few_lines(plan, tmp_path):
    write(tmp_path)
    assert plan.missing_files() == []
    index_stage.run(plan, "BIRDS")
    describe.run(plan, "BIRDS", "att")
    extract.run(plan, "BIRDS", "r101")
    table = read_table(layout.features("BIRDS", "r101"))
    np.testing.assert_array_equal(column_vectors(table["vector"]), FEATURES.T[[6, 0, 1, 3, 5, 2]])
    assert table["class"].to_pylist() == ["wren", "kite", "wren", "wren", "auk", "auk"]
    metadata = read_metadata(layout.features("BIRDS", "r101"))
    assert metadata["dim"] == 2
    assert metadata["classes"] == {"names": CLASSES, "is_seen": [True, False, True]}
    assert metadata["sources"]["features.mat"] == file_sha256(tmp_path / "features.mat")
    assert metadata["sources"]["splits.mat"] == file_sha256(tmp_path / "splits.mat")
    described = read_table(layout.descriptors("BIRDS", "att"))
    np.testing.assert_array_equal(column_vectors(described["vector"]), [[1, 0], [0, 1], [1, 2]])
    assert described["class"].to_pylist() == CLASSES


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_features_that_are_not_finite_are_named_and_nothing_is_left(plan, tmp_path, value):
    features = FEATURES.copy()
    features[1, 3] = value
    write(tmp_path, features={"features": features})
    index_stage.run(plan, "BIRDS")
    with pytest.raises(IcisError) as caught:
        extract.run(plan, "BIRDS", "r101")
    text = str(caught.value)
    assert "1 of 6 rows hold NaN or infinity, the first is row 4 (4.jpg)" in text
    assert list(layout.features("BIRDS", "r101").parent.iterdir()) == []


def test_features_that_are_not_finite_but_unused_do_not_matter(plan, tmp_path):
    features = FEATURES.copy()
    features[:, 4] = np.nan  # no split names row 5
    write(tmp_path, features={"features": features})
    index_stage.run(plan, "BIRDS")
    extract.run(plan, "BIRDS", "r101")
    assert len(read_table(layout.features("BIRDS", "r101"))) == 6


def test_a_fault_leaves_no_index_and_keeps_the_old_one(plan, tmp_path):
    write(tmp_path, splits={"test_seen_loc": column([4, 1])})
    with pytest.raises(IcisError, match="listed twice"):
        index_stage.run(plan, "BIRDS")
    assert not layout.index("BIRDS").parent.exists()
    write(tmp_path)
    index_stage.run(plan, "BIRDS")
    before = layout.index("BIRDS").read_bytes()
    write(tmp_path, splits={"test_seen_loc": column([4, 1])})
    with pytest.raises(IcisError, match="listed twice"):
        index_stage.run(plan, "BIRDS")
    assert layout.index("BIRDS").read_bytes() == before
    assert [*layout.index("BIRDS").parent.glob("*.parquet")] == [layout.index("BIRDS")]


# the official files

OFFICIAL = {  # seen, unseen, attributes, trainval, test_seen, test_unseen (Xian et al.)
    "CUB": (150, 50, 312, 7057, 1764, 2967),
    "AWA2": (40, 10, 85, 23527, 5882, 7913),
    "SUN": (645, 72, 102, 10320, 2580, 1440),
    "AWA1": (40, 10, 85, 19832, 4958, 5685),
    "APY": (20, 12, 64, 5932, 1483, 7924),
    "FLO": (82, 20, 1024, 5631, 1403, 1155),
}


def spread(rows, class_ids):
    """Give the rows to the classes in turn."""
    return np.resize(class_ids, len(rows))


@pytest.mark.real_data
@pytest.mark.parametrize("name", OFFICIAL)
def test_the_official_splits(real_data, tmp_path, name):
    """The labels are made up, since the features are not at hand: each row is in its part."""
    seen, unseen, dim, *parts = OFFICIAL[name]
    folder = real_data / "splits" / name
    locs = read_variables(
        folder / "att_splits.mat",
        ["trainval_loc", "test_seen_loc", "test_unseen_loc"],
        ("allclasses_names",),
    )
    names, is_unseen = None, np.arange(seen + unseen) >= seen
    if "allclasses_names" in locs:
        names = strings(locs["allclasses_names"])
        of_unseen = {*(folder / "testclasses.txt").read_text().split()}
        is_unseen = np.array([each in of_unseen for each in names])
    seen_ids, unseen_ids = np.flatnonzero(~is_unseen) + 1, np.flatnonzero(is_unseen) + 1
    labels = np.zeros(sum(parts), np.uint16)
    for part, ids in (
        ("trainval_loc", seen_ids), ("test_seen_loc", seen_ids), ("test_unseen_loc", unseen_ids)
    ):  # fmt: skip
        labels[locs[part] - 1] = spread(locs[part], ids)
    savemat(tmp_path / "f.mat", {"features": np.ones((1, len(labels))), "labels": labels[:, None]})

    config = Xlsa17Dataset(
        kind="xlsa17",
        splits=str(folder / "att_splits.mat"),
        features={"none": str(tmp_path / "f.mat")},
    )
    index, *_ = read_xlsa17(config)
    counts = dict(index.frame["split"].value_counts().iter_rows())
    assert [counts[each] for each in ("trainval", "test_seen", "test_unseen")] == parts
    assert index.frame["row"].n_unique() == sum(parts)
    assert (len(index.classes.seen), len(index.classes.unseen)) == (seen, unseen)
    if names is not None:
        assert index.classes.names == tuple(names)
        listed = (folder / "trainvalclasses.txt").read_text().split()
        assert {*index.classes.seen} == {*listed}
    path = folder / "att_splits.mat"
    source = config.descriptors["att"]
    found = read_descriptors(source, path, path.read_bytes(), index.classes)
    assert found.vectors.shape == (seen + unseen, dim)


@pytest.mark.real_data
def test_the_order_of_classes_is_the_files_own(real_data):
    found = read_variables(real_data / "splits/CUB/att_splits.mat", ["allclasses_names"])
    names = strings(found["allclasses_names"])
    assert names[0] == "002.Laysan_Albatross"
    assert names != sorted(names)


@pytest.mark.real_data
def test_tiny_is_read_whole(real_data):
    folder = real_data / "xlsa17/TINY"
    config = Xlsa17Dataset(
        kind="xlsa17",
        splits=str(folder / "cn_splits.mat"),
        features={"mnv2": str(folder / "mnv2.mat")},
    )
    index, *_ = read_xlsa17(config)
    assert dict(index.frame["split"].value_counts().iter_rows()) == {
        "trainval": 7500, "test_seen": 7500, "test_unseen": 2500
    }  # fmt: skip
    assert (len(index.classes.seen), len(index.classes.unseen)) == (150, 50)
    features = read_features(config, "mnv2", index)
    assert features.shape == (17500, 1280)
    assert np.linalg.norm(features, axis=1).mean() == pytest.approx(31.3, abs=0.1)
    # the class of a row is the folder of its image
    joined = index.frame.filter(pl.col("image").str.starts_with("train/"))
    assert (joined["image"].str.split("/").list.get(1).n_unique()) <= 200
    assert joined.group_by(pl.col("image").str.split("/").list.get(1)).agg(
        pl.col("class").n_unique()
    )["class"].max() == 1  # fmt: skip
