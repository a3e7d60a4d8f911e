"""Descriptors from four formats: joined by name, every fault by its class."""

import json
import tarfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.io import savemat

from icis import layout
from icis.artifacts import read_metadata, write_table
from icis.config import FileDescriptors, parse_experiment
from icis.datasets.descriptors import load_descriptors, read_descriptors
from icis.datasets.index import Classes
from icis.datasets.matlab import read_variables, strings
from icis.errors import IcisError
from icis.plan import Plan
from icis.stages import describe

CLASSES = Classes(("wren", "auk", "kite", "owl"), (True, False, True, False))
VECTORS = np.array([[1, 0, 2.5], [0, 1, 1e-3], [-1, 2, 0], [4, 4, 5]])
FORMATS = ("att.mat", "att.npy", "att.csv", "att.parquet")


def cells(names):
    return np.array(names, dtype=object).reshape(-1, 1)


def write(path, vectors=VECTORS, names=CLASSES.names):
    """Write vectors in the format of the path's suffix; .npy has its names in a text file."""
    vectors = np.asarray(vectors)
    settings = {}
    if path.suffix == ".mat":
        savemat(path, {"att": vectors.T, "allclasses_names": cells(names)})
    elif path.suffix == ".npy":
        np.save(path, vectors)
        path.with_suffix(".txt").write_text("\n".join(names) + "\n")
        settings["classes"] = str(path.with_suffix(".txt"))
    else:
        frame = pl.DataFrame(vectors, [f"a{column}" for column in range(vectors.shape[1])])
        frame.insert_column(1, pl.Series("class", names))
        frame.write_csv(path) if path.suffix == ".csv" else frame.write_parquet(path)
    return FileDescriptors(file=str(path), **settings)


def read(source, classes=CLASSES):
    path = Path(source.file)
    return read_descriptors(source, path, path.read_bytes(), classes)


def refusal(source, classes=CLASSES):
    with pytest.raises(IcisError) as caught:
        read(source, classes)
    text = str(caught.value)
    assert text.startswith(source.file)
    return text.removeprefix(source.file)


# what is read


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_same(tmp_path, name):
    found = read(write(tmp_path / name))
    assert found.vectors.dtype == np.float32
    np.testing.assert_array_equal(found.vectors, VECTORS.astype(np.float32))
    assert found.classes is CLASSES


@pytest.mark.parametrize("name", FORMATS)
def test_rows_are_joined_by_name_and_further_classes_ignored(tmp_path, name):
    names = ["owl", "dodo", "kite", "wren", "auk"]
    vectors = [VECTORS[3], [np.nan] * 3, VECTORS[2], VECTORS[0], VECTORS[1]]
    found = read(write(tmp_path / name, vectors, names))
    np.testing.assert_array_equal(found.vectors, VECTORS.astype(np.float32))


def test_seen_and_unseen_rows_stand_in_order(tmp_path):
    found = read(write(tmp_path / "att.csv"))
    np.testing.assert_array_equal(found.rows(seen=True), found.vectors[[0, 2]])
    np.testing.assert_array_equal(found.rows(seen=False), found.vectors[[1, 3]])


@settings(deadline=None)
@given(
    vectors=hnp.arrays(np.float64, (4, 5), elements=st.floats(-1e6, 1e6), unique=True),
    order=st.permutations(range(4)),
    name=st.sampled_from(FORMATS),
)
def test_any_vectors_in_any_order(vectors, order, name, tmp_path_factory):
    path = tmp_path_factory.mktemp("any") / name
    source = write(path, vectors[order], [CLASSES.names[row] for row in order])
    flat = np.ptp(vectors.astype(np.float32), axis=1) == 0
    if flat.any():
        assert "the descriptor of class" in refusal(source)
    else:
        np.testing.assert_array_equal(read(source).vectors, vectors.astype(np.float32))


@pytest.mark.parametrize("name", FORMATS)
def test_l2_scales_every_class_to_length_one(tmp_path, name):
    source = write(tmp_path / name, VECTORS * 1e-30).model_copy(update={"normalize": "l2"})
    lengths = np.linalg.norm(VECTORS, axis=1, keepdims=True)
    np.testing.assert_allclose(read(source).vectors, VECTORS / lengths, rtol=1e-6)


def test_without_names_rows_are_the_classes_in_order(tmp_path):
    np.save(tmp_path / "att.npy", VECTORS)
    np.testing.assert_array_equal(
        read(FileDescriptors(file=str(tmp_path / "att.npy"))).vectors, VECTORS.astype(np.float32)
    )


@pytest.mark.parametrize("with_names", [True, False])
@pytest.mark.parametrize("transposed", [True, False])
def test_a_mat_file_may_hold_either_orientation(tmp_path, with_names, transposed):
    path = tmp_path / "att.mat"
    variables = {"w2v": VECTORS.T if transposed else VECTORS}
    if with_names:
        variables["allclasses_names"] = cells(CLASSES.names)
    savemat(path, variables)
    found = read(FileDescriptors(file=str(path), key="w2v"))
    np.testing.assert_array_equal(found.vectors, VECTORS.astype(np.float32))


def test_a_list_of_names_goes_before_those_in_a_mat_file(tmp_path):
    path = tmp_path / "att.mat"
    savemat(path, {"att": VECTORS.T, "allclasses_names": cells(["a", "b", "c", "d"])})
    (tmp_path / "names.txt").write_text("\n".join(f"{each}\tnote" for each in CLASSES.names))
    source = FileDescriptors(file=str(path), classes=str(tmp_path / "names.txt"))
    np.testing.assert_array_equal(read(source).vectors, VECTORS.astype(np.float32))


def test_names_that_look_like_numbers(tmp_path):
    classes = Classes(("001", "010", "1e3", "2"), CLASSES.is_seen)
    for name in FORMATS:
        source = write(tmp_path / name, VECTORS, classes.names)
        np.testing.assert_array_equal(read(source, classes).vectors, VECTORS.astype(np.float32))


def test_the_column_of_names_can_be_chosen(tmp_path):
    path = tmp_path / "att.csv"
    path.write_text("bird,a,b\nauk,1,2\nwren,3,4\nowl,5,7\nkite,7,9\n")
    found = read(FileDescriptors(file=str(path), class_column="bird"))
    np.testing.assert_array_equal(found.vectors, [[3, 4], [1, 2], [7, 9], [5, 7]])


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, np.uint16, bool, ">f4"])
def test_any_type_of_number(tmp_path, dtype):
    vectors = np.array([[0, 1], [1, 0], [0, 1], [1, 0]]).astype(dtype)
    source = write(tmp_path / "att.npy", vectors)
    np.testing.assert_array_equal(read(source).vectors, vectors.astype(np.float32))


def test_one_component_is_enough(tmp_path):
    for name in FORMATS:
        found = read(write(tmp_path / name, [[1], [2], [3], [4]]))
        np.testing.assert_array_equal(found.vectors, [[1], [2], [3], [4]])


# faults


@pytest.mark.parametrize("name", FORMATS)
def test_missing_classes_are_named(tmp_path, name):
    source = write(tmp_path / name, VECTORS[:2], ["wren", "owl"])
    assert refusal(source) == ": 2 of 4 classes have no descriptor, the first is 'auk'"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_named_by_class(tmp_path, name, value):
    vectors = VECTORS.copy()
    vectors[2, 1] = value
    order = [3, 2, 1, 0]
    source = write(tmp_path / name, vectors[order], [CLASSES.names[row] for row in order])
    for normalize in ("none", "l2"):
        assert refusal(source.model_copy(update={"normalize": normalize})) == (
            ": descriptors: 1 of 4 rows hold NaN or infinity, the first is row 3 (kite)"
        )


def test_an_empty_field_is_named_by_class(tmp_path):
    path = tmp_path / "att.csv"
    path.write_text("class,a,b\nauk,1,2\nwren,3,4\nowl,,7\nkite,7,9\n")
    assert refusal(FileDescriptors(file=str(path))).endswith("the first is row 4 (owl)")


def test_a_number_too_large_for_single_precision_is_named(tmp_path):
    vectors = VECTORS.copy()
    vectors[1, 1] = 1e39
    assert refusal(write(tmp_path / "att.npy", vectors)) == (
        ": descriptors as float32: 1 of 4 rows hold NaN or infinity, the first is row 2 (auk)"
    )


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("normalize", ["none", "l2"])
@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0, 0, 0], ": the descriptor of class 'kite' is all zeros"),
        ([0.1, 0.1, 0.1], ": the descriptor of class 'kite' is constant (0.1)"),
        ([-3, -3, -3], ": the descriptor of class 'kite' is constant (-3)"),
    ],
)
def test_a_constant_descriptor_is_named(tmp_path, name, normalize, row, expected):
    vectors = VECTORS.copy()
    vectors[2] = row
    source = write(tmp_path / name, vectors).model_copy(update={"normalize": normalize})
    assert refusal(source) == expected


def test_what_single_precision_makes_constant_is_refused_too(tmp_path):
    vectors = VECTORS.copy()
    vectors[2] = [1, 1 + 1e-12, 1]
    assert refusal(write(tmp_path / "att.npy", vectors)).startswith(": the descriptor of class 'k")
    vectors[2] = [1e-60, 2e-60, 0]
    assert refusal(write(tmp_path / "att.npy", vectors)).endswith("'kite' is all zeros")


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_descriptor_for_all_is_refused(tmp_path, name):
    source = write(tmp_path / name, np.tile([1, 2, 3], (4, 1)))
    assert refusal(source) == (": all classes have the same descriptor, nothing tells them apart")


def test_the_same_descriptor_for_two_is_not(tmp_path):
    vectors = VECTORS.copy()
    vectors[1] = vectors[0]
    assert len(read(write(tmp_path / "att.npy", vectors)).vectors) == 4


@pytest.mark.parametrize("name", FORMATS)
def test_a_class_with_two_rows_is_named(tmp_path, name):
    names = [*CLASSES.names, "auk"]
    source = write(tmp_path / name, [*VECTORS, [5, 6, 7]], names)
    assert refusal(source) == ": the class 'auk' has two rows"


def test_another_number_of_rows(tmp_path):
    path = tmp_path / "att.npy"
    source = write(path)
    np.save(path, VECTORS[:3])
    assert refusal(source) == " has 3 rows for 4 class names"
    assert refusal(FileDescriptors(file=str(path))) == (
        " has 3 rows without names, the data set 4 classes; name the rows with 'classes: FILE'"
    )
    mat = tmp_path / "att.mat"
    savemat(mat, {"att": VECTORS[:3, :2].T, "allclasses_names": cells(CLASSES.names)})
    assert refusal(FileDescriptors(file=str(mat))) == " has 2 rows for 4 class names"


def test_a_column_of_text_is_named(tmp_path):
    path = tmp_path / "att.csv"
    path.write_text("class,a,habitat\nauk,1,sea\nwren,3,wood\nowl,5,wood\nkite,7,air\n")
    assert refusal(FileDescriptors(file=str(path))) == (
        ": the column 'habitat' is String, not a number"
    )


def test_an_absent_column_of_names_is_named_with_what_there_is(tmp_path):
    source = write(tmp_path / "att.csv").model_copy(update={"class_column": "name"})
    assert refusal(source) == (
        ": there is no column 'name', only a0, class, a1, a2; set class_column"
    )


def test_an_absent_variable_is_named_with_what_there_is(tmp_path):
    source = write(tmp_path / "att.mat").model_copy(update={"key": "w2v"})
    assert refusal(source) == " has no variable 'w2v'; it has: allclasses_names, att"


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.arange(4), " holds [4] of int64, expected numbers [classes, components]"),
        (np.ones((4, 3, 2)), " holds [4, 3, 2] of float64, expected numbers [classes, compon"),
        (np.array([["a"], ["b"]]), " holds [2, 1] of <U1, expected numbers [classes, componen"),
        (np.ones((4, 3), complex), " holds [4, 3] of complex128, expected numbers"),
        (np.ones((0, 3)), " holds [0, 3] of float64, expected numbers"),
        (np.ones((4, 0)), " holds [4, 0] of float64, expected numbers"),
    ],
)
def test_arrays_of_another_kind(tmp_path, array, expected):
    path = tmp_path / "att.npy"
    np.save(path, array)
    assert refusal(FileDescriptors(file=str(path))).startswith(expected)


def test_a_table_without_components(tmp_path):
    path = tmp_path / "att.csv"
    path.write_text("class\nauk\nwren\nowl\nkite\n")
    assert "expected numbers [classes, components]" in refusal(FileDescriptors(file=str(path)))


def test_a_pickle_is_not_read(tmp_path):
    path = tmp_path / "att.npy"
    np.save(path, np.array([[{}]], dtype=object), allow_pickle=True)
    assert refusal(FileDescriptors(file=str(path))).startswith(" is no readable .npy file: ")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("content", [b"", b"\x00\xff something else"])
def test_a_file_that_is_something_else_is_named(tmp_path, name, content):
    path = tmp_path / name
    source = write(path)
    path.write_bytes(content)
    refusal(source)


@pytest.mark.parametrize("name", ["att.mat", "att.npy", "att.parquet"])
def test_a_cut_file_is_named(tmp_path, name):
    path = tmp_path / name
    source = write(path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "readable" in refusal(source)


def test_several_arrays_in_one_file(tmp_path):
    with (tmp_path / "att.npy").open("wb") as file:
        np.savez(file, a=VECTORS)
    assert refusal(FileDescriptors(file=str(tmp_path / "att.npy"))) == (
        " holds several arrays (.npz), expected one (.npy)"
    )


def test_another_format_is_refused(tmp_path):
    (tmp_path / "att.json").write_text("{}")
    assert refusal(FileDescriptors(file=str(tmp_path / "att.json"))) == (
        ": descriptors are read from .mat, .npy, .csv, .parquet"
    )


def test_the_list_of_names_is_checked(tmp_path):
    source = write(tmp_path / "att.npy")
    names = tmp_path / "att.txt"
    names.write_bytes(b"wren\xff\n")
    with pytest.raises(IcisError, match=r"att\.txt is no text in UTF-8"):
        read(source)
    names.unlink()
    with pytest.raises(IcisError, match=r"att\.txt, the list of class names, does not exist"):
        read(source)


# through the stage: as a few lines of an experiment file


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Return a plan whose data set has its files in a folder or tar ``birds``."""
    monkeypatch.chdir(tmp_path)
    rows = [("w.png", "wren", "trainval"), ("w2.png", "wren", "test_seen"),
            ("k.png", "kite", "trainval"), ("a.png", "auk", "test_unseen"),
            ("o.png", "owl", "test_unseen")]  # fmt: skip
    frame = pl.DataFrame(rows, schema=["image", "class", "split"], orient="row")
    about = {"classes": CLASSES.as_metadata(), "sources": {}, "split_version": "own"}
    write_table(layout.index("birds"), frame, about)
    (tmp_path / "birds").mkdir()

    def make(root, **source):
        data = {
            "name": "small",
            "datasets": {"birds": {"kind": "images", "root": root,
                                   "descriptors": {"att": source}}},
            "backbones": {"r18": {"model": "resnet18"}},
            "heads": {"last": {}},
            "methods": {"mlp": {"method": "mlp"}},
            "tables": {"main": {"datasets": ["birds"], "backbones": ["r18"], "heads": ["last"],
                                "descriptors": ["att"], "methods": ["mlp"]}},
        }  # fmt: skip
        return Plan(parse_experiment(data, source="e.yaml"))

    return make


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("root", ["birds", "birds.tar"])
def test_a_descriptor_inside_the_root_is_found(plan, tmp_path, name, root):
    source = write(tmp_path / "birds" / name)
    with tarfile.open("birds.tar", "w") as archive:
        archive.add(f"birds/{name}", name)
    classes = {"classes": source.classes} if source.classes else {}
    made = plan(root, file=name, **classes)
    assert made.missing_files() == []
    describe.run(made, "birds", "att")
    found = load_descriptors(layout.descriptors("birds", "att"))
    np.testing.assert_array_equal(found.vectors, VECTORS.astype(np.float32))
    assert found.classes == CLASSES
    about = read_metadata(layout.descriptors("birds", "att"))
    assert about["dim"] == 3
    assert name in about["sources"]
    json.dumps(about)


def test_a_fault_leaves_no_descriptors_and_keeps_the_old_ones(plan, tmp_path):
    write(tmp_path / "att.csv", VECTORS[:2], ["wren", "owl"])
    made = plan("birds", file="att.csv")
    with pytest.raises(IcisError, match="2 of 4 classes have no descriptor"):
        describe.run(made, "birds", "att")
    assert not layout.descriptors("birds", "att").parent.exists()
    write(tmp_path / "att.csv")
    describe.run(made, "birds", "att")
    before = layout.descriptors("birds", "att").read_bytes()
    write(tmp_path / "att.csv", VECTORS * np.nan)
    with pytest.raises(IcisError, match="NaN"):
        describe.run(made, "birds", "att")
    assert layout.descriptors("birds", "att").read_bytes() == before
    assert len(list(layout.descriptors("birds", "att").parent.glob("*.parquet"))) == 1


def test_a_descriptor_that_the_data_set_lacks_is_named(plan):
    with pytest.raises(IcisError, match=r"datasets\.birds has no descriptor 'w2v', only: att"):
        describe.run(plan("birds", file="att.csv"), "birds", "w2v")


# real files


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["CUB", "AWA2", "SUN"])
@pytest.mark.parametrize("kind", ["wiki2vec", "conceptnet"])
def test_word_vectors_are_joined_to_the_official_classes(real_data, name, kind):
    folder = real_data / "descriptors"
    names = (folder / f"{name}_classnames.txt").read_text().splitlines()
    shuffled = [each.split("\t")[0] for each in names][::-1]
    classes = Classes(tuple(shuffled), (True,) * len(shuffled))
    source = FileDescriptors(
        file=str(folder / f"{name}_{kind}.npy"),
        classes=str(folder / f"{name}_classnames.txt"),
        normalize="l2",
    )
    found = read(source, classes)
    assert found.vectors.shape == (len(names), 300)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=1), 1, rtol=1e-5)
    given = np.load(folder / f"{name}_{kind}.npy").astype(np.float64)[::-1]
    given /= np.linalg.norm(given, axis=1, keepdims=True)
    np.testing.assert_allclose(found.vectors, given, atol=1e-6)


@pytest.mark.real_data
def test_two_words_for_one_thing_are_no_fault(real_data):
    """Two pairs of ImageNet's classes have equal word vectors."""
    folder = real_data / "descriptors"
    names = (folder / "ImageNet1K_classnames.txt").read_text().splitlines()
    classes = Classes(tuple(f"{row}" for row in range(len(names))), (True,) * len(names))
    found = read(FileDescriptors(file=str(folder / "ImageNet1K_wiki2vec.npy")), classes)
    assert len(np.unique(found.vectors, axis=0)) < len(found.vectors) == 1000


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["APY", "AWA1", "AWA2", "CUB", "SUN"])
def test_the_official_att_is_original_att_of_unit_length(real_data, name):
    path = real_data / f"splits/{name}/att_splits.mat"
    names = strings(read_variables(path, ["allclasses_names"])["allclasses_names"])
    classes = Classes(tuple(names), (True,) * len(names))
    original = FileDescriptors(file=str(path), key="original_att", normalize="l2")
    given, scaled = (read(each, classes) for each in (FileDescriptors(file=str(path)), original))
    assert np.allclose(given.vectors, scaled.vectors, rtol=1e-6, atol=0)
    raw = read(original.model_copy(update={"normalize": "none"}), classes)
    assert np.ptp(np.linalg.norm(raw.vectors, axis=1)) > 1  # classes differ in length
