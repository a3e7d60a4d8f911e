"""Which version a splits file is, tuning splits, and the official files."""

import numpy as np
import pytest
from scipy.io import savemat

from icis.datasets.index import Classes
from icis.datasets.matlab import read_variables, strings
from icis.datasets.splits import (
    class_list,
    recognise_split,
    split_version,
    tuning_split,
    tuning_split_from_lists,
)
from icis.errors import IcisError

LOCS = {"trainval_loc": [1, 2, 3, 4], "test_seen_loc": [5, 6], "test_unseen_loc": [7, 8]}
V1 = LOCS | {"train_loc": [1, 2, 5], "val_loc": [3, 4, 6]}
V2 = LOCS | {"train_loc": [1, 2], "val_loc": [4]}


def arrays(locs):
    return {key: np.array(value, np.uint16).reshape(-1, 1) for key, value in locs.items()}


def save(folder, locs):
    savemat(folder / "att_splits.mat", arrays(locs))
    return folder / "att_splits.mat"


def refusal(call, *args):
    with pytest.raises(IcisError) as caught:
        call(*args)
    return str(caught.value)


@pytest.mark.parametrize(
    ("locs", "version"),
    [
        (V1, "xlsa17-1.0"),
        (V2, "xlsa17-2.0"),
        (V2 | {"train_loc": [1, 2, 6]}, "xlsa17-1.0"),  # one image is enough
        (LOCS, "cannot be told"),
        (LOCS | {"train_loc": [1, 2]}, "cannot be told"),
        (V2 | {"train_loc": [1, 7]}, "cannot be told"),
        (LOCS | {"train_loc": [], "val_loc": []}, "cannot be told"),
    ],
)
def test_versions_differ_in_the_tuning_split(locs, version):
    assert recognise_split(arrays(locs)) == version


@pytest.mark.parametrize(
    ("stated", "locs", "recorded"),
    [
        ("recognise", V1, "xlsa17-1.0"),
        ("recognise", V2, "xlsa17-2.0"),
        ("recognise", LOCS, "xlsa17 (1.0 or 2.0: the file has no train_loc)"),
        (
            "recognise",
            LOCS | {"train_loc": [1]},
            "xlsa17 (1.0 or 2.0: the file has no val_loc)",
        ),
        (
            "recognise",
            V2 | {"val_loc": [8]},
            "xlsa17 (1.0 or 2.0: train_loc and val_loc fit neither)",
        ),
        ("xlsa17-1.0", V1, "xlsa17-1.0"),
        ("xlsa17-2.0", V2, "xlsa17-2.0"),
        ("xlsa17-2.0", LOCS, "xlsa17-2.0 (as stated; the file cannot tell)"),
        ("TINY", LOCS, "TINY"),
        ("TINY", V2, "TINY"),
    ],
)
def test_the_version_for_the_record(tmp_path, stated, locs, recorded):
    assert split_version(stated, arrays(locs), tmp_path) == recorded


@pytest.mark.parametrize(("stated", "locs"), [("xlsa17-2.0", V1), ("xlsa17-1.0", V2)])
def test_a_stated_version_must_be_the_files(tmp_path, stated, locs):
    found = {"xlsa17-2.0": "xlsa17-1.0", "xlsa17-1.0": "xlsa17-2.0"}[stated]
    assert refusal(split_version, stated, arrays(locs), tmp_path) == (
        f"{tmp_path} is {found}, judging by its train_loc and val_loc, but split_version says "
        f"{stated}; use the file of that version, or set split_version: recognise"
    )


# tuning


def test_the_tuning_split_counts_from_zero(tmp_path):
    train, val = tuning_split(str(save(tmp_path, V2)))
    assert (train.tolist(), val.tolist()) == ([0, 1], [3])


@pytest.mark.parametrize(
    ("locs", "expected"),
    [
        (V1, "train_loc and val_loc hold 2 of the 2 images of test_seen: tuning on them is"),
        (V2 | {"val_loc": [4, 8]}, "train_loc and val_loc hold 1 of the 2 images of test_unseen"),
        (V2 | {"val_loc": [4, 2]}, "1 images are in both train_loc and val_loc"),
        (V2 | {"val_loc": [4, 9]}, "1 images of train_loc and val_loc are not in trainval"),
        (V2 | {"val_loc": [0]}, "val_loc: entry 1 is 0, expected a whole number in 1 …"),
        (LOCS, "has no train_loc; make the tuning split from the class lists"),
    ],
)
def test_no_tuning_on_the_test(tmp_path, locs, expected):
    assert expected in refusal(tuning_split, save(tmp_path, locs))


CLASSES = Classes(("wren", "auk", "kite", "owl"), (True, False, True, True))


def test_tuning_classes_stand_in_the_data_sets_order(tmp_path):
    (tmp_path / "trainclasses2.txt").write_bytes(b"kite\r\nwren\r\n\r\n")
    (tmp_path / "valclasses2.txt").write_text("owl")
    assert tuning_split_from_lists(str(tmp_path), 2, CLASSES) == (["wren", "kite"], ["owl"])


@pytest.mark.parametrize(
    ("train", "val", "expected"),
    [
        ("kite\nauk", "owl", "/trainclasses1.txt: 'auk' is an unseen class; tuning takes seen"),
        ("kite", "eagle", "/valclasses1.txt: 'eagle' is no class of the data set; tuning takes"),
        ("kite", "owl\nkite", ": 'kite' is in both trainclasses1.txt and valclasses1.txt"),
        ("kite", "\n", "/valclasses1.txt names no class"),
        ("kite", None, "/valclasses1.txt is no readable list of classes"),
    ],
)
def test_tuning_classes_are_seen_and_disjoint(tmp_path, train, val, expected):
    (tmp_path / "trainclasses1.txt").write_text(train)
    if val is not None:
        (tmp_path / "valclasses1.txt").write_text(val)
    assert f"{tmp_path}{expected}" in refusal(tuning_split_from_lists, tmp_path, 1, CLASSES)


def test_there_are_three_tuning_splits(tmp_path):
    assert refusal(tuning_split_from_lists, tmp_path, 4, CLASSES) == (
        "there is no tuning split 4; there are 1, 2, 3"
    )


# the official files

OFFICIAL = {
    # classes, seen, unseen, attributes, trainval, test_seen, test_unseen; images is their sum
    "CUB": (200, 150, 50, 312, 7057, 1764, 2967),
    "AWA1": (50, 40, 10, 85, 19832, 4958, 5685),
    "AWA2": (50, 40, 10, 85, 23527, 5882, 7913),
    "SUN": (717, 645, 72, 102, 10320, 2580, 1440),
    "APY": (32, 20, 12, 64, 5932, 1483, 7924),
    "FLO": (102, 82, 20, 1024, 5631, 1403, 1155),
}
IMAGES = {"CUB": 11788, "AWA1": 30475, "AWA2": 37322, "SUN": 14340, "APY": 15339, "FLO": 8189}
FILES = [(f"splits/{name}", name) for name in OFFICIAL] + [
    (f"splits-v1/{name}", name) for name in ("AWA1", "AWA2", "SUN")
]
ALL = ["trainval_loc", "test_seen_loc", "test_unseen_loc", "att"]
OPTIONAL = ("allclasses_names", "train_loc", "val_loc")


def official(folder):
    return read_variables(folder / "att_splits.mat", ALL, OPTIONAL)


def official_classes(folder):
    """Return the classes by the lists that come with the file: labels are not at hand."""
    names = strings(official(folder)["allclasses_names"])
    seen = {*class_list(folder / "trainvalclasses.txt")}
    return Classes(tuple(names), tuple(name in seen for name in names))


@pytest.mark.real_data
@pytest.mark.parametrize(("path", "name"), FILES, ids=[path for path, _ in FILES])
def test_published_counts(real_data, path, name):
    found = official(real_data / path)
    classes, _, _, attributes, *parts = OFFICIAL[name]
    assert found["att"].shape == (attributes, classes)
    locs = [found[key].ravel().tolist() for key in ALL[:3]]
    assert [len({*each}) for each in locs] == [len(each) for each in locs] == parts
    assert {*locs[0], *locs[1], *locs[2]} == {*range(1, IMAGES[name] + 1)}
    assert sum(parts) == IMAGES[name]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("path", "version", "recorded"),
    [
        ("splits/AWA1", "xlsa17-2.0", "xlsa17-2.0"),
        *[
            (f"splits/{name}", "cannot be told", "xlsa17 (1.0 or 2.0: the file has no train_loc)")
            for name in ("CUB", "AWA2", "SUN", "APY")
        ],
        ("splits/FLO", "xlsa17-1.0", "xlsa17-1.0"),
        *[(f"splits-v1/{name}", "xlsa17-1.0", "xlsa17-1.0") for name in ("AWA1", "AWA2", "SUN")],
    ],
)
def test_official_versions(real_data, path, version, recorded):
    found = official(real_data / path)
    assert recognise_split(found) == version
    assert split_version("recognise", found, real_data / path) == recorded


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["AWA1", "AWA2", "SUN"])
def test_versions_are_the_same_but_for_the_tuning_split(real_data, name):
    one, two = official(real_data / "splits-v1" / name), official(real_data / "splits" / name)
    for key in ALL:
        np.testing.assert_array_equal(one[key], two[key])
    assert strings(one["allclasses_names"]) == strings(two["allclasses_names"])


@pytest.mark.real_data
def test_tuning_rows_of_the_official_files(real_data):
    train, val = tuning_split(real_data / "splits/AWA1/att_splits.mat")
    assert (len(train), len(val)) == (13460, 6372)
    for path in ("splits/FLO", *(f"splits-v1/{name}" for name in ("AWA1", "AWA2", "SUN"))):
        count = OFFICIAL[path.split("/")[1]][5]
        text = refusal(tuning_split, real_data / path / "att_splits.mat")
        assert f"hold {count} of the {count} images of test_seen" in text
    for name in ("CUB", "AWA2", "SUN", "APY"):
        path = real_data / "splits" / name / "att_splits.mat"
        assert refusal(tuning_split, path).startswith(f"{path} has no train_loc")


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["CUB", "AWA1", "AWA2", "SUN", "APY"])
def test_official_class_lists(real_data, name):
    folder = real_data / "splits" / name
    classes = official_classes(folder)
    total, seen, unseen, *_ = OFFICIAL[name]
    assert (len(classes.names), len(classes.seen), len(classes.unseen)) == (total, seen, unseen)
    assert sorted(class_list(folder / "testclasses.txt")) == sorted(classes.unseen)
    assert sorted(class_list(folder / "trainvalclasses.txt")) == sorted(classes.seen)
    for number in (1, 2, 3):
        train, val = tuning_split_from_lists(folder, number, classes)
        assert sorted([*train, *val]) == sorted(classes.seen)


@pytest.mark.real_data
def test_the_list_of_all_birds_is_the_files(real_data):
    folder = real_data / "splits/CUB"
    assert class_list(folder / "allclasses.txt") == list(official_classes(folder).names)
