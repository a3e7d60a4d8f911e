"""Saved scorers: what is read is what was written, or an error that names the file."""

import json
import random

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from icis.errors import IcisError
from icis.heads import Head
from icis.scorers import ConseScorer, load_head, load_scorers, save_scorers

SEEN, NEW = ("wolf", "bat", "grizzly+bear"), ("blue whale", "Löwe")
METADATA = {"seed": 3, "seen_classes": list(SEEN), "unseen_classes": list(NEW), "cell": "c0ffee"}


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def linear():
    return Head(normal(5, 6), normal(5, seed=1), SEEN + NEW)


def conse(top=2):
    head = Head(normal(3, 6), normal(3, seed=1), SEEN)
    return ConseScorer(head, normal(3, 4, seed=2), normal(5, 4, seed=3), SEEN + NEW, top)


@pytest.mark.parametrize("scorer", [linear(), conse(), conse(top=0)])
def test_round_trip(tmp_path, scorer):
    path, images = tmp_path / "seed-3.safetensors", normal(7, 6, seed=9)
    save_scorers(path, {"joint": scorer}, METADATA)
    scorers, metadata = load_scorers(path)
    assert list(scorers) == ["joint"]
    assert metadata == METADATA
    assert scorers["joint"].classes == SEEN + NEW
    assert type(scorers["joint"]) is type(scorer)
    assert torch.equal(scorers["joint"].scores(images), scorer.scores(images))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("scorer", [linear(), conse()])
def test_class_names_stand_in_the_metadata(tmp_path, scorer):
    """A reader without this library finds them."""
    path = tmp_path / "head.safetensors"
    save_scorers(path, {"joint": scorer}, METADATA)
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["icis"])
    assert about["scorers"]["joint"]["classes"] == [*SEEN, *NEW]
    assert about["unseen_classes"] == list(NEW)


@pytest.mark.parametrize("scorer", [linear(), conse()])
def test_load_head_by_role(tmp_path, scorer):
    path, images = tmp_path / "head.safetensors", normal(7, 6, seed=9)
    save_scorers(path, {"joint": scorer}, METADATA)
    assert load_head(path).classes == SEEN + NEW
    unseen = load_head(path, role="unseen")
    assert unseen.classes == NEW
    torch.testing.assert_close(unseen.scores(images), scorer.scores(images)[:, 3:])
    with pytest.raises(IcisError, match=r"head.safetensors has no scorer 'seen'.*joint"):
        load_head(path, role="seen")


@pytest.mark.parametrize("scorer", [linear(), conse()])
def test_an_unseen_scorer_of_its_own_wins_over_the_restricted_one(tmp_path, scorer):
    path, images = tmp_path / "head.safetensors", normal(7, 6, seed=9)
    own = Head(normal(2, 6, seed=5), normal(2, seed=6), NEW)
    save_scorers(path, {"joint": scorer, "unseen": own}, METADATA)
    assert torch.equal(load_head(path, role="unseen").scores(images), own.scores(images))
    assert torch.equal(load_head(path, role="joint").scores(images), scorer.scores(images))


@pytest.mark.parametrize("scorer", [linear(), conse()])
def test_scorers_that_share_memory_can_be_saved(tmp_path, scorer):
    path = tmp_path / "head.safetensors"
    save_scorers(path, {"joint": scorer, "unseen": scorer.restrict(NEW)}, METADATA)
    images = normal(7, 6, seed=9)
    found = load_head(path, role="unseen").scores(images)
    torch.testing.assert_close(found, scorer.scores(images)[:, 3:])


def test_a_view_is_saved_as_it_looks(tmp_path):
    path, wide = tmp_path / "head.safetensors", normal(6, 10)
    head = Head(wide.T[:5, ::2], wide[0, 1:6], SEEN + NEW)
    save_scorers(path, {"joint": head}, METADATA)
    assert torch.equal(load_head(path).weight, head.weight)
    assert torch.equal(load_head(path).bias, head.bias)


def test_no_unseen_classes_in_the_metadata(tmp_path):
    path = tmp_path / "head.safetensors"
    save_scorers(path, {"joint": linear()}, {})
    with pytest.raises(IcisError, match=r"head.safetensors has no scorer 'unseen'"):
        load_head(path, role="unseen")


def test_another_kind_of_scorer_is_refused(tmp_path):
    with pytest.raises(IcisError, match="type str cannot be saved"):
        save_scorers(tmp_path / "head.safetensors", {"joint": "no scorer"}, {})
    assert not list(tmp_path.iterdir())


def test_equal_scorers_make_equal_files(tmp_path):
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    for _ in range(8):  # an order that comes from a hash table changes now and then
        save_scorers(one, {"joint": linear(), "unseen": conse()}, METADATA)
        save_scorers(
            other, {"unseen": conse(), "joint": linear()}, dict(reversed(METADATA.items()))
        )
        assert one.read_bytes() == other.read_bytes()


# --- damage -----------------------------------------------------------------------------------


def is_refused_or_unchanged(path, original):
    """Load a changed file: an error must name it, and else its contents must be the original's."""
    try:
        scorers, metadata = load_scorers(path)
    except IcisError as error:
        assert str(path) in str(error)
        return True
    joint = scorers["joint"]
    assert metadata == METADATA
    assert joint.classes == original.classes
    for key in ("weight", "bias") if isinstance(original, Head) else ("descriptors",):
        assert torch.equal(getattr(joint, key), getattr(original, key))
        assert getattr(joint, key).dtype == torch.float32
    return False


@pytest.mark.parametrize("scorer", [linear(), conse()])
def test_every_flipped_byte_is_noticed(tmp_path, scorer):
    path = tmp_path / "head.safetensors"
    save_scorers(path, {"joint": scorer}, METADATA)
    data = path.read_bytes()
    draw = random.Random(0)
    unnoticed = 0
    for place in range(len(data)):
        for flip in (1, draw.randrange(2, 256)):
            changed = bytearray(data)
            changed[place] ^= flip
            path.write_bytes(changed)
            unnoticed += not is_refused_or_unchanged(path, scorer)
    assert unnoticed < 20, "harmless changes: white space in the header"


def test_float_bits_read_as_integers_are_noticed(tmp_path):
    path = tmp_path / "head.safetensors"
    save_scorers(path, {"joint": linear()}, METADATA)
    path.write_bytes(path.read_bytes().replace(b'"dtype":"F32"', b'"dtype":"I32"', 1))
    with pytest.raises(IcisError, match=r"head.safetensors is damaged"):
        load_scorers(path)


def test_another_class_name_is_noticed(tmp_path):
    path = tmp_path / "head.safetensors"
    save_scorers(path, {"joint": linear()}, METADATA)
    path.write_bytes(path.read_bytes().replace(b"wolf", b"golf"))
    with pytest.raises(IcisError, match=r"head.safetensors is damaged"):
        load_scorers(path)


@pytest.mark.parametrize("scorer", [linear(), conse()])
def test_every_truncation_is_noticed(tmp_path, scorer):
    path = tmp_path / "head.safetensors"
    save_scorers(path, {"joint": scorer}, METADATA)
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        with pytest.raises(IcisError, match=r"head\.safetensors"):
            load_scorers(path)


def test_a_file_of_another_program_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2, 2)}, path)
    with pytest.raises(IcisError, match=r"model.safetensors holds no injected head"):
        load_scorers(path)
    save_file({"weight": torch.zeros(2, 2)}, path, metadata={"format": "pt"})
    with pytest.raises(IcisError, match=r"model.safetensors holds no injected head"):
        load_scorers(path)
    for text in ("{}", "[]", "no JSON"):
        save_file({"weight": torch.zeros(2, 2)}, path, metadata={"icis": text})
        with pytest.raises(IcisError, match=r"model.safetensors is damaged"):
            load_scorers(path)


def test_what_is_no_safetensors_file_is_refused(tmp_path):
    with pytest.raises(IcisError, match=r"absent.safetensors is not a readable"):
        load_scorers(tmp_path / "absent.safetensors")
    with pytest.raises(IcisError, match="is not a readable"):
        load_scorers(tmp_path)
    path = tmp_path / "text.safetensors"
    path.write_text("this is no safetensors file\n" * 9)
    with pytest.raises(IcisError, match=r"text.safetensors is not a readable"):
        load_scorers(path)
