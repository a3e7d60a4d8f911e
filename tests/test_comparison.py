"""Paired differences against scipy's paired t test, and what cannot be compared."""

import io

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from icis.comparison import (
    compare,
    comparison_csv,
    comparison_markdown,
    comparison_terminal,
    comparison_text,
)
from icis.errors import IcisError
from icis.results import build_table
from icis.tables import to_html
from tests.example_results import cell_rows, example_metrics, example_plan, fail, frame


def of(values, *, seeds=5, **table):
    """Return a table of T1 of methods by seed."""
    plan = example_plan(list(values), seeds=seeds, metrics=["T1"], **table)
    rows = [
        row
        for cell, by_seed in zip(plan.cells.values(), values.values(), strict=True)
        for seed, value in by_seed.items()
        for row in cell_rows(cell, seed, {"T1": value})
    ]
    return build_table(frame(rows), plan, "main")


scores = st.lists(st.floats(0, 100).map(lambda x: round(x, 3)), min_size=5, max_size=5)


@given(scores, scores)
@settings(max_examples=60, deadline=None)
def test_intervals_and_p_are_scipys(ours, theirs):
    (found,) = compare(of({"one": dict(enumerate(ours)), "two": dict(enumerate(theirs))}))
    assert (found.method, found.reference, found.seeds) == ("one", "two", 5)
    assert found.difference == pytest.approx(np.mean(ours) - np.mean(theirs), abs=1e-9)
    differences = np.subtract(ours, theirs)
    if np.ptp(differences) <= 1e-9:
        assert found.p is None
        assert found.remark.startswith("no randomness")
        return
    wanted = stats.ttest_rel(ours, theirs)
    low, high = wanted.confidence_interval(0.95)
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-6, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)
    assert found.remark == ""


def test_seeds_are_paired_whatever_their_order():
    left, right = {4: 1.0, 0: 5.0, 2: 9.0}, {2: 8.0, 0: 3.0, 3: 50.0}
    (found,) = compare(of({"one": left, "two": right}))
    assert (found.seeds, found.difference) == (2, 1.5)
    wanted = stats.ttest_rel([5, 9], [3, 8])
    assert found.p == pytest.approx(wanted.pvalue)


@pytest.mark.parametrize(
    ("ours", "theirs", "seeds", "difference", "remark"),
    [
        ([3, 3, 3], [1, 1, 1], 3, 2, "no randomness"),
        ([3, 4, 5], [1, 2, 3], 3, 2, "no randomness in the difference"),
        ([3], [1], 1, 2, "1 seed, no interval"),
        ([], [1, 2], 0, None, "no result"),
    ],
)
def test_what_has_no_interval_says_why(ours, theirs, seeds, difference, remark):
    values = {"one": dict(enumerate(map(float, ours))), "two": dict(enumerate(map(float, theirs)))}
    table = of(values)
    (found,) = compare(table)
    assert (found.seeds, found.difference, found.remark) == (seeds, difference, remark)
    assert (found.low, found.high, found.p) == (None, None, None)
    assert remark in comparison_markdown(table)


def test_no_common_seed():
    (found,) = compare(of({"one": {0: 1.0, 1: 2.0}, "two": {2: 1.0, 3: 2.0}}))
    assert (found.seeds, found.difference, found.remark) == (0, None, "no common seed")


def test_one_constant_method_still_has_an_interval():
    (found,) = compare(of({"one": {0: 1.0, 1: 1.0}, "two": {0: 2.0, 1: 4.0}}))
    assert found.low < found.difference == -2 < found.high


def test_the_reference_is_the_last_unless_another_is_named():
    values = {"a": {0: 1.0, 1: 2.0}, "b": {0: 3.0, 1: 3.5}, "c": {0: 7.0, 1: 9.0}}
    assert [(x.method, x.reference) for x in compare(of(values))] == [("a", "c"), ("b", "c")]
    found = compare(of(values, reference="m1"))
    assert [(x.method, x.reference, x.difference) for x in found] == [
        ("a", "b", -1.75), ("c", "b", 4.75)
    ]  # fmt: skip
    with pytest.raises(IcisError, match="tables.main.reference: there is no .*'m9'"):
        of(values, reference="m9")


def table_of(names, *, failing=(), **table):
    plan = example_plan(names, **{"datasets": ["CUB", "SUN"], "seeds": 5} | table)
    metrics = example_metrics(plan)
    for position in failing:
        cell = list(plan.cells.values())[position]
        metrics = fail(metrics, cell, dict.fromkeys(range(5), "it broke (log: x.log)"))
    return build_table(metrics, plan, "main")


def test_csv_holds_every_comparison():
    table = table_of(["one", "two", "three"], metrics=["T1", "entropy", "H"], failing=[1])
    read = pl.read_csv(io.StringIO(comparison_csv(table)))
    assert len(read) == 2 * 2 * 2  # groups, methods, metrics
    assert read["metric"].unique(maintain_order=True).to_list() == ["T1", "H"]
    found = compare(table)
    for column in ("group", "method", "reference", "seeds", "difference", "low", "high", "p"):
        assert read[column].to_list() == [getattr(each, column) for each in found]
    failed = read.filter(group="CUB", method="two")
    assert failed["remark"].to_list() == ["failed"] * 2
    assert failed["difference"].null_count() == 2


def test_every_format_shows_the_same_texts():
    table = table_of(["one", "two", "<three>"])
    text = comparison_text(table)
    assert text.title == "Differences from “<three>”, paired by seed"
    assert text.heads == ["Group", "Method", "Seeds", "T1", "U", "S", "H"]
    assert [row[:3] for row in text.rows] == [
        ["CUB", "one", "5"], ["CUB", "two", "5"], ["SUN", "one", "5"], ["SUN", "two", "5"]
    ]  # fmt: skip
    console = Console(width=200, file=io.StringIO())
    console.print(comparison_terminal(table))
    printed, page = console.file.getvalue(), to_html(table)
    for row in text.rows:
        for cell in row[3:]:
            for part in cell.split(", p"):
                assert part in printed
                assert part.replace("<", "&lt;") in page
    assert "rank test" in page
    assert "<three>" not in page
    assert comparison_markdown(table).count("\n| ") == 5


def test_one_method_alone_has_nothing_to_compare():
    table = table_of(["one"])
    assert compare(table) == []
    assert comparison_terminal(table) is None
    assert "nothing to compare" in comparison_markdown(table)
    assert "Differences from" not in to_html(table)
    assert comparison_csv(table).count("\n") == 1


def test_other_metrics_are_not_compared():
    assert compare(table_of(["one", "two"], metrics=["entropy", "epochs"])) == []


def test_a_reference_without_results_is_named():
    found = compare(table_of(["one", "two"], datasets=["CUB"], metrics=["T1"], failing=[1]))
    assert [each.remark for each in found] == ["two: failed"]
    found = compare(table_of(["one", "two"], datasets=["CUB"], metrics=["T1"], failing=[0, 1]))
    assert [each.remark for each in found] == ["failed; two: failed"]
