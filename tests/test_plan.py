"""From an experiment to its cells: references, identities, slugs, seeds, files."""

import copy
import re
import tarfile

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from icis import layout
from icis.config import SeenHead, parse_experiment
from icis.errors import ConfigError, IcisError
from icis.methods import AnyMethod, Icis, Mlp
from icis.methods.icis import LossWeights
from icis.plan import Plan
from icis.slugs import LONGEST_VARIANT, head_slug, variant_slug

EXPERIMENT = {
    "name": "small",
    "seeds": 2,
    "datasets": {
        "TINY": {
            "kind": "xlsa17",
            "splits": "splits.mat",
            "features": {"mnv2": "mnv2.mat", "r101": "r101.mat"},
            "descriptors": {"att": {"file": "splits.mat"}, "wiki": {"file": "wiki.npy"}},
            "batch_size": 20,
        },
        "birds": {
            "kind": "images",
            "root": "birds",
            "descriptors": {"att": {"file": "att.csv"}},
        },
        "shapes": {"kind": "drawn"},
    },
    "backbones": {"r18": {"model": "resnet18"}, "own": {"weights": "local-dir:own"}},
    "heads": {"last": {}, "holdout": {"selection": "holdout"}},
    "methods": {
        "icis": {"method": "icis", "name": "ICIS"},
        "mlp": {"method": "mlp"},
        "conse": {"method": "conse"},
    },
    "tables": {
        "main": {
            "datasets": ["TINY"],
            "backbones": ["mnv2"],
            "heads": ["last"],
            "descriptors": ["att"],
            "methods": ["icis", "mlp", "conse"],
        }
    },
}


def changed(**changes):
    """Return the experiment with values put at paths whose steps are joined by two underscores."""
    data = copy.deepcopy(EXPERIMENT)
    for path, value in changes.items():
        *way, last = path.split("__")
        place = data
        for step in way:
            place = place[step]
        place[last] = value
    return data


def plan(**changes):
    return Plan(parse_experiment(changed(**changes), source="e.yaml"), source="e.yaml")


def problems(**changes):
    with pytest.raises(ConfigError) as caught:
        plan(**changes)
    assert str(caught.value).startswith("e.yaml cannot be run:\n")
    return caught.value.problems


def only_cell(**changes):
    changes = {"tables__main__methods": ["icis"], **changes}
    (cell,) = plan(**changes).cells.values()
    return cell


# references


@pytest.mark.parametrize(
    ("axis", "name", "expected"),
    [
        ("datasets", "TINNY", "there is no dataset 'TINNY'; did you mean 'TINY'?"),
        ("heads", "latest", "there is no head 'latest'; did you mean 'last'?"),
        ("methods", "isic", "there is no method 'isic'; did you mean 'icis'?"),
        ("methods", "xyz", "there is no method 'xyz'; there are: icis, mlp, conse"),
        (
            "descriptors",
            "wikki",
            "there is no descriptor of datasets.TINY 'wikki'; did you mean 'wiki'?",
        ),
        (
            "backbones",
            "mnv3",
            "there is no features file of datasets.TINY 'mnv3'; did you mean 'mnv2'?",
        ),
        (  # a backbone there is, but this data set is given as features
            "backbones",
            "own",
            "there is no features file of datasets.TINY 'own'; there are: mnv2, r101",
        ),
    ],
)
def test_a_name_that_leads_nowhere(axis, name, expected):
    assert problems(**{f"tables__main__{axis}": [name]}) == [f"tables.main.{axis}: {expected}"]


def test_a_backbone_of_images_must_be_configured():
    assert problems(tables__main__datasets=["shapes"]) == [
        "tables.main.backbones: there is no backbone 'mnv2'; there are: r18, own"
    ]


def test_a_descriptor_that_one_of_the_data_sets_lacks():
    found = problems(
        tables__main__datasets=["birds", "shapes"],
        tables__main__backbones=["r18"],
        datasets__birds__descriptors={"w2v": {"file": "w.npy"}, "att": {"file": "a.csv"}},
        tables__main__descriptors=["att", "w2v"],
    )
    assert found == [
        "tables.main.descriptors: there is no descriptor of datasets.shapes 'w2v'; there are: att"
    ]


def test_all_broken_references_are_listed_at_once():
    table = {**EXPERIMENT["tables"]["main"], "descriptors": ["aat"]}
    found = problems(
        tables={
            "first": {**table, "methods": ["icsi"], "heads": ["lst"]},
            "second": {**table, "datasets": ["TINY", "flowers"]},
        }
    )
    assert [each.split(":")[0] for each in found] == [
        "tables.first.heads",
        "tables.first.methods",
        "tables.first.descriptors",
        "tables.second.datasets",
        "tables.second.descriptors",
    ]


def test_two_entries_of_the_same_configuration_are_refused():
    assert problems(
        methods={
            "icis": {"method": "icis"},
            "again": {"method": "icis", "name": "Again", "learning_rate": 1e-5},
            "third": {"method": "icis", "losses": {"w2w": 1}},
            "mlp": {"method": "mlp"},
        },
        tables__main__methods=["icis"],
    ) == [
        "methods.again: it is the same configuration as methods.icis",
        "methods.third: it is the same configuration as methods.icis",
    ]
    assert problems(heads={"last": {}, "same": {"epochs": 100}}) == [
        "heads.same: it is the same configuration as heads.last"
    ]


def test_no_table_no_work():
    assert problems(tables={}) == ["tables: there is none, so there is nothing to compute"]


def test_names_asked_for_later_are_checked_too():
    made = plan()
    with pytest.raises(IcisError, match="there is no data set 'TINNY'; did you mean 'TINY'"):
        made.dataset("TINNY")
    with pytest.raises(IcisError, match="there is no backbone 'r81'; did you mean 'r18'"):
        made.backbone("r81")
    with pytest.raises(IcisError, match="there is no head 'linear-lst'; did you mean 'linear-l"):
        made.head("TINY", "linear-lst")
    with pytest.raises(IcisError, match="there is no cell .*; did you mean 'TINY/mnv2/linear-la"):
        made.cell("TINY", "mnv2", "linear-last", "att", "icis-defalt")


# cells


def test_a_table_is_a_product():
    made = plan(
        tables__main__backbones=["mnv2", "r101"],
        tables__main__heads=["last", "holdout"],
        tables__main__descriptors=["att", "wiki"],
    )
    assert len(made.cells) == 2 * 2 * 2 * 3
    assert len({cell.id for cell in made.cells.values()}) == len(made.cells)
    assert made.table_cells["main"] == list(made.cells.values())
    for key, cell in made.cells.items():
        assert made.cell(*key) is cell
        assert cell.key == key
        assert layout.cell_metrics("small", *key).name == f"{cell.stem}.parquet"


def test_a_cell_of_two_tables_is_one_cell():
    table = EXPERIMENT["tables"]["main"]
    made = plan(tables={"one": table, "two": {**table, "methods": ["mlp", "icis"]}})
    assert len(made.cells) == 3
    assert made.table_cells["two"] == made.table_cells["one"][1::-1]


def test_seeds_are_the_union_over_tables():
    table = EXPERIMENT["tables"]["main"]
    made = plan(
        seeds=2,
        tables={
            "one": {**table, "methods": ["icis", "mlp"]},
            "two": {**table, "methods": ["icis"], "seeds": [7, 1]},
            "three": {**table, "methods": ["icis", "conse"], "seeds": 3},
        },
    )
    seeds = {cell.method.method: made.seeds[key] for key, cell in made.cells.items()}
    assert seeds == {"icis": (0, 1, 2, 7), "mlp": (0, 1), "conse": (0, 1, 2)}
    assert made.table_seeds(made.experiment.tables["two"]) == [7, 1]
    assert made.head_seeds("TINY", "mnv2", "linear-last") == [0, 1, 2, 7]
    assert made.head_seeds("TINY", "mnv2", "linear-holdout") == []


def test_the_batch_size_of_the_data_set_is_filled_in():
    cell = only_cell()
    assert cell.method.batch_size == 20
    assert cell.recipe.batch_size == 20
    assert plan().head("TINY", "linear-last").batch_size == 20
    assert plan().head("birds", "linear-last").batch_size == 16
    own = only_cell(methods__icis__batch_size=8, heads__last__batch_size=4)
    assert (own.method.batch_size, own.recipe.batch_size) == (8, 4)
    # whether it was written down or filled in makes no difference to what is computed
    assert only_cell(methods__icis__batch_size=20, heads__last__batch_size=20).id == cell.id


# identities


def shuffled(data):
    """Return the same data with the keys of every mapping in reverse order."""
    if isinstance(data, dict):
        return {key: shuffled(data[key]) for key in reversed(data)}
    return data


def test_a_cell_is_independent_of_display_names_and_the_order_of_keys():
    before = plan()
    ids = {key: cell.id for key, cell in before.cells.items()}
    renamed = plan(methods__icis__name="Ours", title="A title", tables__main__title="Table 1")
    assert {key: cell.id for key, cell in renamed.cells.items()} == ids
    data = shuffled(EXPERIMENT)
    again = Plan(parse_experiment(data, source="e.yaml"))
    assert {key: cell.id for key, cell in again.cells.items()} == ids
    for key, cell in again.cells.items():
        assert again.injection_fingerprint(cell) == before.injection_fingerprint(before.cells[key])


def test_what_is_beside_a_cell_does_not_change_it():
    cell = only_cell()
    more = only_cell(
        seeds=[5],
        datasets__TINY__features={"mnv2": "mnv2.mat", "r50": "r50.mat"},
        datasets__TINY__descriptors={"att": {"file": "splits.mat"}, "new": {"file": "n.csv"}},
        heads={"last": {}, "long": {"epochs": 1000}},
        methods={"icis": {"method": "icis"}, "deep": {"method": "icis", "depth": 4}},
    )
    assert more.id == cell.id


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("methods__icis__hidden", 1024),
        ("methods__icis__learning_rate", 1.1e-5),
        ("methods__icis__batch_size", 21),
        ("methods__icis__max_epochs", 999),
        ("methods__icis__slope_threshold", 2e-3),
        ("methods__icis__distance", "l2"),
        ("methods__icis__losses", {"w2a": 0.5}),
        ("methods__icis__unseen_descriptors", False),
        ("methods__icis__depth", 3),
        ("heads__last__epochs", 99),
        ("heads__last__learning_rate", 2e-4),
        ("heads__last__batch_size", 16),
        ("heads__last__selection", "test_seen"),
        ("datasets__TINY__batch_size", 16),
        ("datasets__TINY__splits", "other.mat"),
        ("datasets__TINY__features", {"mnv2": "other.mat"}),
        ("datasets__TINY__split_version", "xlsa17-1.0"),
        ("datasets__TINY__descriptors", {"att": {"file": "splits.mat", "normalize": "l2"}}),
        ("datasets__TINY__descriptors", {"att": {"file": "splits.mat", "key": "original_att"}}),
    ],
)
def test_a_cell_changes_with_every_setting(path, value):
    data = {"heads": {"last": {}}} if path.startswith("heads") else {}
    assert only_cell(**{**data, path: value}).id != only_cell().id


def test_every_hyperparameter_of_every_method_is_in_the_identity():
    for method in (Icis(), Mlp()):
        for field in type(method).model_fields:
            assert (field in method.identity()) == (field != "name")


def test_fingerprints_follow_what_a_step_depends_on():
    before = plan()
    cases = {
        "batch_size": plan(datasets__TINY__batch_size=5),
        "descriptor": plan(datasets__TINY__descriptors__att={"file": "new.mat"}),
        "splits": plan(datasets__TINY__splits="new.mat"),
        "other features": plan(datasets__TINY__features__r101="new.mat"),
        "labels": plan(datasets__TINY__features__mnv2="new.mat"),
        "method": plan(methods__icis__hidden=1),
    }

    def stale(after):
        (old, new) = (each.cells["TINY", "mnv2", "linear-last", "att", "mlp-default"]
                      for each in (before, after))  # fmt: skip
        pairs = {
            "index": [each.index_fingerprint("TINY") for each in (before, after)],
            "describe": [each.descriptor_fingerprint("TINY", "att") for each in (before, after)],
            "extract": [each.features_fingerprint("TINY", "mnv2") for each in (before, after)],
            "head": [each.head_fingerprint("TINY", "linear-last") for each in (before, after)],
            "inject": [before.injection_fingerprint(old), after.injection_fingerprint(new)],
            "evaluate": [before.evaluation_fingerprint(old), after.evaluation_fingerprint(new)],
        }
        return {name for name, (one, other) in pairs.items() if one != other}

    assert {name: stale(after) for name, after in cases.items()} == {
        "batch_size": {"head", "inject", "evaluate"},
        "descriptor": {"describe", "evaluate"},
        "splits": {"index", "evaluate"},
        "other features": set(),
        "labels": {"index", "extract", "evaluate"},
        "method": set(),
    }


# slugs


def test_slugs_that_a_person_can_read():
    assert variant_slug(Icis(), ignore=("method",)) == "default"
    assert variant_slug(Icis(name="Ours"), ignore=("method",)) == "default"
    made = Icis(learning_rate=1e-4, losses=LossWeights(a2a=0), unseen_descriptors=False)
    assert variant_slug(made, ignore=("method",)) == (
        "learning_rate-0.0001_a2a-0.0_unseen_descriptors-false"
    ).replace("learning_rate", "learning-rate").replace("unseen_descriptors", "unseen-descriptors")
    assert head_slug("any", SeenHead()) == "linear-last"
    chosen = SeenHead(selection="test_seen", epochs=7)
    assert head_slug("any", chosen) == "linear-test_seen_epochs-7"


methods = st.fixed_dictionaries(
    {"method": st.just("icis"), "unseen_descriptors": st.just(False)},
    optional={
        "hidden": st.integers(1, 10**6),
        "learning_rate": st.floats(1e-300, 1e300),
        "batch_size": st.integers(1, 10**6),
        "max_epochs": st.integers(1, 10**6),
        "slope_threshold": st.floats(0, 1e300),
        "distance": st.sampled_from(["cosine", "l2"]),
        "depth": st.integers(2, 4),
        "losses": st.fixed_dictionaries(
            {"a2w": st.floats(1e-300, 1e300)},
            optional={key: st.floats(0, 1e300) for key in ("a2a", "w2w", "w2a")},
        ),
    },
)
METHOD = TypeAdapter(AnyMethod)


def slug_of(settings):
    return variant_slug(METHOD.validate_python(settings), ignore=("method",))


@settings(deadline=None)
@given(one=methods, other=methods)
def test_slugs_are_short_plain_and_differ_with_the_configuration(one, other):
    slug = slug_of(one)
    assert slug == slug_of(shuffled(one))
    assert slug.isascii()
    assert re.fullmatch(r"[a-z0-9._-]+", slug)
    assert len(slug) <= LONGEST_VARIANT + 9
    assume(METHOD.validate_python(one) != METHOD.validate_python(other))
    assert slug != slug_of(other)


@settings(deadline=None)
@given(
    field=st.sampled_from(["learning_rate", "slope_threshold"]),
    one=st.floats(1e-300, 1e300),
    other=st.floats(1e-300, 1e300),
)
def test_slugs_differ_with_one_number(field, one, other):
    assume(one != other)
    assert slug_of({"method": "icis", field: one}) != slug_of({"method": "icis", field: other})


@pytest.mark.parametrize("digits", [16, 20, 300])
def test_the_sign_of_an_exponent_counts(digits):
    slugs = {slug_of({"method": "icis", "learning_rate": float(f"1e{s}{digits}")}) for s in "+-"}
    assert len(slugs) == 2


# files


def test_all_missing_files_are_listed_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "birds").mkdir()
    found = plan(
        tables={
            "given": EXPERIMENT["tables"]["main"],
            "images": {
                **EXPERIMENT["tables"]["main"],
                "datasets": ["birds", "shapes"],
                "backbones": ["r18", "own"],
            },
        },
        datasets__birds__class_list="classes.txt",
        datasets__TINY__descriptors={"att": {"file": "wiki.npy", "classes": "names.txt"}},
    ).missing_files()
    assert found == [
        "datasets.TINY.splits: splits.mat does not exist",
        "datasets.TINY.features.mnv2: mnv2.mat does not exist",
        "datasets.TINY.descriptors.att.file: wiki.npy does not exist",
        "datasets.TINY.descriptors.att.classes: names.txt does not exist",
        "datasets.birds.splits: birds/splits.csv does not exist",
        "datasets.birds.class_list: birds/classes.txt does not exist",
        "datasets.birds.descriptors.att.file: birds/att.csv does not exist",
        "backbones.own.weights: own/config.json does not exist",
        "backbones.own.weights: own/model.safetensors does not exist",
    ]


IMAGES = {"tables__main__datasets": ["birds"], "tables__main__backbones": ["r18"]}


def test_an_absent_root_is_named_with_all_that_should_be_inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert plan(**IMAGES).missing_files() == [
        "datasets.birds.root: birds does not exist",
        "datasets.birds.splits: birds/splits.csv does not exist",
        "datasets.birds.descriptors.att.file: birds/att.csv does not exist",
    ]


def test_files_beside_images_are_found_here_or_inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds/splits.csv").touch()
    (tmp_path / "att.csv").touch()
    made = plan(**IMAGES)
    assert made.missing_files() == []
    assert [str(path) for path in made.files.index("birds")] == ["birds", "birds/splits.csv"]
    assert [str(path) for path in made.files.descriptor("birds", "att")] == ["att.csv"]


def test_files_beside_images_are_looked_for_in_a_tar(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "att.csv").touch()
    with tarfile.open("birds.tar", "w") as archive:
        archive.add("att.csv")
    (tmp_path / "att.csv").unlink()
    made = plan(**IMAGES, datasets__birds__root="birds.tar")
    assert made.missing_files() == [
        "datasets.birds.splits: splits.csv is neither a file here nor inside birds.tar"
    ]
    assert [str(path) for path in made.files.descriptor("birds", "att")] == ["birds.tar"]
    assert [str(path) for path in made.files.index("birds")] == ["birds.tar"]


def test_an_archive_that_is_no_tar_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "birds.zip").touch()
    (found, *_) = plan(**IMAGES, datasets__birds__root="birds.zip").missing_files()
    assert found.startswith("datasets.birds.")
    assert "birds.zip is neither a folder nor a .tar" in found


def test_an_environment_variable_that_is_not_set_is_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XLSA", raising=False)
    made = {
        "datasets__TINY__splits": "${XLSA}/splits.mat",
        "datasets__TINY__features": {"mnv2": "${XLSA}/mnv2.mat"},
        "datasets__TINY__descriptors": {"att": {"file": "${XLSA:-here}/att.mat"}},
    }
    found = plan(**made).missing_files()
    unset = "the environment variable XLSA is not set; set it to the folder that holds the data"
    assert found == [
        f"datasets.TINY.splits: ${{XLSA}}/splits.mat: {unset} (export XLSA=FOLDER)",
        f"datasets.TINY.features.mnv2: ${{XLSA}}/mnv2.mat: {unset} (export XLSA=FOLDER)",
        "datasets.TINY.descriptors.att.file: here/att.mat does not exist",
    ]
    monkeypatch.setenv("XLSA", str(tmp_path))
    for name in ("splits.mat", "mnv2.mat", "att.mat"):
        (tmp_path / name).touch()
    assert plan(**made).missing_files() == []


def test_what_was_made_already_needs_no_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (
        layout.index("TINY"), layout.descriptors("TINY", "att"), layout.features("TINY", "mnv2")
    ):  # fmt: skip
        path.parent.mkdir(parents=True)
        path.touch()
    assert plan().missing_files() == []


def test_a_drawn_data_set_needs_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn = {"tables__main__datasets": ["shapes"], "tables__main__backbones": ["r18"]}
    made = plan(**drawn)
    assert made.missing_files() == []
    assert made.files.index("shapes") == [layout.raw("shapes") / "splits.csv"]
    assert made.files.descriptor("shapes", "att") == []  # it comes with the splits
    other = plan(**drawn, datasets__shapes__descriptors={"att": {"file": "mine.csv"}})
    assert other.missing_files() == [
        "datasets.shapes.descriptors.att.file: mine.csv does not exist"
    ]
