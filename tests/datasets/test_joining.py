"""Listed images are found by name, whatever machine the list was written on."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icis.datasets.joining import image_names, join_images
from icis.errors import IcisError

ROOT = Path("root")


def join(listed, present):
    return join_images(listed, present, source="res101.mat", root=ROOT)


def refusal(listed, present):
    with pytest.raises(IcisError) as caught:
        join(listed, present)
    return str(caught.value)


@pytest.mark.parametrize(
    ("listed", "file"),
    [
        # as the public .mat files have them
        (
            "/BS/xian/work/data/Animals_with_Attributes2//JPEGImages/antelope/antelope_10001.jpg",
            "antelope/antelope_10001.jpg",
        ),
        (
            "/BS/Deep_Fragments/work/MSc/CUB_200_2011/CUB_200_2011/images/"
            "001.Black_footed_Albatross/Black_Footed_Albatross_0001_796111.jpg",
            "001.Black_footed_Albatross/Black_Footed_Albatross_0001_796111.jpg",
        ),
        ("/BS/Deep_Fragments/work/MSc/data/SUN/images/a/abbey/sun_x.jpg", "a/abbey/sun_x.jpg"),
        ("/BS/xian/data/flowers/jpg/image_00001.jpg", "image_00001.jpg"),
        (
            "/BS/xian/work/data/SUN/images/a/abbey/sun_x.jpg",
            "SUNAttributeDB_Images/images/a/abbey/sun_x.jpg",
        ),
        (r"C:\data\CUB\images\001.X\x.jpg", "CUB_200_2011/images/001.X/x.jpg"),
        ("images//001.X///x.JPG", "001.X/x.jpg"),
        ("./images/001.X/x.jpg", "images/001.x/X.JPG"),
        ("x.jpg", "deep/down/x.jpg"),
    ],
)
def test_the_quirks_of_public_files(listed, file):
    assert join([listed], [file, "other/y.jpg"]) == [file]


def test_the_longest_common_end_decides():
    present = ["cropped/wren/1.jpg", "images/auk/1.jpg", "images/wren/1.jpg", "wren/1.jpg"]
    assert join(["/far/away/images/wren/1.jpg"], present) == ["images/wren/1.jpg"]
    assert join(["/far/away/cropped/wren/1.jpg"], present) == ["cropped/wren/1.jpg"]
    assert join(["/far/auk/1.jpg"], present) == ["images/auk/1.jpg"]


def test_letter_case_decides_between_equals_only():
    assert join(["a/x.jpg", "a/X.jpg"], ["a/X.jpg", "a/x.jpg"]) == ["a/x.jpg", "a/X.jpg"]
    assert join(["a/x.JPG"], ["a/X.jpg", "a/x.jpg"]) == ["a/x.jpg"]
    assert join(["A/x.jpg"], ["a/x.jpg", "x.jpg"]) == ["a/x.jpg"]


def test_rows_may_share_a_file():
    assert join(["p/x.jpg", "y.jpg", "p//x.jpg"], ["x.jpg", "y.jpg"]) == [
        "x.jpg", "y.jpg", "x.jpg"
    ]  # fmt: skip


def test_what_may_be_several_files_is_refused():
    assert refusal(["far/x.jpg"], ["a/x.jpg", "b/x.jpg", "y.jpg"]) == (
        "res101.mat: the image 'far/x.jpg' may be any of these files in root: a/x.jpg, b/x.jpg; "
        "leave only the one that is meant"
    )
    assert "a/X.JPG, a/X.jpg; leave" in refusal(["X.Jpg"], ["a/X.jpg", "a/X.JPG"])


def test_absent_images_are_counted_and_the_first_is_named():
    listed = ["far/1.jpg", "far/2.jpg", "far/3.jpg", "far/2.jpg"]
    assert refusal(listed, ["1.jpg", "2.png"]) == (
        "res101.mat: 2 of the 3 images that it lists are not in root, the first is 'far/2.jpg'; "
        "put all of them there"
    )
    assert "1 of the 1" in refusal([""], ["1.jpg"])


def test_one_file_is_not_two_images():
    """The folder of auks is not unpacked."""
    assert refusal(["wren/1.jpg", "auk/1.jpg"], ["wren/1.jpg"]) == (
        "res101.mat lists 'wren/1.jpg' and 'auk/1.jpg', but root has only wren/1.jpg for both; "
        "put both there"
    )


def test_hidden_files_are_no_images():
    names = ["a/1.jpg", "__MACOSX/a/._1.jpg", ".x.png", "b/2.JPEG", "readme.txt", "a.jpg/notes"]
    assert image_names(names) == ["a/1.jpg", "b/2.JPEG"]


# any prefix, slashes and case

PARTS = st.text("abAB1_+.", min_size=1, max_size=4).filter(lambda each: each.strip("."))
FOLDERS = st.lists(PARTS, max_size=3)
FILES = st.builds(
    lambda folders, stem, extension: "/".join([*folders, f"{stem}.{extension}"]),
    FOLDERS,
    PARTS,
    st.sampled_from(["jpg", "JPG", "png"]),
)


@st.composite
def foreign(draw, file):
    """Return a path of the file as another machine might write it."""
    parts = draw(FOLDERS) + file.split("/")
    if draw(st.booleans()):
        parts[-1] = "".join(
            draw(st.sampled_from([each.lower(), each.upper()])) for each in parts[-1]
        )
    slash = st.sampled_from(["/", "//", "\\"])
    return draw(st.sampled_from(["", "/", "//", "C:\\"])) + "".join(
        part + (draw(slash) if number < len(parts) - 1 else "") for number, part in enumerate(parts)
    )


@given(st.data())
def test_the_file_is_found_or_the_doubt_is_named(data):
    present = data.draw(st.lists(FILES, min_size=1, max_size=8, unique=True))
    wanted = data.draw(st.sampled_from(present))
    listed = data.draw(foreign(wanted))
    rivals = [
        each for each in present
        if each != wanted and each.rsplit("/")[-1].lower() == wanted.rsplit("/")[-1].lower()
    ]  # fmt: skip
    try:
        (found,) = join([listed], present)
    except IcisError as error:
        assert rivals
        assert "may be any of these" in str(error)
        assert wanted in str(error)
        return
    assert found == wanted or (
        # another file has as much of the listed path, or more
        found in rivals and len(found.split("/")) >= len(wanted.split("/"))
    )


@given(st.lists(FILES, min_size=1, max_size=8, unique_by=str.lower), st.data())
def test_whole_paths_join_to_themselves_in_any_order(present, data):
    listed = data.draw(st.permutations(present))
    assert join(listed, present) == listed
    lower = [each.lower() for each in listed]
    assert join(lower, present) == listed
    if len({each.rsplit("/")[-1] for each in lower}) == len(lower):
        assert join([f"/far//{each}" for each in lower], present) == listed
