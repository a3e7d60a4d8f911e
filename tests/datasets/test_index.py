"""The image index: seen and unseen classes, and every fault by its name."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icis.artifacts import write_table
from icis.datasets.index import SPLITS, Classes, build_index, load_index
from icis.errors import IcisError

ROWS = [
    ("a/1.png", "a", "trainval"),
    ("a/2.png", "a", "test_seen"),
    ("b/1.png", "b", "test_unseen"),
    ("c/1.png", "c", "trainval"),
]


def frame(rows):
    return pl.DataFrame(rows, schema=["image", "class", "split"], orient="row")


def refusal(rows, names):
    with pytest.raises(IcisError) as caught:
        build_index(frame(rows), names, source="splits.csv")
    text = str(caught.value)
    assert text.startswith("splits.csv: ")
    return text.removeprefix("splits.csv: ")


def test_classes_keep_the_order_of_the_list():
    index = build_index(frame(ROWS), ["c", "b", "a"], source="here")
    assert index.classes.names == ("c", "b", "a")
    assert index.classes.seen == ("c", "a")
    assert index.classes.unseen == ("b",)
    assert index.frame.rows() == ROWS


@settings(deadline=None)
@given(data=st.data())
def test_seen_are_the_classes_with_trainval_images(data):
    names = data.draw(st.lists(st.text(min_size=1), unique=True, min_size=2, max_size=8))
    seen = data.draw(st.integers(1, len(names) - 1))
    rows = [(f"{row}", name, "trainval") for row, name in enumerate(names[:seen])]
    rows += [(f"test {row}", name, "test_seen") for row, name in enumerate(names[:1])]
    rows += [(f"unseen {row}", name, "test_unseen") for row, name in enumerate(names[seen:])]
    order = data.draw(st.permutations(names))
    index = build_index(frame(data.draw(st.permutations(rows))), order, source="here")
    assert index.classes.names == tuple(order)
    assert {*index.classes.seen} == {*names[:seen]}
    assert {*index.classes.unseen} == {*names[seen:]}
    assert Classes.from_metadata({"classes": index.classes.as_metadata()}) == index.classes


@pytest.mark.parametrize(
    ("rows", "names", "expected"),
    [
        (ROWS, ["a", "b", "c", "a"], "the class name 'a' stands twice in the class list"),
        (
            [*ROWS, ("d/1.png", "d", "trainval")],
            ["a", "b", "c"],
            "image 'd/1.png' has the class 'd', which the class list lacks",
        ),
        (
            ROWS,
            ["a", "b", "c", "d"],
            "class 'd' has no image, so nothing says whether it is seen; "
            "give it images or take it from the class list",
        ),
        (
            [*ROWS, ("b/2.png", "b", "trainval")],
            ["a", "b", "c"],
            "class 'b' has 1 images in trainval or test_seen and 1 in test_unseen; "
            "a class is seen or unseen",
        ),
        (
            [*ROWS, ("b/2.png", "b", "test_seen"), ("b/3.png", "b", "test_seen")],
            ["a", "b", "c"],
            "class 'b' has 2 images in trainval or test_seen and 1 in test_unseen; "
            "a class is seen or unseen",
        ),
        (
            [*ROWS, ("d/1.png", "d", "test_seen")],
            ["a", "b", "c", "d"],
            "the seen class 'd' has test_seen images but none in trainval",
        ),
        (
            [*ROWS, ("a/3.png", "a", "trainvall")],
            ["a", "b", "c"],
            "row 5 has the split 'trainvall'; did you mean 'trainval'?",
        ),
        (
            [*ROWS, ("a/3.png", "a", "dev")],
            ["a", "b", "c"],
            "row 5 has the split 'dev'; there are: trainval, test_seen, test_unseen",
        ),
        (
            [*ROWS, ("a/2.png", "a", "trainval")],
            ["a", "b", "c"],
            "image 'a/2.png' is listed twice (test_seen, trainval)",
        ),
        ([ROWS[0], (None, "a", "trainval"), *ROWS[1:]], ["a", "b", "c"], "row 2 has no image"),
        ([*ROWS, ("a/3.png", None, "trainval")], ["a", "b", "c"], "row 5 has no class"),
        ([*ROWS, ("a/3.png", "a", None)], ["a", "b", "c"], "row 5 has no split"),
        (ROWS[:2], ["a"], "there is no test_unseen image, so no unseen class to work with"),
        (
            [ROWS[0], ROWS[2]],
            ["a", "b"],
            "there is no test_seen image, so no seen class to work with",
        ),
        (ROWS[2:3], ["b"], "there is no trainval image, so no seen class to work with"),
    ],
)
def test_a_fault_is_named(rows, names, expected):
    assert refusal(rows, names) == expected


def test_nothing_at_all():
    assert "there is no trainval image" in refusal(pl.DataFrame(schema=dict.fromkeys(
        ["image", "class", "split"], pl.String)), [])  # fmt: skip


def test_an_index_survives_its_artifact(tmp_path):
    index = build_index(frame(ROWS), ["c", "b", "a"], source="here")
    path = tmp_path / "index.parquet"
    write_table(path, index.frame, {"classes": index.classes.as_metadata(), "more": 1})
    again, metadata = load_index(path)
    assert again.frame.equals(index.frame)
    assert again.classes == index.classes
    assert metadata["more"] == 1


def test_the_splits_have_three_names():
    assert SPLITS == ("trainval", "test_seen", "test_unseen")
