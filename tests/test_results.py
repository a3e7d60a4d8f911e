"""Tables of results against means and deviations computed by numpy."""

from typing import get_args

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from icis.config.experiment import Metric
from icis.errors import IcisError
from icis.notes import MEANINGS
from icis.results import COLUMNS, Summary, build_table, headline
from tests.example_results import cell_rows, example_metrics, example_plan, fail, frame

ALL = ["T1", "U", "S", "H", "entropy", "epochs", "seen_accuracy"]
PLAN = example_plan(["one", "two"], datasets=["CUB", "SUN"], metrics=["T1", "entropy"])
SLOTS = [
    (key, seed, metric)
    for key in PLAN.cells
    for seed in range(5)  # the table wants 0, 1, 2
    for metric in ("T1", "entropy")
]


@given(
    st.dictionaries(st.sampled_from(SLOTS), st.floats(0, 100), max_size=len(SLOTS)),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_summaries_are_numpys(values, random):
    rows = [
        row
        for (key, seed, metric), value in values.items()
        for row in cell_rows(PLAN.cells[key], seed, {metric: value})
    ]
    random.shuffle(rows)
    table = build_table(frame(rows), PLAN, "main")

    assert [group.dataset for group in table.groups] == ["CUB", "SUN"]
    assert [row.display for row in table.rows] == ["Chance", "one", "two"]
    for g, group in enumerate(table.groups):
        for row in table.methods:
            key = (group.dataset, group.backbone, group.head, group.descriptor, row.stem)
            for metric in table.metrics:
                wanted = [values[k, s, m] for k, s, m in SLOTS
                          if (k, m) == (key, metric) and s < 3 and (k, s, m) in values]  # fmt: skip
                found = row.cells[g, metric]
                if not wanted:
                    assert found is None
                    continue
                assert list(found.values) == wanted
                assert found.n == len(wanted)
                assert found.mean == pytest.approx(np.mean(wanted), rel=1e-12, abs=1e-12)
                if len(wanted) == 1:
                    assert found.std is None
                else:
                    assert found.std == pytest.approx(np.std(wanted, ddof=1), rel=1e-9, abs=1e-9)


def test_rows_and_columns_follow_the_table_and_not_the_metrics():
    plan = example_plan(["b", "a", "c"], datasets=["SUN", "CUB"], metrics=["H", "T1"])
    metrics = example_metrics(plan).sample(fraction=1, shuffle=True, seed=1)
    table = build_table(metrics, plan, "main")
    assert [row.display for row in table.rows] == ["Chance", "b", "a", "c"]
    assert table.columns == [(0, "H"), (0, "T1"), (1, "H"), (1, "T1")]
    assert [group.label for group in table.groups] == ["SUN", "CUB"]
    assert metrics.columns == COLUMNS


def test_labels_name_what_varies_and_a_note_the_rest():
    plan = example_plan(["one"], backbones=["r101", "vit"], heads=["last", "leak"])
    table = build_table(example_metrics(plan), plan, "main")
    assert [group.label for group in table.groups] == [
        "CUB / r101 / linear-last", "CUB / r101 / linear-test_seen",
        "CUB / vit / linear-last", "CUB / vit / linear-test_seen",
    ]  # fmt: skip
    assert "All columns: descriptor att." in table.notes


def test_chance_stands_first_without_deviation():
    plan = example_plan(["one"], metrics=ALL)
    chance = build_table(example_metrics(plan), plan, "main").rows[0]
    assert chance.display == "Chance"
    assert chance.cells[0, "T1"] == Summary(2.0, None, (2.0,))
    assert {chance.cells[0, metric].mean for metric in "USH"} == {0.5}
    assert {chance.cells[0, metric] for metric in ("entropy", "epochs", "seen_accuracy")} == {None}


def test_cells_of_another_configuration_do_not_count():
    plan = example_plan(["one", "two"])
    other = example_plan(["one", {"method": "icis", "hidden": 9, "depth": 3, "name": "two"}])
    table = build_table(example_metrics(other), plan, "main")
    assert table.rows[1].cells[0, "T1"]
    assert table.rows[2].cells[0, "T1"] is None
    assert "No result of this configuration: “two”." in table.notes


def test_paths_that_share_an_id_are_told_apart():
    plan = example_plan(
        [{"method": "icis", "name": "own"}, {"method": "icis", "batch_size": 16, "name": "given"}]
    )
    first, second = plan.cells.values()
    assert first.id == second.id
    rows = cell_rows(first, 0, {"T1": 10.0}) + cell_rows(second, 0, {"T1": 20.0})
    table = build_table(frame(rows), plan, "main")
    assert [row.cells[0, "T1"].mean for row in table.methods] == [10, 20]


def test_equal_names_are_told_apart():
    plan = example_plan(["ICIS", "ICIS", "Chance"])
    displays = [row.display for row in build_table(example_metrics(plan), plan, "main").rows]
    assert displays == [
        "Chance", "ICIS (icis-hidden-8)", "ICIS (icis-hidden-9)", "Chance (icis-hidden-10)"
    ]  # fmt: skip


def test_contradictions_are_refused():
    plan = example_plan(["one"])
    metrics = example_metrics(plan)
    with pytest.raises(IcisError, match="of seed 0 twice for CUB/r101/linear-last/att/icis"):
        build_table(pl.concat([metrics, metrics.head(1)]), plan, "main")
    odd = (pl.col("metric") == "chance_T1") & (pl.col("seed") == 1)
    shifted = metrics.with_columns(value=pl.when(odd).then(3.0).otherwise("value"))
    with pytest.raises(IcisError, match=r"CUB: .*different chance levels .*2\.0, 3\.0"):
        build_table(shifted, plan, "main")


def test_notes_say_seeds_selection_splits_and_gaps():
    plan = example_plan(["one", {"method": "conse", "name": "ConSE"}], seeds=[4, 2])
    metrics = example_metrics(plan)
    cell = next(iter(plan.cells.values()))
    lost = (pl.col("cell") == cell.id) & (pl.col("seed") == 4)
    notes = build_table(metrics.filter(~lost), plan, "main").notes
    assert notes[:2] == (
        "2 seeds (2, 4): mean ± sample standard deviation over seeds.",
        "All columns: backbone r101, seen head linear-last, descriptor att.",
    )
    assert f"Selection, “one”: seen head: last; method: {cell.method.selection}." in notes
    assert "Selection, “ConSE”: seen head: last; method: no training." in notes
    assert "Split version: xlsa17-2.0 (CUB)." in notes
    assert notes[-1] == "Fewer than 2 seeds of this configuration: “one”."


def test_one_selection_is_told_once_whatever_is_missing():
    plan = example_plan(["one", "two"], datasets=["CUB", "SUN"], seeds=1)
    gone = list(plan.cells.values())[1].id
    table = build_table(example_metrics(plan).filter(pl.col("cell") != gone), plan, "main")
    assert [note for note in table.notes if note.startswith("Selection, all rows: ")]
    assert sum(note.startswith("Selection") for note in table.notes) == 1
    assert table.notes[0] == "1 seed (0), so no standard deviation."
    assert table.notes[-1] == "No result of this configuration: “two” on CUB."


def test_selection_on_test_images_is_called_that():
    plan = example_plan(["one", "two"], heads=["last", "leak"])
    table = build_table(example_metrics(plan), plan, "main")
    assert table.caution == (
        "Selected on test images, as in the paper: not comparable with honest selection. "
        "This concerns all rows on CUB / linear-test_seen."
    )
    assert table.notes[0] == table.caution

    honest = example_plan(["one", "two"])
    assert build_table(example_metrics(honest), honest, "main").caution is None


def test_headline_is_rounded_and_nested():
    plan = example_plan(["one"], datasets=["CUB", "SUN"], metrics=["T1", "H", "entropy"])
    metrics = example_metrics(plan)
    h = metrics.filter(dataset="SUN", metric="H")["value"].to_numpy()
    found = headline(metrics, plan)["main"]
    assert set(found) == {"CUB", "SUN"}
    (method,) = plan.experiment.methods  # by its key, which outlives a change of its settings
    assert set(found["SUN"]) == {method}
    assert set(found["SUN"][method]) == {"T1", "H"}
    assert found["SUN"][method]["H"] == round(float(h.mean()), 2)


def test_no_metrics_make_an_empty_table():
    plan = example_plan(["one"])
    table = build_table(frame([]), plan, "main")
    assert all(cell is None for row in table.rows for cell in row.cells.values())
    assert headline(frame([]), plan) == {"main": {"CUB": {"m0": {}}}}


def test_numbers_of_seen_classes_are_groups_and_rows_line_up():
    plan = example_plan(["one", "two"], n_seen=["all", 50], metrics=["T1"])
    table = build_table(example_metrics(plan), plan, "main")
    assert [group.label for group in table.groups] == ["CUB / all seen", "CUB / 50 seen"]
    assert [group.n_seen for group in table.groups] == ["all", "50"]
    assert [row.stem for row in table.methods] == ["icis-hidden-8", "icis-hidden-9"]
    assert [row.key for row in table.methods] == ["m0", "m1"]
    assert table.seen_counts == {0: 150, 1: 50}
    metrics = example_metrics(plan)
    for g, few in enumerate((None, 50)):
        for row in table.methods:
            cell = next(each for each in plan.cells.values()
                        if (each.n_seen, f"icis-{each.variant}") == (few, row.stem))  # fmt: skip
            wanted = metrics.filter(cell=cell.id, metric="T1").sort("seed")["value"].to_list()
            assert list(row.cells[g, "T1"].values) == wanted
            assert row.cells[g, "T1"].seeds == (0, 1, 2)


def test_one_number_of_seen_classes_is_told_in_a_note():
    plan = example_plan(["one"], n_seen=[50])
    table = build_table(example_metrics(plan), plan, "main")
    assert [group.label for group in table.groups] == ["CUB"]
    assert table.notes[1].endswith("descriptor att, learning from 50 seen classes.")
    assert build_table(frame([]), plan, "main").seen_counts == {}


def test_what_failed_says_why():
    plan = example_plan(["one", "two", "three"], datasets=["CUB", "SUN"])
    cells = list(plan.cells.values())
    metrics = fail(example_metrics(plan), cells[0], dict.fromkeys(range(3), "no end (log: a.log)"))
    metrics = fail(metrics, cells[4], {2: "later (log: c.log)", 1: "first (log: b.log)"})
    table = build_table(metrics, plan, "main")
    assert table.failures == {(0, 0): "no end (log: a.log)", (1, 1): "first (log: b.log)"}
    assert table.failed(0, table.methods[0])
    assert not table.failed(1, table.methods[0])
    assert not table.failed(1, table.methods[1])  # of one seed there are numbers
    assert table.methods[1].cells[1, "T1"].seeds == (0,)
    assert table.notes[-2:] == (
        "Failed, “one” on CUB: no end (log: a.log)",
        "Failed, “two” on SUN (2 of 3 seeds): first (log: b.log)",
    )
    assert not any(note.startswith(("No result", "Fewer")) for note in table.notes)


def test_failing_and_missing_seeds_are_told_apart():
    plan = example_plan(["one", "two"], seeds=4)
    first, second = plan.cells.values()
    metrics = fail(example_metrics(plan), first, {0: "why (log: a)"})
    metrics = metrics.filter(~((pl.col("cell") == first.id) & (pl.col("seed") == 1)))
    metrics = fail(metrics, second, {0: "why (log: a)"})
    notes = build_table(metrics, plan, "main").notes
    assert notes[-2:] == (
        "Failed, all rows (1 of 4 seeds): why (log: a)",
        "Fewer than 4 seeds of this configuration: “one”.",
    )


def test_what_was_left_out_names_the_option_and_no_path():
    plan = example_plan(["one", "two"], datasets=["CUB", "SUN"])
    for cell in plan.cells.values():
        if cell.dataset == "SUN":
            plan.left_out[cell.key] = "datasets.SUN.splits: /home/me/att_splits.mat does not exist"
    metrics = example_metrics(plan).filter(dataset="CUB")
    notes = build_table(metrics, plan, "main").notes
    assert notes[-1] == "Left out, all rows on SUN: the optional file of datasets.SUN.splits " + (
        "is not there."
    )
    assert not any(note.startswith(("No result", "Fewer")) for note in notes)


def test_identical_seeds_are_called_no_randomness():
    plan = example_plan(["one", "two"], metrics=["T1", "U"])
    one, two = plan.cells.values()
    rows = [row for seed in range(3) for row in (
        *cell_rows(one, seed, {"T1": 0.1, "U": 7.3}),
        *cell_rows(two, seed, {"T1": 0.1, "U": float(seed)}),
    )]  # fmt: skip
    table = build_table(frame(rows), plan, "main")
    assert table.methods[0].cells[0, "T1"] == Summary(0.1, 0.0, (0.1,) * 3, (0, 1, 2))
    assert "No randomness: “one”." in table.notes
    single = build_table(frame(rows).filter(pl.col("seed") == 0), plan, "main")
    assert not any("randomness" in note for note in single.notes)


def test_metrics_written_before_failures_were_recorded_are_read():
    plan = example_plan(["one"])
    metrics = example_metrics(plan)
    assert build_table(metrics.drop("problem"), plan, "main") == build_table(metrics, plan, "main")


def test_every_metric_has_a_meaning():
    assert set(get_args(Metric)) == set(MEANINGS)
