"""Heads that exist already, and the problems that cells make of them."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from icis.config import GivenHead, parse_experiment
from icis.errors import ConfigError, IcisError
from icis.given_heads import head_classes, read_arrays, to_head, without
from icis.heads import Head
from icis.plan import Plan
from icis.selection import hold_out
from icis.stages.problems import draw, held_out_problem
from tests.pipeline import tiny

RNG = np.random.default_rng(0)
WEIGHT, BIAS = RNG.normal(size=(4, 3)).astype(np.float32), np.arange(4, dtype=np.float32)
NAMES = ("a", "b", "c", "d")


def given(**settings):
    data = {
        "kind": "given",
        "descriptors": {"att": {"file": "x.csv"}},
        "classes": "names",
        **settings,
    }
    return GivenHead.model_validate(data)


@pytest.fixture
def npz(tmp_path):
    file = tmp_path / "head.npz"
    np.savez(file, weight=WEIGHT, bias=BIAS, names=np.array(NAMES))
    return given(file=str(file))


def test_an_npz_gives_weights_and_names(npz):
    weight, bias, sources = read_arrays(npz)
    names, _ = head_classes(npz)
    head = to_head(weight, bias, names, "npz")
    assert head.classes == NAMES
    np.testing.assert_array_equal(head.weight, WEIGHT)
    np.testing.assert_array_equal(head.bias, BIAS)
    assert [len(each) for each in sources.values()] == [64]


def test_a_safetensors_file_with_a_list_of_names_gives_the_same(tmp_path):
    file, names = tmp_path / "head.safetensors", tmp_path / "names.txt"
    save_file({"fc.weight": WEIGHT, "fc.bias": BIAS}, file)
    names.write_text("a\tfirst\nb\nc\nd\n")
    config = given(file=str(file), classes=str(names), weight="fc.weight", bias="fc.bias")
    weight, bias, _ = read_arrays(config)
    head = to_head(weight, bias, head_classes(config)[0], "file")
    assert head.classes == NAMES
    np.testing.assert_array_equal(head.joined(), np.column_stack([WEIGHT, BIAS]))


@pytest.mark.parametrize("file", [None, "head.npz", "head.safetensors"])
def test_imagenets_classes_need_no_file(file):
    names, sources = head_classes(given(file=file, classes="imagenet-1k"))
    assert len(names) == 1000
    assert names[:2] == ("n01440764", "n01443537")
    assert list(sources) == ["timm ImageNetInfo"]


@pytest.mark.real_data
def test_imagenets_order_is_that_of_a_real_head(real_data):
    file = str(real_data / "heads" / "imagenet1k_mobilenetv2.npz")
    names, _ = head_classes(given(file=file, classes="wnids"))
    assert names == head_classes(given(file=file, classes="imagenet-1k"))[0]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"weight": "W"}, "has no array 'W', only bias, names, weight"),
        ({"file": "absent.npz"}, "absent.npz, the given head, does not exist"),
    ],
)
def test_what_is_not_there_is_named(npz, change, expected):
    with pytest.raises(IcisError, match=expected):
        read_arrays(npz.model_copy(update=change))


def test_a_broken_file_is_refused(tmp_path):
    file = tmp_path / "head.npz"
    file.write_bytes(b"PK no archive")
    with pytest.raises(IcisError, match="no readable head"):
        read_arrays(given(file=str(file)))


@pytest.mark.parametrize(
    ("weight", "bias", "names", "expected"),
    [
        (WEIGHT, BIAS[:3], NAMES, "weight .4, D. and bias .4."),
        (WEIGHT, BIAS, NAMES[:3], "3 classes needs weight"),
        (WEIGHT * np.nan, BIAS, NAMES, "the weight holds something else than finite"),
        (WEIGHT, BIAS.astype(str), NAMES, "the bias holds something else than finite"),
        (WEIGHT, BIAS, ("a", "a", "b", "c"), "'a' stands twice"),
    ],
)
def test_arrays_that_are_no_head_are_refused(weight, bias, names, expected):
    with pytest.raises(IcisError, match=expected):
        to_head(weight, bias, names, "here")


def test_rows_of_unseen_classes_are_left_out():
    head = to_head(WEIGHT, BIAS, NAMES, "here")
    kept = without(head, ("c", "never heard of"))
    assert kept.classes == ("a", "b", "d")
    np.testing.assert_array_equal(kept.bias, [0, 1, 3])
    with pytest.raises(IcisError, match="1 rows left"):
        without(head, ("a", "b", "c"))


def problems(head):
    experiment = tiny()
    experiment["heads"]["given"] = head
    experiment["tables"]["main"]["heads"] = ["given"]
    with pytest.raises(ConfigError) as error:
        Plan(parse_experiment(experiment, source="it"))
    return str(error.value)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        ({"kind": "given", "classes": "names.txt"}, "'descriptors' should hold a vector"),
        ({"kind": "given", "test_seen": "drawn"}, "go with 'classes'"),
        ({"kind": "given", "file": "head.pt"}, "should be a .npz or .safetensors"),
        (
            {"kind": "given", "classes": "n.txt", "descriptors": {"cn": {"file": "x.npy"}}},
            "there is no descriptor of heads.given 'att'",
        ),
        (
            {"kind": "given", "classes": "n.txt", "descriptors": {"att": {"file": "x.npy"}},
             "test_seen": "valid"},
            "heads.given.test_seen: there is no data set 'valid'",
        ),
        (
            {"kind": "given", "classes": "n.txt", "descriptors": {"att": {"file": "x.npy"}},
             "test_seen": "drawn"},
            "is trained on each data set",
        ),
    ],
)  # fmt: skip
def test_heads_that_cannot_be_are_refused_before_any_work(head, expected):
    assert expected in problems(head)


def test_draws_are_nested_seeded_and_bounded():
    assert draw(10, 10, 0, "x") == tuple(range(10))
    for seed in range(5):
        sets = [set(draw(10, count, seed, "x")) for count in range(1, 11)]
        assert all(small < large for small, large in pairwise(sets))
    assert draw(50, 20, 0, "x") != draw(50, 20, 1, "x")
    with pytest.raises(IcisError, match="asks for 11 seen classes, but there are only 10"):
        draw(10, 11, 0, "x")


def test_a_held_out_problem_knows_nothing_of_the_held_out_rows():
    from icis.methods import InjectionProblem

    rng = torch.Generator().manual_seed(0)
    head = Head(torch.randn(10, 3, generator=rng), torch.zeros(10), tuple("abcdefghij"))
    problem = InjectionProblem(
        head, torch.randn(10, 2, generator=rng), torch.randn(2, 2, generator=rng), ("y", "z")
    )
    reduced = held_out_problem(problem, 0.2, seed=0)
    held = reduced.unseen_classes
    assert len(held) == 2
    assert not {*held} & {*reduced.seen_head.classes}
    assert {*held} | {*reduced.seen_head.classes} == {*head.classes}
    torch.testing.assert_close(reduced.truth.weight, head.restrict(held).weight)
    again = held_out_problem(problem, 0.2, seed=0)
    assert again.unseen_classes == held
    with pytest.raises(IcisError, match="leaves fewer than 2"):
        held_out_problem(hold_out(problem, range(8)), 0.9, seed=0)
