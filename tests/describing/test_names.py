"""Class names as a reader would write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from icis.describing.names import article, class_texts, clean_name, imagenet_wnids
from icis.errors import IcisError

BIRDS = ("002.Laysan_Albatross", "017.Cardinal")


@pytest.mark.parametrize(
    ("class_name", "expected"),
    [
        ("002.Laysan_Albatross", "laysan albatross"),
        ("010.Red_winged_Blackbird", "red winged blackbird"),
        ("grizzly+bear", "grizzly bear"),
        ("airplane_cabin", "airplane cabin"),
        ("St. Bernard", "st bernard"),
        ("3d_printer", "3d printer"),
        ("747", "747"),
        ("  ox__cart ", "ox cart"),
        ("n01440764", "tench"),  # tench, Tinca tinca
        ("n01484850", "great white shark"),
        ("n02109525", "saint bernard"),
        ("n00004475", "organism"),  # of the 21,844, not of the 1000
        ("n99999999", "n99999999"),
        ("n0144076", "n0144076"),
    ],
)
def test_names_are_cleaned(class_name, expected):
    assert clean_name(class_name) == expected


@given(st.text())
def test_any_name_is_clean_once_cleaned(text):
    name = clean_name(text)
    assert not set(name) & {"_", "+", ".", "\n"}
    assert name == " ".join(name.split())


@pytest.mark.parametrize(
    ("name", "expected"),
    [("antelope", "an"), ("elk", "an"), ("ibex", "an"), ("ox", "an"), ("umbrella", "a"),
     ("zebra", "a"), ("Airedale", "an"), ("", "a")],
)  # fmt: skip
def test_the_article_is_that_of_the_paper(name, expected):
    assert article(name) == expected


def test_imagenet_has_its_1000_classes_in_order():
    wnids = imagenet_wnids()
    assert len(set(wnids)) == 1000
    assert list(wnids) == sorted(wnids)
    assert wnids[0] == "n01440764"


def names_file(tmp_path, text):
    path = tmp_path / "names.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def test_names_are_made_or_taken_from_a_file_in_the_order_of_the_classes(tmp_path):
    assert class_texts(BIRDS) == {BIRDS[0]: "laysan albatross", BIRDS[1]: "cardinal"}
    file = names_file(tmp_path, f"{BIRDS[1]}\tNorthern  Cardinal\n\n{BIRDS[0]}\tmolly\tmawk\r\n")
    found = class_texts(BIRDS, file)
    assert list(found.items()) == [(BIRDS[0], "molly mawk"), (BIRDS[1], "Northern Cardinal")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("017.Cardinal\tcardinal\n", "1 of 2 classes have no name: 002.Laysan_Albatross"),
        ("", "2 of 2 classes have no name: 002.Laysan_Albatross, 017.Cardinal"),
        ("17.Cardinal\tcardinal\n", "there is no class '17.Cardinal'; did you mean '017.Cardinal"),
        ("017.Cardinal cardinal\n", "line 1: expected class, tab, name, not '017.Cardinal card"),
        ("\n017.Cardinal\t \n", "line 2: expected class, tab, name"),
        ("017.Cardinal\ta\n017.Cardinal\tb\n", "line 2: the class '017.Cardinal' has a name al"),
        (b"017.Cardinal\t\xff\n", "is no text in UTF-8"),
    ],
)
def test_a_file_of_names_is_checked(tmp_path, text, expected):
    with pytest.raises(IcisError) as caught:
        class_texts(BIRDS, names_file(tmp_path, text))
    assert "names.txt" in str(caught.value)
    assert expected in str(caught.value)


def test_a_file_of_names_that_is_not_there(tmp_path):
    with pytest.raises(IcisError, match=r"names\.txt cannot be read: No such file"):
        class_texts(BIRDS, str(tmp_path / "names.txt"))


def test_a_name_of_nothing_but_signs_is_refused():
    with pytest.raises(IcisError, match=r"nothing is left of the class name '001\._'.*names: FILE"):
        class_texts(["wren", "001._"])


# real class lists


def class_list(folder, dataset):
    lines = (folder / "descriptors" / f"{dataset}_classnames.txt").read_text().splitlines()
    return [line.split("\t")[0] for line in lines]


@pytest.mark.real_data
@pytest.mark.parametrize(("dataset", "count"), [("CUB", 200), ("AWA2", 50), ("SUN", 717)])
def test_official_class_names_stay_apart(real_data, dataset, count):
    found = class_texts(class_list(real_data, dataset))
    assert len(set(found.values())) == len(found) == count
    for name in found.values():
        assert name.isascii()
        assert name == name.lower()
        assert name.replace(" ", "").replace("-", "").isalnum()


@pytest.mark.real_data
def test_timm_names_imagenet_as_the_published_list_does(real_data):
    published = [each.split(",")[0] for each in class_list(real_data, "ImageNet1K")]
    found = class_texts(imagenet_wnids())
    differing = {
        wnid: name
        for (wnid, name), other in zip(found.items(), published, strict=True)
        if name != clean_name(other)
    }
    assert differing == {"n03590841": "jack-o'-lantern"}
    names = list(found.values())
    assert {each for each in names if names.count(each) > 1} == {"crane", "cardigan", "maillot"}
