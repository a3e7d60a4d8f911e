"""Vectors of class names from tables of word vectors in the formats that are published."""

import bz2
import gzip

import numpy as np
import pytest

from icis.describing.names import class_texts
from icis.describing.words import describe_names, phrases, word_vectors
from icis.errors import IcisError

NUMBERBATCH = """\
6 3
albatross 1 0 0
bear 0 1 0
grizzly_bear 0 0.5 -0.5
laysan 0 0 2
red 1 1 0
winged 0 1 1
"""
WIKIPEDIA2VEC = """\
the 9 9 9
albatross 1 0 0
ENTITY/Laysan_albatross 3 2 1
ENTITY/German_Shepherd 4 5 6
ENTITY/Laysan 7 7 0
german 1 2 3
"""


def write(tmp_path, text, suffix=".txt"):
    path = tmp_path / f"vectors{suffix}"
    data = text.encode() if isinstance(text, str) else text
    path.write_bytes({".gz": gzip.compress, ".bz2": bz2.compress}.get(suffix, bytes)(data))
    return path


def described(names, path):
    vectors, facts = describe_names({name: name for name in names}, path)
    assert vectors.dtype == np.float64
    return vectors.tolist(), facts


def refusal(call, *arguments):
    with pytest.raises(IcisError) as caught:
        call(*arguments)
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".txt", ".gz", ".bz2", ".vec"])
def test_wanted_words_are_read_from_any_container(tmp_path, suffix):
    path = write(tmp_path, NUMBERBATCH, suffix)
    found = word_vectors(path, {"bear", "grizzly_bear", "never heard of"})
    assert {word: vector.tolist() for word, vector in found.items()} == {
        "bear": [0, 1, 0], "grizzly_bear": [0, 0.5, -0.5]
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "ox 1 2\nelk 3 4\n",
        "2 2\nox 1 2\nelk 3 4",
        "ox 1 2 \r\nelk 3 4 \r\n",
        "ox\t1\t2\nelk 3 4\n\n",
        "ox 1e0 2.0\nox 5 6\nelk 3 4\n",
        b"\xff\xfe 0 0\nox 1 2\nelk 3 4\n",
    ],
)
def test_what_writers_do_differently(tmp_path, text):
    found = word_vectors(write(tmp_path, text), ["ox", "elk"])
    np.testing.assert_array_equal([found["ox"], found["elk"]], [[1, 2], [3, 4]])


def test_words_need_not_be_ascii(tmp_path):
    assert list(word_vectors(write(tmp_path, "übung 1 2\n東京 3 4\n"), ["東京"])) == ["東京"]


def test_numberbatch_has_names_joined_by_underscores(tmp_path):
    path = write(tmp_path, NUMBERBATCH, ".gz")
    names = ["grizzly bear", "laysan albatross", "red-winged bear", "bear"]
    vectors, facts = described(names, path)
    assert vectors == [[0, 0.5, -0.5], [0.5, 0, 1], [1 / 3, 1, 1 / 3], [0, 1, 0]]
    assert facts == {
        "names": names, "whole_names": 2, "averaged_names": 2, "missing_words": []
    }  # fmt: skip


def test_wikipedia2vec_has_names_as_titles(tmp_path):
    path = write(tmp_path, WIKIPEDIA2VEC, ".bz2")
    names = ["laysan albatross", "german shepherd", "albatross", "laysan", "german albatross dog"]
    vectors, facts = described(names, path)
    assert vectors == [[3, 2, 1], [4, 5, 6], [1, 0, 0], [7, 7, 0], [1, 1, 1.5]]
    assert facts["whole_names"] == 4
    assert facts["missing_words"] == ["dog"]


def test_names_may_be_written_as_a_table_has_them(tmp_path):
    path = write(tmp_path, "ENTITY/McCown's_longspur 1 2\nice_cream 3 4\nT_shirt 5 6\n")
    vectors, _ = described(["McCown's longspur", "Ice Cream"], path)
    assert vectors == [[1, 2], [3, 4]]
    assert phrases("black-footed cat") == [
        "black-footed_cat", "black_footed_cat", "ENTITY/Black-footed_cat",
        "ENTITY/Black-footed_Cat",
    ]  # fmt: skip


def test_a_word_with_a_hyphen_is_split_only_where_the_table_lacks_it(tmp_path):
    path = write(tmp_path, "go-kart 1 2\ngo 5 6\ncar 3 4\n")
    vectors, facts = described(["go-kart car", "go-car"], path)
    assert vectors == [[2, 3], [4, 5]]
    assert facts["missing_words"] == []


def test_all_classes_of_which_no_word_is_known_are_listed(tmp_path):
    path = write(tmp_path, NUMBERBATCH)
    names = {"n1": "okapi", "bear": "bear", "quagga": "quagga"}
    assert refusal(describe_names, names, path) == (
        f"{path} has no word of the names of 2 of 3 classes: n1 (okapi), quagga; give the "
        "classes names with 'names: FILE' (class, tab, name)"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ox 1 2\nelk 3\n", "line 2: expected a word and 2 numbers, it has 1 after 'elk'"),
        ("2 3\nox 1 2\n", "line 2: expected a word and 3 numbers, it has 2 after 'ox'"),
        ("ox 1 2\nwater ox 3 4\n", "line 2: expected a word and 2 numbers, it has 3 after 'water'"),
        ("ox 1 2\nelk\n", "line 2: expected a word and 2 numbers, it has 0 after 'elk'"),
        ("<html>\n", "line 1: expected a word and some numbers, it has 0 after '<html>'"),
        ("ox 1 two\n", "line 1: could not convert string to float"),
        ("ox 1 2\nbear 3 4\nox 5", "line 3: expected a word and 2 numbers"),
    ],
)
def test_malformed_lines_are_named(tmp_path, text, expected):
    path = write(tmp_path, text)
    assert refusal(word_vectors, path, ["ox"]).startswith(f"{path}, {expected}")


@pytest.mark.parametrize("suffix", [".gz", ".bz2"])
@pytest.mark.parametrize("change", [lambda data: data[:-9], lambda data: b"no archive"])
def test_a_broken_archive_is_named(tmp_path, suffix, change):
    path = write(tmp_path, NUMBERBATCH + "ox 1 2 3\n" * 50, suffix)
    path.write_bytes(change(path.read_bytes()))
    message = refusal(word_vectors, path, ["bear"])
    assert message.startswith(f"{path}, a table of word vectors, cannot be read: ")


def test_a_table_that_is_not_there(tmp_path):
    path = tmp_path / "absent.txt"
    assert refusal(word_vectors, path, ["ox"]).endswith("cannot be read: No such file or directory")


# real vectors


@pytest.mark.real_data
@pytest.mark.parametrize("dataset", ["CUB", "AWA2", "SUN"])
def test_real_vectors_come_back_from_a_text_file(real_data, tmp_path, dataset):
    folder = real_data / "descriptors"
    lines = (folder / f"{dataset}_classnames.txt").read_text().splitlines()
    names = class_texts([line.split("\t")[0] for line in lines])
    vectors = np.load(folder / f"{dataset}_conceptnet.npy")
    rows = [
        f"{name.replace(' ', '_')} {' '.join(map(repr, row.tolist()))}\n"
        for name, row in zip(names.values(), vectors, strict=True)
    ]
    text = f"{len(rows) + 1} {vectors.shape[1]}\n{''.join(rows[::-1])}zzz{' 0' * 300}\n"
    found, facts = describe_names(names, write(tmp_path, text, ".gz"))
    np.testing.assert_array_equal(found.astype(vectors.dtype), vectors)
    assert facts["whole_names"] == len(names)
    assert not facts["missing_words"]


@pytest.mark.real_data
def test_real_names_of_two_words_are_the_mean_of_real_words(real_data, tmp_path):
    folder = real_data / "descriptors"
    lines = (folder / "AWA2_classnames.txt").read_text().splitlines()
    names = [line.split("\t")[0] for line in lines]
    vectors = dict(zip(names, np.load(folder / "AWA2_conceptnet.npy"), strict=True))
    single = {name: row for name, row in vectors.items() if name.isalpha()}
    text = "".join(f"{name} {' '.join(map(repr, row.tolist()))}\n" for name, row in single.items())
    found, facts = describe_names({"x": "spotted seal horse"}, write(tmp_path, text))
    mean = (single["seal"].astype(np.float64) + single["horse"]) / 2
    np.testing.assert_allclose(found[0], mean, rtol=1e-12)
    assert facts["missing_words"] == ["spotted"]
