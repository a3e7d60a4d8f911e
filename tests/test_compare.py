"""Two versions of results: which cells belong together, paired differences, what changed."""

import io
import subprocess
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from scipy import stats
from typer.testing import CliRunner

from icis.artifacts import write_table
from icis.cli import app
from icis.errors import IcisError
from icis.stages import compare
from icis.versions.changes import setting_changes
from icis.versions.reading import load, read_version
from icis.versions.record import SCHEMA, record
from icis.versions.shown import to_csv, to_html, to_markdown, to_terminal
from icis.versions.versus import Version, versus
from tests.example_results import cell_rows, example_plan, frame

ICIS = {"method": "icis", "name": "ICIS", "hidden": 8}
MLP = {"method": "mlp", "name": "MLP", "hidden": 8}
CONSE = {"method": "conse", "name": "ConSE"}
SHA = {"a": "a" * 64, "b": "b" * 64}


def version(label, methods, values, *, sources=None, code=None, libraries=None, **table):
    """Return a version; ``values``: method key → seed → T1 (or None: the seed failed)."""
    plan = example_plan(methods, metrics=["T1"], **table)
    rows, cells = [], {}
    for cell in plan.cells.values():
        for seed, value in values.get(cell.method_key, {}).items():
            found = {"failed": 1.0} if value is None else {"T1": value, "epochs": 9.0}
            rows += cell_rows(cell, seed, found)
        cells[cell.id] = {
            "configuration": cell.identity, "sources": sources or {}, "device": "cpu",
            "git_commit": "c0ffee" * 6 + "abcd", "versions": libraries or {"torch": "2.9"},
        }  # fmt: skip
    about = record(plan) | {"sources": sources or {}, "cells": cells, "experiment": "example"}
    return Version(label, frame(rows), about | ({} if code is None else {"code": code}))


def by_name(found):
    return {row.display: row for row in found.rows}


def test_differences_by_hand_and_p_by_scipy():
    before = version("one", {"icis": ICIS}, {"icis": {0: 40.0, 1: 42.0, 2: 41.0, 7: 99.0}})
    after = version("two", {"icis": ICIS}, {"icis": {2: 44.0, 0: 41.0, 1: 44.0}})
    (row,) = versus(before, after).rows
    test = row.tests["T1"]
    assert (test.seeds, test.difference) == (3, pytest.approx(2.0))  # (1 + 2 + 3) / 3
    wanted = stats.ttest_rel([41, 44, 44], [40, 42, 41])
    assert test.p == pytest.approx(wanted.pvalue)
    assert (test.low, test.high) == pytest.approx(tuple(wanted.confidence_interval(0.95)))
    assert test.p == pytest.approx(0.0741799)  # t = 2 / (1 / √3) with 2 degrees of freedom
    # means and deviations are those of all seeds of a version
    assert row.old["T1"].mean == pytest.approx((40 + 42 + 41 + 99) / 4)
    assert row.old["T1"].std == pytest.approx(np.std([40, 42, 41, 99], ddof=1))
    assert (row.new["T1"].mean, row.new["T1"].n) == (pytest.approx(43.0), 3)
    assert row.status == "same"


@pytest.mark.parametrize(
    ("ours", "theirs", "seeds", "difference", "remark"),
    [
        ({0: 3.0}, {0: 1.0, 1: 2.0}, 1, 2.0, "1 seed, no interval"),
        ({2: 3.0, 3: 4.0}, {0: 1.0, 1: 2.0}, 0, None, "no common seed"),
        ({0: 3.0, 1: 3.0}, {0: 1.0, 1: 1.0}, 2, 2.0, "no randomness"),
    ],
)
def test_fewer_than_two_common_seeds_have_no_interval(ours, theirs, seeds, difference, remark):
    found = versus(
        version("one", {"m": ICIS}, {"m": theirs}), version("two", {"m": ICIS}, {"m": ours})
    )
    test = found.rows[0].tests["T1"]
    assert (test.seeds, test.difference, test.remark) == (seeds, difference, remark)
    assert (test.low, test.high, test.p) == (None, None, None)
    assert remark in to_markdown(found)


def test_a_changed_setting_an_added_and_a_removed_method():
    values = {key: {0: 1.0, 1: 2.0} for key in ("icis", "mlp", "conse")}
    before = version("one", {"icis": ICIS, "mlp": MLP}, values)
    after = version("two", {"conse": CONSE, "icis": {**ICIS, "hidden": 16}}, values)
    found = versus(before, after)
    rows = by_name(found)
    assert [row.display for row in found.rows] == ["ConSE", "ICIS", "MLP"]
    assert {name: row.status for name, row in rows.items()} == {
        "ConSE": "new", "ICIS": "changed", "MLP": "gone"
    }  # fmt: skip
    assert [each.text for each in rows["ICIS"].changes] == ["method.hidden: 8 → 16"]
    assert rows["ICIS"].tests["T1"].difference == 0
    assert not rows["ConSE"].tests
    assert not rows["ConSE"].old
    assert not rows["MLP"].new
    settings = dict(found.sections)["Settings"]
    assert "methods.icis.hidden: 8 → 16" in settings
    assert "methods.mlp: gone" in settings
    assert any(line.startswith("methods.conse: new, {") for line in settings)
    assert "3 cells: 1 changed, 1 new, 1 gone, 0 as they were." in to_markdown(found)


@pytest.mark.parametrize(
    "renamed",
    [
        {"other": ICIS},  # another key, the same name
        {"other": {**ICIS, "name": "Ours"}},  # another key and name, the same settings
        {"icis": {**ICIS, "name": "Ours"}},
    ],
)
def test_a_renamed_method_is_found_again(renamed):
    (key,) = renamed
    before = version("one", {"icis": ICIS}, {"icis": {0: 1.0, 1: 2.0}})
    after = version("two", renamed, {key: {0: 2.0, 1: 4.0}})
    (row,) = versus(before, after).rows
    assert (row.status, row.tests["T1"].difference) == ("same", 1.5)


def test_a_changed_seen_head_or_descriptor_stays_in_its_place():
    before = version("one", {"icis": ICIS}, {"icis": {0: 1.0}})
    after = version("two", {"icis": ICIS}, {"icis": {0: 2.0}})
    cell = next(iter(after.about["cells"].values()))
    cell["configuration"]["descriptor"][1]["normalize"] = "l2"
    cell["configuration"]["head"]["epochs"] = 7
    (row,) = versus(before, after).rows
    assert row.status == "changed"
    assert {each.text for each in row.changes} == {
        "descriptor.normalize: none → l2", "head.epochs: 100 → 7"
    }  # fmt: skip


def test_other_input_files_alone_are_a_change():
    files = [{"att.mat": SHA[k], "results/x.json": SHA[k]} for k in "ab"]
    before, after = (
        version(str(k), {"m": ICIS}, {"m": {0: 1.0}}, sources=each) for k, each in enumerate(files)
    )
    (row,) = versus(before, after).rows
    assert row.status == "changed"
    assert row.changes[0].name == "input files"
    data = dict(versus(before, after).sections)["Data (SHA-256)"]
    assert data == ("att.mat: aaaaaaaa → bbbbbbbb",)  # results differ wherever anything does


def test_data_code_and_libraries():
    one = {"sources": {"kept": SHA["a"], "gone": SHA["a"]}, "code": {"icis.x": "1", "icis.y": "1"}}
    two = {"sources": {"kept": SHA["a"], "more": SHA["b"]}, "code": {"icis.x": "2", "icis.z": "1"}}
    before = version("one", {"m": ICIS}, {"m": {0: 1.0}}, **one)
    after = version("two", {"m": ICIS}, {"m": {0: 1.0}}, **two, libraries={"torch": "3.0"})
    sections = dict(versus(before, after).sections)
    assert sections["Settings"] == ()
    assert sections["Data (SHA-256)"] == ("gone: gone", "more: new, bbbbbbbb")
    assert sections["Code"] == ("icis.x: changed", "icis.y: gone", "icis.z: new")
    assert sections["Libraries and device"] == ("torch: 2.9 → 3.0",)


def test_settings_are_compared_by_path():
    old = {"a": {"b": 1, "c": [1, 2]}, "gone": 3}
    new = {"a": {"b": 2, "c": [1, 2], "d": None}, "text": "x" * 99}
    told = [each.text for each in setting_changes(old, new)]
    assert told == ["a.b: 1 → 2", "a.d: new, null", f"text: new, {'x' * 59}…", "gone: gone"]


def test_nothing_in_common_is_said_with_the_next_step():
    before = version("one", {"icis": ICIS}, {"icis": {0: 1.0}}, datasets=["CUB"])
    after = version("two", {"mlp": MLP}, {"mlp": {0: 1.0}}, datasets=["SUN"])
    with pytest.raises(IcisError, match="no cell in common") as caught:
        versus(before, after)
    for part in ("one: dataset CUB", "two: dataset SUN", "two: method mlp", "use the same keys"):
        assert part in str(caught.value)


def test_a_failed_cell_says_so():
    before = version("one", {"m": ICIS}, {"m": {0: 1.0, 1: 2.0}})
    after = version("two", {"m": ICIS}, {"m": {0: None, 1: None}})
    found = versus(before, after)
    assert found.rows[0].failed == (False, True)
    assert "failed" in to_markdown(found)
    assert "failed" in to_html(found)


def two_versions():
    methods = {"icis": {**ICIS, "name": "<ICIS>"}, "mlp": MLP}
    rng = np.random.default_rng(0)
    values = {key: dict(enumerate(rng.normal(40, 2, 5))) for key in methods}
    better = {
        key: {s: v + rng.normal(3, 1) for s, v in each.items()} for key, each in values.items()
    }
    axes = {"datasets": ["CUB", "SUN"], "seeds": 5}
    return version("one", methods, values, **axes), version("<two>", methods, better, **axes)


def test_every_format_shows_the_same_numbers():
    found = versus(*two_versions())
    read = pl.read_csv(io.StringIO(to_csv(found)))
    assert len(read) == 2 * 2  # data sets, methods; T1 alone
    assert read["difference"].to_list() == [row.tests["T1"].difference for row in found.rows]
    console = Console(width=200, file=io.StringIO())
    console.print(to_terminal(found))
    printed, page, text = console.file.getvalue(), to_html(found), to_markdown(found)
    for row in found.rows:
        test = row.tests["T1"]
        for shown in (
            f"{row.old['T1'].mean:.1f} ± ",
            f"+{test.difference:.1f}",
            f"[+{test.low:.1f}",
        ):
            assert all(shown in each.replace("\\", "") for each in (printed, page, text))
    assert "<two>" not in page
    assert "&lt;two&gt;" in page
    assert not any(each in page for each in ("http:", "https:", " src=", "@import"))


def test_metrics_can_be_chosen():
    found = versus(*two_versions(), ["epochs"])
    assert found.metrics == ("epochs",)
    with pytest.raises(IcisError, match="--metrics T9: choose among T1"):
        versus(*two_versions(), ["T9"])


# reading


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a folder with the results of an experiment ``one``."""
    monkeypatch.chdir(tmp_path)
    store(two_versions()[0], Path("results/one/metrics.parquet"))
    return tmp_path


def store(found, path, **changes):
    metrics = changes.pop("metrics", found.metrics)
    write_table(path, metrics, {**found.about, **changes})


def test_folders_and_experiments_are_read(project):
    for name in ("one", "results/one", str(project / "results/one")):
        assert read_version(name).metrics.equals(two_versions()[0].metrics)
    assert read_version("one").about["schema"] == SCHEMA


def test_another_schema_is_refused(project):
    found = two_versions()[0]
    path = Path("results/old/metrics.parquet")
    store(found, path, schema=SCHEMA + 1)
    with pytest.raises(IcisError, match=f"its schema is {SCHEMA + 1}, this icis reads {SCHEMA}"):
        read_version("old")
    store(found, path, metrics=found.metrics.drop("selection", "head"))
    with pytest.raises(IcisError, match="lacks the columns head, selection.*snakemake"):
        read_version("old")
    write_table(path, found.metrics, {"artifact": "metrics"})
    with pytest.raises(IcisError, match="schema is not recorded.*lack schema, settings, places"):
        read_version("old")


def test_an_unknown_name_says_what_there_is(project):
    with pytest.raises(IcisError, match="'two' is no folder.*there are: one.*no git revision"):
        read_version("two")
    Path("results/empty").mkdir()
    with pytest.raises(IcisError, match="compute it with snakemake, or .*icis pull"):
        read_version("empty")


def test_names_of_git(project):
    def git(*arguments):
        who = ["-c", "user.name=n", "-c", "user.email=n@n"]
        subprocess.run(["git", *who, *arguments], check=True, capture_output=True)

    git("init")
    git("commit", "--allow-empty", "-m", "nothing")
    with pytest.raises(IcisError, match="HEAD: DVC recorded no results at this revision"):
        read_version("HEAD")
    git("tag", "one")
    with pytest.raises(IcisError, match="an experiment and a git revision: write results/one"):
        read_version("one")
    Path("dvc.lock").write_text(
        "stages: {report: {outs: [{path: results/a/metrics.parquet}, "
        "{path: results/b/metrics.parquet}]}}"
    )
    git("add", "dvc.lock")
    git("commit", "-m", "two experiments")
    with pytest.raises(IcisError, match="choose: HEAD:a, HEAD:b"):
        read_version("HEAD")
    with pytest.raises(IcisError, match="no results of 'c' at this revision, only of: a, b"):
        read_version("HEAD:c")


def test_the_verb_writes_a_file_by_its_suffix(project):
    store(two_versions()[1], Path("results/two/metrics.parquet"))
    for suffix, start in (("md", "## one"), ("html", "<!DOCTYPE html>"), ("csv", "group,")):
        done = CliRunner().invoke(app, ["compare", "one", "two", "--output", f"c.{suffix}"])
        assert done.exit_code == 0, done.output
        assert Path(f"c.{suffix}").read_text().startswith(start)
    printed = CliRunner().invoke(app, ["compare", "one", "two"], env={"COLUMNS": "40"}).output
    assert "Difference" in printed
    (p, *_) = [f"{row.tests['T1'].p:.3f}" for row in versus(*two_versions()).rows]
    assert f"] {p}" in " ".join(printed.split())  # a narrow terminal cuts no number off
    with pytest.raises(IcisError, match=r"c.tex: name a file ending in .md, .html, .csv"):
        compare.run("one", "two", metrics=[], output=Path("c.tex"))


def test_a_damaged_file_is_named(project):
    path = Path("results/one/metrics.parquet")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(IcisError, match="not readable Parquet"):
        load(path, "one")
