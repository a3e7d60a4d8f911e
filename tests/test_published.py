"""Published numbers: what the file says, its errors, and how rows of a table find theirs."""

import math

import pytest

from icis.errors import ConfigError, IcisError
from icis.published import block, blocks, read_blocks
from icis.results import Published, Summary, build_table, difference
from icis.shown import lines
from tests.example_results import cell_rows, example_metrics, example_plan, frame

GOOD = """
one:
  source: a book
  certainty: seen once
  selection: seen head selected on test_seen
  metrics: [T1, H]
  columns:
    - {dataset: CUB, descriptor: att, rows: {icis: [60.6, 56.5], conse: [41.9, null]}}
"""


@pytest.mark.parametrize(
    ("name", "dataset", "descriptor", "n_seen", "key", "wanted"),
    [
        ("table1", "CUB", "att", "all", "icis", [60.6, 45.8, 73.7, 56.5]),
        ("table1", "AWA2", "att", "all", "vgse", [55.4, 31.8, 92.4, 47.3]),
        ("table1", "SUN", "att", "645", "costa", [19.9, 0, 50.1, 0]),
        ("table1", "AWA2", "att", "all", "wdae", [37.0, 0.1, 96.0, 0.3]),
        ("table1", "SUN", "att", "all", "llm-clip", [60.9, 41.9, 40.6, 41.3]),
        ("table1", "CUB", "att", "all", "conse", [41.9, 0.5, 88.0, 0.9]),
        ("table1", "CUB", "att", "75", "icis", [None] * 4),
        ("table1", "CUB", "wiki2vec", "all", "icis", [None] * 4),
        ("table3", "AWA2", "wiki2vec", "all", "icis", [65.5, None, None, None]),
        ("table3", "SUN", "conceptnet", "all", "subreg", [11.7, None, None, None]),
        ("table3", "CUB", "conceptnet", "all", "vgse", [11.1, None, None, None]),
        ("data-efficiency", "CUB", "att", "150", "icis", [60.9, None, None, 56.7]),
        ("data-efficiency", "CUB", "att", "all", "icis-cross", [60.2, None, None, 56.0]),
        ("data-efficiency", "CUB", "att", "50", "mlp-cosine", [5.5, None, None, 0]),
        ("data-efficiency", "CUB", "att", "25", "icis-single", [21.0, None, None, 19.7]),
        ("data-efficiency", "CUB", "att", "12", "mlp", [8.5, None, None, 0]),
        ("tiny", "tiny-features", "conceptnet", "all", "mlp", [22.0, 0.1, 57.3, 0.2]),
        ("tiny", "tiny-features", "conceptnet", "all", "mlp-l2", [22.0, 0.1, 57.3, 0.2]),
        ("tiny", "tiny-features", "conceptnet", "all", "conse", [23.7, 0.0, 57.3, 0.0]),
        ("tiny", "tiny-features", "conceptnet", "all", "wavg", [4.3, 2.3, 41.6, 4.3]),
    ],
)
def test_spot_checks(name, dataset, descriptor, n_seen, key, wanted):
    place = {"dataset": dataset, "descriptor": descriptor, "n_seen": n_seen}
    found = [block(name).find(key, metric, **place) for metric in ("T1", "U", "S", "H")]
    assert [number and number.value for number in found] == wanted


def test_deviations_stand_where_they_were_published():
    place = {"dataset": "tiny-features", "descriptor": "conceptnet", "n_seen": "all"}
    tiny = block("tiny")
    assert tiny.find("icis", "H", **place) == Published(18.1, 1.1, 3)
    assert tiny.find("costa", "U", **place) == Published(0.2, None, 3)
    assert tiny.find("subreg", "T1", **place) == Published(21.8, None, 1)
    assert block("table1").find("icis", "H", dataset="CUB", descriptor="att", n_seen="all") == (
        Published(56.5)
    )


@pytest.mark.parametrize("name", ["table1", "data-efficiency"])
def test_h_is_the_harmonic_mean_as_far_as_rounding_goes(name):
    numbers = block(name)
    for column in numbers.columns:
        for row in column.rows.values():
            if len(row) == 4 and row[1] > 1:  # U of one decimal below 1 tells nothing
                _, u, s, h = row
                assert h == pytest.approx(2 * u * s / (u + s), abs=0.7)


def test_every_block_says_where_it_comes_from():
    assert blocks() == ("table1", "table3", "data-efficiency", "tiny")
    for name in blocks():
        numbers = block(name)
        assert set(numbers.names) == set(numbers.keys)
        text = f"{numbers.source} {numbers.certainty}"
        assert "shared" not in text
        assert "/" not in numbers.source
    with pytest.raises(IcisError, match=r"'table-1'; did you mean 'table1'\?"):
        block("table-1")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("source: a book", "sauce: a book", "one: unknown key 'sauce'; did you mean 'source'"),
        ("[60.6, 56.5]", "[60.6]", r"CUB, icis: there are 1 numbers, not 2 \(T1, H\)"),
        ("[60.6, 56.5]", "[60.6, high]", r"one\.columns\.0\.rows\.icis\.1"),
        ("[T1, H]", "[T1, X]", r"one\.metrics\.1: Input should be 'T1'"),
        ("[T1, H]", "[T1, T1]", r"one\.metrics: no metric may stand there twice"),
        ("metrics", "aliases: {x: isic}\n  metrics", "no row belongs to 'isic'; did you mean 'ici"),
        ("metrics", "aliases: {conse: icis}\n  metrics", "'conse' is an alias and has rows"),
        ("all", "a: [", "cannot be read"),
        ("dataset: CUB", "n_seen: [3, 3], dataset: CUB", "CUB / att / 3 is there twice"),
    ],
)
def test_mistakes_are_named(tmp_path, old, new, problem):
    path = tmp_path / "numbers.yaml"
    path.write_text(GOOD)
    assert read_blocks(path)["one"].keys == ["icis", "conse"]
    path.write_text(GOOD.replace(old, new, 1) if old in GOOD else new)
    with pytest.raises(ConfigError, match=problem):
        read_blocks(path)


def test_a_difference_counts_standard_errors_where_both_are_known():
    ours = Summary(12.0, 2.0, (10.0, 12.0, 14.0, 12.0))
    found = difference(ours, Published(10.0, 3.0, 9))
    assert found.value == 2
    assert found.errors == pytest.approx(2 / math.hypot(2 / math.sqrt(4), 3 / math.sqrt(9)))
    for theirs in (Published(10.0), Published(10.0, 3.0, 1), Published(10.0, None, 3)):
        assert difference(ours, theirs).errors is None
    assert difference(Summary(1.0, None, (1.0,)), Published(0.0, 3.0, 9)).errors is None
    assert difference(Summary(1.0, 0.0, (1.0, 1.0)), Published(0.0, 0.0, 9)).errors is None


def build(keys, **table):
    axes = {"datasets": ["CUB"], "published": "table1", "heads": ["leak"]} | table
    plan = example_plan({key: key.upper() for key in keys}, **axes)
    return build_table(example_metrics(plan), plan, "main")


def test_rows_find_their_numbers_by_key():
    table = build(["icis", "other", "conse"], datasets=["CUB", "SUN"], metrics=["H", "T1"])
    icis, other, conse = table.methods
    assert {column: each.value for column, each in icis.published.items()} == {
        (0, "H"): 56.5, (0, "T1"): 60.6, (1, "H"): 32.7, (1, "T1"): 51.8,
    }  # fmt: skip
    assert other.published == {}
    assert conse.published[0, "T1"] == Published(41.9)
    assert [row.key for row in table.elsewhere] == ["costa", "subreg", "wdae", "vgse", "llm-clip"]
    assert table.elsewhere[3].display == "VGSE, WAvg or SMO"
    kinds = [line.kind for line in lines(table, table.columns)]
    trio = ["method", "published", "difference"]
    assert kinds == ["chance", *trio, "method", *trio, *["elsewhere"] * 5]


def test_numbers_depend_on_how_many_classes_were_seen():
    keys = ["mlp", "icis"]
    table = build(keys, n_seen=["all", 50, 11], metrics=["T1"], published="data-efficiency")
    found = [row.published for row in table.methods]
    assert [{g: each.value for (g, _), each in row.items()} for row in found] == [
        {0: 41.5, 1: 5.2}, {0: 60.9, 1: 37.4},
    ]  # fmt: skip
    assert [row.key for row in table.elsewhere] == ["mlp-cosine", "icis-single", "icis-cross"]


def test_an_alias_is_no_row_of_its_own():
    axes = {"datasets": ["tiny-features"], "descriptors": ["conceptnet"], "published": "tiny"}
    for key in ("mlp", "mlp-l2"):
        table = build([key, "icis"], **axes)
        assert table.methods[0].published[0, "T1"].value == 22.0
        assert not {"mlp", "mlp-l2"} & {row.key for row in table.elsewhere}


def test_notes_say_source_certainty_and_selection():
    notes = " ".join(build(["icis"]).notes)
    assert "the ICIS row stands in three independent reprints" in notes
    assert "published numbers: seen head selected on test_seen; ours too." in notes
    notes = " ".join(build(["icis"], heads=["last"]).notes)
    assert "seen head selected on test_seen; ours: last epoch of the seen head." in notes
    notes = " ".join(build(["icis"], heads=["last", "leak"]).notes)
    assert "ours: last epoch of the seen head (CUB / linear-last); seen head selected" in notes
    notes = build(["icis"], datasets=["dogs"]).notes
    assert "Published numbers: the block 'table1' has none for these columns." in notes


def test_without_numbers_nothing_is_shown():
    for table in (build(["icis"], published=None), build(["icis"], datasets=["dogs"])):
        assert not table.elsewhere
        assert not table.methods[0].published
        assert [line.kind for line in lines(table, table.columns)] == ["chance", "method"]


def test_difference_is_ours_minus_published():
    plan = example_plan({"icis": "ICIS"}, published="table1", metrics=["T1", "U"], seeds=1)
    cell = next(iter(plan.cells.values()))
    table = build_table(frame(cell_rows(cell, 0, {"T1": 60.0, "U": 46.04})), plan, "main")
    texts = {line.kind: line.texts for line in lines(table, table.columns)}
    assert texts["published"] == ["60.6", "45.8"]
    assert texts["difference"] == ["−0.6", "+0.2"]
