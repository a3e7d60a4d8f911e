"""Batches of cells: how they are cut, and that a cell is the same in any of them."""

import json

import pytest
from polars.testing import assert_frame_equal

from icis import layout
from icis.artifacts import read_frame
from icis.batches import Batches, damage, suitable_size
from icis.config import parse_experiment
from icis.errors import IcisError
from icis.plan import Plan
from icis.seen_heads import load_seen_head
from icis.shelf import Shelf
from icis.stages import batch, evaluate, inject
from tests.pipeline import changed, times, tiny
from tests.test_stages import plan as with_inputs

plan = with_inputs  # the fixture: artifacts made by hand
CELLS_OF = "results/tiny/cells/drawn/small/linear-last_epochs-5/att"
SHORT = {"hidden": 16, "max_epochs": 5}
METHODS = {
    "conse": {"method": "conse"},
    "costa": {"method": "costa"},
    "wavg": {"method": "wavg"},
    "smo": {"method": "smo"},
    "subreg": {"method": "subreg", **SHORT},
    "wdae": {"method": "wdae", "max_epochs": 2, "neighbours": 3, "mlp": SHORT},
    "mlp": {"method": "mlp", **SHORT},
    "icis": {"method": "icis", **SHORT},
}


def changed_plan(methods, **tables):
    experiment = tiny()
    experiment["methods"] = methods
    main = experiment["tables"]["main"] | {"methods": list(methods)}
    experiment["tables"] = {name: main | change for name, change in tables.items()}
    return Plan(parse_experiment(experiment, source="here"))


def contents(cells):
    return {
        (cell.stem, path.name): path.read_bytes()
        for cell in cells
        for path in layout.cell("tiny", *cell.key).glob("*.safetensors")
    }


def frames(cells):
    return {cell.stem: read_frame(layout.cell_metrics("tiny", *cell.key)) for cell in cells}


@pytest.mark.parametrize("size", [1, 8])
def test_a_cell_is_the_same_alone_and_in_a_batch(plan, size):
    made = changed_plan(METHODS, main={"metrics": ["T1", "H_cal"]})
    cells = list(made.cells.values())
    for cell in cells:
        inject.run(made, cell, device="cpu")
        evaluate.run(made, cell, device="cpu")
    heads, alone = contents(cells), frames(cells)
    assert len(heads) >= 3 * len(METHODS) - 1
    for path in layout.cell("tiny", *cells[0].key).parent.rglob("*"):
        if path.is_file():
            path.unlink()
    batches = Batches(made, size)
    assert len(batches.all) == len(METHODS) // size
    for each in batches.all.values():
        batch.run(made, each, device="cpu")
        assert damage(batches.record(each)) == []
    assert contents(cells) == heads
    for stem, frame in frames(cells).items():
        assert_frame_equal(frame, alone[stem])


def test_batches_hold_every_cell_once_and_keep_tables_apart(plan):
    methods = {f"w{n}": {"method": "wavg", "eta": float(n)} for n in range(1, 11)}
    other = {"methods": ["w1", "w9"], "n_seen": ["all", 4]}
    made = changed_plan(methods, main={}, other=other)
    batches = Batches(made, 3)
    found = [cell.key for each in batches.all.values() for cell in each.cells]
    assert sorted(found) == sorted(made.cells)
    assert max(len(each.cells) for each in batches.all.values()) == 3
    assert [each.number for each in batches.all.values()] == list(range(len(batches.all)))
    of_other = {cell.key for each in batches.of(made.table_cells["other"]) for cell in each.cells}
    assert of_other == {cell.key for cell in made.table_cells["other"]}
    with pytest.raises(IcisError, match="there is no batch of 3 cells 'a/b/c/d/0'"):
        batches.batch("a", "b", "c", "d", "0")


def test_few_cells_are_spread_over_jobs_and_many_share_them():
    sizes = {cells: suitable_size(cells) for cells in (0, 1, 16, 17, 100, 113, 10_000)}
    assert sizes == {0: 1, 1: 1, 16: 1, 17: 2, 100: 7, 113: 8, 10_000: 8}


def test_cells_at_the_end_change_no_other_batch(plan):
    methods = {f"w{n}": {"method": "wavg", "eta": float(n)} for n in range(1, 11)}
    more = methods | {"w11": {"method": "wavg", "eta": 11.0}}
    before, after = (Batches(changed_plan(each, main={}), 3) for each in (methods, more))
    stems = [[[c.stem for c in b.cells] for b in each.all.values()] for each in (before, after)]
    assert stems[0][:3] == stems[1][:3]
    assert Batches(changed_plan(methods, main={})).size == 1


def test_a_second_run_of_a_batch_computes_nothing_and_mends_what_is_gone(plan):
    batches = Batches(plan, 8)
    [only] = batches.all.values()
    batch.run(plan, only, device="cpu")
    here = layout.results("tiny").absolute().parent.parent
    everything = f"{CELLS_OF}/**/*.parquet"
    before = times(here, everything)
    batch.run(plan, only, device="cpu")
    assert changed(before, here, everything) == {  # the one whose method fails is tried again
        f"conse-top-99{name}.parquet" for name in ("", "/curves", "/classes")
    }
    costa = next(cell for cell in only.cells if cell.method.method == "costa")
    head = layout.cell("tiny", *costa.key) / "seed-0.safetensors"
    data = head.read_bytes()
    head.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    before = times(here, everything)
    batch.run(plan, only, device="cpu")
    assert head.read_bytes() == data
    assert f"{costa.stem}.parquet" not in changed(before, here, everything)


def test_a_cell_that_cannot_be_computed_takes_no_other_along(plan, monkeypatch):
    [only] = Batches(plan, 8).all.values()
    whole = evaluate.run

    def broken(plan, cell, **settings):
        if cell.method.method == "conse":
            raise OSError("the disk is full")
        whole(plan, cell, **settings)

    monkeypatch.setattr(evaluate, "run", broken)
    with pytest.raises(IcisError, match="(?s)1 of 2 cells .*conse-top-99: .*the disk is full"):
        batch.run(plan, only, device="cpu")
    assert not layout.batch("tiny", *only.names).exists()
    costa = next(cell for cell in only.cells if cell.method.method == "costa")
    assert layout.cell_metrics("tiny", *costa.key).exists()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": []}', '{"heads": {}}'])
def test_a_record_that_cannot_be_read_is_damaged(tmp_path, text):
    record = tmp_path / "0.json"
    assert damage(record) is None
    record.write_text(text)
    assert damage(record) == [record]


def test_a_record_names_what_is_missing_or_differs(tmp_path):
    record, file, head = tmp_path / "0.json", tmp_path / "file", tmp_path / "head"
    file.write_text("x")
    record.write_text(json.dumps({"files": {str(file): "0" * 64, str(head): "0" * 64}}))
    assert damage(record) == [file, head]


def test_a_shelf_reads_once_until_the_file_changes(tmp_path):
    file, read = tmp_path / "file", []

    def reader(path):
        read.append(path)
        return path.read_text()

    shelf = Shelf()
    file.write_text("one")
    assert shelf.get(reader, file) == shelf.get(reader, file) == "one"
    assert len(read) == 1
    file.write_text("three")
    assert shelf.get(reader, file) == "three"
    file.unlink()
    with pytest.raises(FileNotFoundError):
        shelf.get(reader, file)


def test_heads_from_a_shelf_are_each_ones_own(plan):
    path, shelf = layout.seen_heads("drawn", "small", "linear-last_epochs-5"), Shelf()
    first = load_seen_head(path, 0, shelf=shelf)
    first.weight.zero_()
    assert load_seen_head(path, 0, shelf=shelf).weight.abs().sum() > 0
