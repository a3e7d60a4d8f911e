"""Artifacts: what is written is what is read, damage is named, nothing is left half-written."""

import json
import os

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from icis import artifacts
from icis.artifacts import (
    CHECKSUMS_KEY,
    atomic_path,
    column_vectors,
    file_sha256,
    library_versions,
    provenance,
    read_frame,
    read_metadata,
    read_table,
    read_vectors,
    require_finite,
    vector_column,
    write_json,
    write_table,
    write_text,
)
from icis.errors import IcisError

singles = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.floats(width=32, allow_nan=True, allow_infinity=True),
)


# vectors


@settings(deadline=None)
@given(vectors=singles, data=st.data())
def test_vectors_survive_slices_and_chunks(vectors, data):
    column = vector_column(vectors)
    np.testing.assert_array_equal(column_vectors(column), vectors)
    start = data.draw(st.integers(0, len(vectors) - 1))
    stop = data.draw(st.integers(start + 1, len(vectors)))
    np.testing.assert_array_equal(column_vectors(column[start:stop]), vectors[start:stop])
    chunked = pa.chunked_array([column[:start], column[start:stop], column[stop:]])
    np.testing.assert_array_equal(column_vectors(chunked), vectors)
    np.testing.assert_array_equal(
        column_vectors(pa.table({"v": chunked})["v"].slice(start)), vectors[start:]
    )


@settings(deadline=None)
@given(vectors=singles, rows=st.integers(1, 4))
def test_vectors_survive_parquet(vectors, rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("vectors") / "v.parquet"
    pq.write_table(pa.table({"v": vector_column(vectors)}), path, row_group_size=rows)
    np.testing.assert_array_equal(column_vectors(read_table(path)["v"]), vectors)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, ">f4"])
def test_vectors_of_any_layout(order, dtype):
    vectors = np.arange(12).reshape(4, 3).astype(dtype, order=order)
    found = column_vectors(vector_column(vectors))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, vectors)
    np.testing.assert_array_equal(column_vectors(vector_column(vectors[::2])), vectors[::2])


def test_no_vectors_at_all():
    none = np.zeros((0, 3), np.float32)
    assert column_vectors(vector_column(none)).shape == (0, 3)
    empty = pa.chunked_array([], pa.binary(12))
    assert column_vectors(empty).shape == (0, 3)


def test_vectors_are_little_endian_floats():
    (value,) = vector_column(np.array([[1.0, -2.0]])).to_pylist()
    assert value == np.array([1, -2], "<f4").tobytes()


# metadata

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(metadata=st.dictionaries(st.text(), plain, max_size=5))
def test_metadata_survives(metadata, tmp_path_factory):
    path = tmp_path_factory.mktemp("metadata") / "t.parquet"
    write_table(path, pl.DataFrame({"a": [1, 2]}), metadata)
    assert read_metadata(path) == metadata
    assert read_frame(path).equals(pl.DataFrame({"a": [1, 2]}))


def test_columns_can_be_chosen(tmp_path):
    write_table(tmp_path / "t.parquet", pa.table({"a": [1], "b": ["x"]}), {})
    assert read_table(tmp_path / "t.parquet", ["b"]).column_names == ["b"]


def test_a_folder_on_the_way_is_no_column(tmp_path):
    path = tmp_path / "lr=1" / "t.parquet"
    write_table(path, pa.table({"a": [1]}), {})
    assert read_table(path).column_names == ["a"]


def test_a_file_of_another_program(tmp_path):
    path = tmp_path / "other.parquet"
    pl.DataFrame({"a": [1]}).write_parquet(path)
    with pytest.raises(IcisError, match=r"other\.parquet was not written by icis"):
        read_metadata(path)


def test_metadata_that_is_no_json(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({"icis": '{"a": '}), path)
    with pytest.raises(IcisError, match=r"t\.parquet is damaged: its metadata is no JSON"):
        read_metadata(path)


def test_provenance_hashes_its_inputs(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"1")
    second.write_bytes(b"2")
    about = provenance(
        "features", fingerprint="f", inputs={"index": first, "weights": second},
        sources={"older": "hash"}, device="cpu",
    )  # fmt: skip
    assert about["inputs"]["index"] == {"path": str(first), "sha256": file_sha256(first)}
    assert about["sources"] == {
        "older": "hash",
        str(first): file_sha256(first),
        str(second): file_sha256(second),
    }
    assert about["versions"] == library_versions()
    assert about["device"] == "cpu"
    assert about["fingerprint"] == "f"
    json.dumps(about)


def test_an_absent_input_is_named(tmp_path):
    with pytest.raises(IcisError, match=r"absent cannot be read: No such file"):
        provenance("features", fingerprint="f", inputs={"index": tmp_path / "absent"})


# damage


def parquet(path, rows=400):
    vectors = np.random.default_rng(0).standard_normal((rows, 8)).astype(np.float32)
    write_table(path, pa.table({"v": vector_column(vectors)}), {"about": "random vectors"})
    return vectors


def test_a_flipped_byte_in_a_data_page_is_found(tmp_path):
    path = tmp_path / "t.parquet"
    vectors = parquet(path)
    whole = path.read_bytes()
    column = pq.read_metadata(path).row_group(0).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    size = column.total_compressed_size
    # a page begins with a small header; most of the rest is data
    for position in np.linspace(start + 100, start + 0.9 * size, 40).astype(int):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(IcisError, match=r"t\.parquet is not readable Parquet: "):
            read_table(path)
    damaged = bytearray(whole)
    damaged[column.data_page_offset + 1] ^= 0x10  # the page's kind: the reader skips the page
    path.write_bytes(damaged)
    with pytest.raises(IcisError, match=r"t\.parquet is damaged: 0 of its 400 rows"):
        read_table(path)
    path.write_bytes(whole)
    np.testing.assert_array_equal(column_vectors(read_table(path)["v"]), vectors)


def test_vectors_have_checksums_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(artifacts, "ROW_GROUP", 150)
    path = tmp_path / "t.parquet"
    vectors = parquet(path)
    told = json.loads(pq.read_metadata(path).metadata[CHECKSUMS_KEY])
    parts = vectors[:150], vectors[150:300], vectors[300:]
    assert told == {"v": [xxhash.xxh3_128(part.tobytes()).hexdigest() for part in parts]}
    np.testing.assert_array_equal(read_vectors(path, "v"), vectors)


@pytest.mark.parametrize("checksums", [True, False])
def test_a_flipped_bit_of_a_vector_is_found(tmp_path, checksums):
    """With the checksums of vectors, and in a file that has those of its pages only."""
    path = tmp_path / "t.parquet"
    vectors = parquet(path)
    if not checksums:
        storage = {"compression": "none", "use_dictionary": False, "write_page_checksum": True}
        pq.write_table(pa.table({"v": vector_column(vectors)}), path, **storage)
    whole = path.read_bytes()
    assert (CHECKSUMS_KEY in whole) == checksums
    np.testing.assert_array_equal(read_vectors(path, "v"), vectors)
    start = whole.index(vectors.tobytes()[:64])
    for position in np.linspace(start, start + vectors.nbytes - 1, 20).astype(int):
        damaged = bytearray(whole)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(IcisError, match=r"t\.parquet is not readable Parquet: "):
            read_vectors(path, "v")


@pytest.mark.parametrize("part", [0, 1, 7, 100, 0.5, 0.99])
def test_a_cut_file_is_found(tmp_path, part):
    path = tmp_path / "t.parquet"
    parquet(path)
    whole = path.read_bytes()
    length = part if isinstance(part, int) else int(part * len(whole))
    path.write_bytes(whole[:length])
    for read in (read_table, read_frame, read_metadata):
        with pytest.raises(IcisError, match=r"t\.parquet is not readable Parquet: "):
            read(path)


def test_an_absent_file_is_named(tmp_path):
    for read in (read_table, read_frame, read_metadata):
        with pytest.raises(IcisError, match=r"absent\.parquet does not exist: the stage"):
            read(tmp_path / "absent.parquet")


def test_a_damaged_footer_never_ends_in_another_error(tmp_path):
    path = tmp_path / "t.parquet"
    parquet(path, rows=5)
    whole = path.read_bytes()
    for position in range(len(whole) - 400, len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x81
        path.write_bytes(damaged)
        for read in (read_metadata, read_table):
            try:
                read(path)
            except IcisError as error:
                assert "t.parquet" in str(error)


def test_rows_that_are_not_finite_are_named():
    vectors = np.ones((4, 2))
    require_finite(vectors, "f.mat: features", list("abcd"))
    vectors[2, 1], vectors[3, 0] = np.inf, np.nan
    with pytest.raises(IcisError) as caught:
        require_finite(vectors, "f.mat: features", list("abcd"))
    assert str(caught.value) == (
        "f.mat: features: 2 of 4 rows hold NaN or infinity, the first is row 3 (c)"
    )


# writing


def test_a_block_that_fails_leaves_nothing(tmp_path):
    path = tmp_path / "new" / "file.txt"
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(path.parent.iterdir()) == []


def test_a_block_that_fails_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["file.txt"]


def test_a_block_that_ends_well_replaces_the_file(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent  # so that the rename stays on one file system
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [each.name for each in tmp_path.iterdir()] == ["file.txt"]


def test_two_processes_have_two_temporary_names(tmp_path, monkeypatch):
    with atomic_path(tmp_path / "f") as mine:
        mine.write_text("mine")
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with atomic_path(tmp_path / "f") as other:
            other.write_text("other")
            assert mine != other
        assert (tmp_path / "f").read_text() == "other"
    assert (tmp_path / "f").read_text() == "mine"


def test_a_table_that_cannot_be_written_leaves_nothing(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(path, pa.table({"a": [1]}), {})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_table(path, pa.table({"a": [2]}), {"not JSON": object()})
    union = pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])])
    with pytest.raises(pa.ArrowException):
        write_table(path, pa.table({"a": union}), {})
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["t.parquet"]


def test_json_is_sorted_and_the_same_every_time(tmp_path):
    write_json(tmp_path / "a.json", {"b": 1, "a": [2]})
    write_json(tmp_path / "b.json", {"a": [2], "b": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_a_table_is_the_same_bytes_every_time(tmp_path):
    for name in ("a", "b"):
        parquet(tmp_path / name)
    assert file_sha256(tmp_path / "a") == file_sha256(tmp_path / "b")
