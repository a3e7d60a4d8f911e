"""Experiment files: what is refused, and in which words."""

import copy
import json
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icis.config import Experiment, parse_experiment, read_experiment
from icis.errors import ConfigError

EXPERIMENT = {
    "name": "small",
    "datasets": {
        "shapes": {"kind": "drawn"},
        "TINY": {"kind": "xlsa17", "splits": "s.mat", "features": {"mnv2": "f.mat"}},
        "birds": {
            "kind": "images",
            "root": "birds",
            "descriptors": {"att": {"file": "att.csv"}},
        },
    },
    "backbones": {"r18": {"model": "resnet18"}},
    "heads": {"last": {}},
    "methods": {
        "icis": {"method": "icis"},
        "icis-a2w": {"method": "icis", "unseen_descriptors": False, "losses": {"a2a": 0}},
        "mlp": {"method": "mlp"},
    },
    "tables": {
        "main": {
            "datasets": ["shapes"],
            "backbones": ["r18"],
            "heads": ["last"],
            "descriptors": ["att"],
            "methods": ["icis", "mlp"],
        }
    },
}
JARGON = (
    "pydantic",
    "http",
    "Input",
    "tag",
    "discriminator",
    "Value error",
    "validat",
    "function-",
)


def changed(changes):
    """Return the experiment with values put at dotted paths."""
    data = copy.deepcopy(EXPERIMENT)
    for path, value in changes.items():
        *way, last = path.split("/")
        place = data
        for step in way:
            place = place[step]
        place[last] = value
    return data


def problems(data):
    with pytest.raises(ConfigError) as caught:
        parse_experiment(data, source="e.yaml")
    text = str(caught.value)
    assert text.startswith("e.yaml cannot be run:\n")
    assert not [word for word in JARGON if word in text], text
    return caught.value.problems


def problem(path, value):
    found = problems(changed({path: value}))
    assert len(found) == 1, found
    return found[0]


def test_the_experiment_itself_is_valid():
    experiment = parse_experiment(EXPERIMENT, source="e.yaml")
    assert experiment.datasets["shapes"].descriptors["att"].file == "attributes.csv"
    assert experiment.datasets["shapes"].split_version == "drawn"
    assert experiment.datasets["TINY"].descriptors["att"].file == "s.mat"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("sead", "the experiment: unknown key 'sead'; did you mean 'seeds'?"),
        (
            "methods/icis-a2w/lerning_rate",
            "methods.icis-a2w: unknown key 'lerning_rate'; did you mean 'learning_rate'?",
        ),
        (  # an entry that is called as its method is
            "methods/icis/lerning_rate",
            "methods.icis: unknown key 'lerning_rate'; did you mean 'learning_rate'?",
        ),
        (
            "methods/icis-a2w/losses/a2v",
            "methods.icis-a2w.losses: unknown key 'a2v'; did you mean 'a2w'?",
        ),
        (
            "datasets/TINY/feature",
            "datasets.TINY: unknown key 'feature'; did you mean 'features'?",
        ),
        (
            "datasets/birds/descriptors/att/nomalize",
            "datasets.birds.descriptors.att: unknown key 'nomalize'; did you mean 'normalize'?",
        ),
        ("backbones/r18/modle", "backbones.r18: unknown key 'modle'; did you mean 'model'?"),
        (
            "tables/main/metric",
            "tables.main: unknown key 'metric'; did you mean 'metrics'?",
        ),
        (
            "heads/last/zzz",
            "heads.last: unknown key 'zzz'; there are: kind, selection, epochs, "
            "learning_rate, batch_size, holdout",
        ),
    ],
)
def test_an_unknown_key_suggests_the_right_one(path, expected):
    assert problem(path, 1) == expected


def test_a_key_called_as_its_entry_is_reported_as_the_user_wrote_it():
    found = problem("methods/icis", {"method": "icis", "icis": 1})
    assert found.startswith("methods.icis: unknown key 'icis'; ")


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("methods/icis/method", "icsi", "there is no method 'icsi'; did you mean 'icis'?"),
        ("datasets/shapes/kind", "drwn", "there is no kind 'drwn'; did you mean 'drawn'?"),
        (
            "datasets/shapes/kind",
            "q",
            "there is no kind 'q'; there are: drawn, images, imagenet-val, xlsa17",
        ),
        (
            "datasets/birds/descriptors/att/kind",
            "word",
            "there is no kind 'word'; did you mean 'words'?",
        ),
        ("datasets/shapes/kind", None, "there is no kind 'None'; there are: drawn, "),
    ],
)
def test_an_unknown_kind_suggests_the_nearest(path, value, expected):
    assert problem(path, value).startswith(f"{path.replace('/', '.')}: {expected}")


def test_an_entry_without_its_kind():
    assert problem("methods/new", {}).startswith("methods.new.method: it is missing; there are: ")
    assert problem("datasets/new", {}) == (
        "datasets.new.kind: it is missing; there are: drawn, images, imagenet-val, xlsa17"
    )


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("datasets/shapes/classes", "80", "should be a whole number, not '80'"),
        ("datasets/shapes/classes", True, "should be a whole number, not True"),
        ("datasets/shapes/classes", 80.5, "should be a whole number, not 80.5"),
        ("datasets/shapes/classes", -1, "should be greater than 0, not -1"),
        ("datasets/TINY/splits", 3, "should be text, not 3"),
        ("datasets/TINY/features", "f.mat", "should be a mapping of names to entries, not 'f.mat'"),
        ("datasets/birds/descriptors/att/normalize", "L2", "should be 'none' or 'l2', not 'L2'"),
        ("methods/icis/learning_rate", "fast", "should be a number, not 'fast'"),
        ("methods/icis/learning_rate", True, "should be a number, not True"),
        ("methods/icis/learning_rate", 0, "should be greater than 0, not 0"),
        ("methods/icis/learning_rate", math.inf, "should be a finite number, not inf"),
        ("methods/icis/losses/a2w", math.nan, "should be a finite number, not nan"),
        ("methods/icis/unseen_descriptors", "no", "should be true or false, not 'no'"),
        ("methods/icis/unseen_descriptors", 0, "should be true or false, not 0"),
        (
            "methods/icis/distance",
            "cosin",
            "should be 'cosine' or 'l2', not 'cosin'; did you mean 'cosine'?",
        ),
        (
            "methods/icis/recipe",
            "fats",
            "should be 'faithful' or 'fast', not 'fats'; did you mean 'fast'?",
        ),
        ("methods/icis", "icis", "should be a mapping of keys to values, not 'icis'"),
        ("heads/last", None, "should be a mapping of keys to values, and is empty"),
        ("heads/last/selection", "best", "should be 'last', 'holdout' or 'test_seen', not 'best'"),
        ("backbones/r18/train", True, "should be a mapping of keys to values, not True"),
        ("tables/main/datasets", 3, "should be a list, not 3"),
        ("tables/main/datasets", "shapes", "should be a list, not 'shapes'"),
        ("tables/main/methods", [], "should name at least one entry, and none twice, not []"),
        (
            "tables/main/heads",
            ["last", "last"],
            "should name at least one entry, and none twice, not ['last', 'last']",
        ),
        ("seeds", "five", "should be how many seeds (1 or more), or a list of different ones"),
        ("seeds", 0, "should be how many seeds"),
        ("seeds", True, "should be how many seeds"),
        ("seeds", [], "should be how many seeds"),
        ("seeds", [0, 0], "should be how many seeds"),
        ("seeds", [-1], "should be how many seeds"),
        ("seeds", [True], "should be how many seeds"),
        ("seeds", {"first": 1}, "should be how many seeds"),
        ("tables/main/seeds", "all", "should be how many seeds"),
        ("name", 3, "should be text, not 3"),
    ],
)
def test_a_wrong_type_or_value_is_named(path, value, expected):
    data = changed({"methods/icis/losses": {}} if "losses" in path else {})
    place = data
    *way, last = path.split("/")
    for step in way:
        place = place[step]
    place[last] = value
    found = problems(data)
    assert len(found) == 1
    assert found[0].startswith(f"{path.replace('/', '.')}: {expected}")


def test_an_entry_of_a_list_is_named_by_its_position():
    assert problem("tables/main/metrics", ["T1", "T2"]).startswith("tables.main.metrics.1: ")
    assert problem("tables/main/datasets", [3]) == "tables.main.datasets.0: should be text, not 3"


def test_a_long_value_is_cut():
    assert len(problem("tables/main/datasets", "x" * 5000)) < 150


def test_missing_keys_are_all_named():
    assert problems({**EXPERIMENT, "tables": {"main": {"metrics": ["T1"]}}}) == [
        f"tables.main.{key}: it is missing"
        for key in ("datasets", "backbones", "heads", "descriptors", "methods")
    ]


def test_several_problems_are_listed_at_once():
    found = problems(
        changed(
            {
                "sead": 1,
                "datasets/shapes/clases": 5,
                "datasets/shapes/seed": "a",
                "heads": 3,
                "methods/icis": {"method": "icsi"},
                "methods/mlp/lerning_rate": 1,
                "methods/mlp/hidden": 0,
            }
        )
    )
    assert sorted(each.split(":")[0] for each in found) == sorted(
        [
            "the experiment",
            "datasets.shapes",
            "datasets.shapes.seed",
            "heads",
            "methods.icis.method",
            "methods.mlp",
            "methods.mlp.hidden",
        ]
    )


@pytest.mark.parametrize("text", ["1e-5", "1E-5", "1.e-5", "1.0e-5", "+1e-5", ".1e-4"])
def test_scientific_notation_is_a_number_even_as_text(text):
    experiment = parse_experiment(
        changed(
            {
                "methods/icis/learning_rate": text,
                "methods/icis/slope_threshold": text,
                "methods/icis/losses": {"w2w": text},
                "heads/last/learning_rate": text,
            }
        ),
        source="e.yaml",
    )
    method = experiment.methods["icis"]
    assert method.learning_rate == pytest.approx(1e-5)
    assert method.slope_threshold == pytest.approx(1e-5)
    assert method.losses.w2w == pytest.approx(1e-5)
    assert experiment.heads["last"].learning_rate == pytest.approx(1e-5)


def test_text_stays_text_where_text_is_wanted():
    experiment = parse_experiment(
        changed({"title": "1e-5", "datasets/TINY/splits": "1e5"}), source="e.yaml"
    )
    assert experiment.title == "1e-5"
    assert experiment.datasets["TINY"].splits == "1e5"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"methods/icis-a2w/unseen_descriptors": True},
            "methods.icis-a2w: unseen_descriptors takes effect through losses.a2a only, "
            "which is 0: set unseen_descriptors: false",
        ),
        (
            {"methods/icis-a2w/losses": {"a2w": 0}},
            "methods.icis-a2w: losses.a2w is 0: prediction needs this term, "
            "give it a positive weight",
        ),
        (
            {"backbones/r18/weights": "random"},
            "backbones.r18: weights are random and there is no training: the features would mean "
            "nothing; add 'train: {}'",
        ),
        (
            {"backbones/r18": {}},
            "backbones.r18: model: a timm model name is needed unless weights are a local-dir "
            "or an hf-hub",
        ),
        (
            {"backbones/r18/weights": "imagenet"},
            "backbones.r18.weights: should be 'pretrained', 'random', 'local-dir:FOLDER' or "
            "'hf-hub:ORG/NAME', not 'imagenet'",
        ),
        (
            {"backbones/r18/weights": "local-dir:"},
            "backbones.r18.weights: should be 'pretrained', 'random', 'local-dir:FOLDER' or "
            "'hf-hub:ORG/NAME', not 'local-dir:'",
        ),
        (
            {"datasets/shapes/classes": 10},
            "datasets.shapes: 20 unseen of 10 classes leave too few seen: "
            "at least 2 classes must be seen",
        ),
    ],
)
def test_an_impossible_combination_is_refused(changes, expected):
    assert problems(changed(changes)) == [expected]


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "", "a b", "a\n", "é", "-rf", "x" * 101])
@pytest.mark.parametrize("place", ["datasets", "methods", "heads", "backbones", "tables"])
def test_names_that_would_break_paths_are_refused(place, name):
    entry = next(iter(EXPERIMENT[place].values()))
    data = copy.deepcopy(EXPERIMENT)
    data[place] = {name: entry}
    found = problems(data)
    assert len(found) == 1
    assert found[0].startswith(f"{place}.{name}: should ")


@pytest.mark.parametrize("name", ["a/b", "..", "", "a\n"])
def test_other_names_that_are_part_of_paths(name):
    assert problem("name", name).startswith("name: should consist of letters")
    assert problem("datasets/TINY/features", {name: "f"}).startswith("datasets.TINY.features.")
    assert problem("datasets/birds/descriptors", {name: {"file": "f"}}).startswith(
        "datasets.birds.descriptors."
    )


def test_a_name_that_is_a_number():
    assert problem("methods", {3: {"method": "mlp"}}) == "methods.3: should be text, not 3"


# files


def read_problems(path, text):
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        read_experiment(path)
    assert str(caught.value).startswith(f"{path} cannot be run:\n")
    assert "http" not in str(caught.value)
    return caught.value.problems


def test_a_file_in_yaml_or_json(tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text(json.dumps(EXPERIMENT))
    expected = parse_experiment(EXPERIMENT, source="here")
    assert read_experiment(path) == expected
    path.write_text(
        "name: small\ndatasets: {shapes: {kind: drawn}}\nheads: {last: {learning_rate: 1e-3}}\n"
        "methods:\n  icis: &icis\n    method: icis\n  deep:\n    <<: *icis\n    depth: 4\n"
        "tables: {}\n"
    )
    experiment = read_experiment(path)
    assert experiment.heads["last"].learning_rate == 1e-3
    assert experiment.methods["deep"].depth == 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nseeds: 1\nseeds: 2\n", r'it is no valid YAML: .*duplicate key "seeds".*line 3'),
        ("name: [a\n", r"it is no valid YAML: .*\(line 2\)"),
        ("a: b: c\n", r"it is no valid YAML: .*\(line 1\)"),
        ("name: !!python/object:os.system x\n", r"it is no valid YAML: .*\(line 1\)"),
        ("name: a\n---\nname: b\n", r"it is no valid YAML: "),
        ("", "it should be a mapping with the keys name, datasets, …"),
        ("# nothing\n", "it should be a mapping"),
        ("just text\n", "it should be a mapping"),
        ("- name\n", "it should be a mapping"),
        (b"\xff\xfe\x00name", "it is no text in UTF-8"),
        (b"name: \x00\n", "it is no valid YAML"),
    ],
)
def test_a_broken_file_is_one_readable_problem(tmp_path, text, expected):
    (found,) = read_problems(tmp_path / "e.yaml", text)
    assert re.match(expected, found), found
    assert "\n" not in found


def test_an_absent_file(tmp_path):
    path = tmp_path / "absent.yaml"
    with pytest.raises(ConfigError, match=r"absent.yaml cannot be run:\n  it cannot be read: No "):
        read_experiment(path)
    with pytest.raises(ConfigError, match=r"it cannot be read: Is a directory"):
        read_experiment(tmp_path)


# written and read again

rates = st.floats(min_value=1e-300, max_value=1e300)
counts = st.integers(min_value=1, max_value=10**9)
seeds = st.one_of(
    counts, st.lists(st.integers(0, 2**63 - 1), unique=True, min_size=1, max_size=4)
)  # fmt: skip


@settings(deadline=None)
@given(
    learning_rate=rates,
    slope=st.none() | st.floats(0, 1),
    batch_size=st.none() | counts,
    weights=st.fixed_dictionaries({"a2w": rates, "w2w": st.floats(0, 9)}),
    seeds=seeds,
    table_seeds=st.none() | seeds,
    title=st.text(max_size=20),
)
def test_an_experiment_survives_json(
    learning_rate, slope, batch_size, weights, seeds, table_seeds, title
):
    data = changed(
        {
            "title": title,
            "seeds": seeds,
            "tables/main/seeds": table_seeds,
            "methods/icis": {
                "method": "icis",
                "name": title,
                "learning_rate": learning_rate,
                "slope_threshold": slope,
                "batch_size": batch_size,
                "losses": weights,
            },
        }
    )
    experiment = parse_experiment(data, source="e.yaml")
    again = parse_experiment(json.loads(json.dumps(experiment.identity())), source="again")
    assert again == experiment
    assert isinstance(again, Experiment)
    assert again.identity() == experiment.identity()
