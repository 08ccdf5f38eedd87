"""Chunk files mapped side by side: the same values as through Zarr, in any order."""

import numpy as np
import pytest

from clare_cache.errors import StoreError
from clare_cache.store import StoreWriter, open_store
from clare_cache.store.mapped import MappedRows
from clare_cache.types import ArraySpec
from tests.small_store import VECTOR, block, image_ids, make_store, values_of, write_all

PAGES = ArraySpec("pages", (2, 512), ("half", "number"), "float16", "two halves of a page")
"""Two rows are one page of 4096 bytes, a block of four rows is one chunk of two pages."""


@pytest.fixture
def handle(tmp_path):
    write_all(make_store(tmp_path, specs=[PAGES, VECTOR]), PAGES)
    return open_store(tmp_path)["clean/pages"]


def test_whole_pages_are_mapped_and_others_are_not(handle, tmp_path):
    assert handle.is_mapped
    assert not open_store(tmp_path)["clean/vector"].is_mapped


def test_a_bucket_is_never_mapped(bucket):
    write_all(make_store(bucket, specs=[PAGES]), PAGES)
    handle = open_store(bucket)["clean/pages"]
    assert not handle.is_mapped
    assert np.array_equal(handle.read_rows(np.array([5, 1])), values_of(PAGES, [5, 1]))


@pytest.mark.parametrize("rows", [[9, 0, 4, 4, 3], [2, 3, 4, 5, 6], [7], [], list(range(10))])
def test_rows_in_any_order(handle, rows):
    rows = np.array(rows, np.int64)
    handle.prepare(rows)
    expected = handle.array[:][rows]
    assert np.array_equal(handle.read_rows(rows), expected)
    out = np.empty((len(rows), 2, 512), "float16")
    assert handle.read_stored(rows, out) is out
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("row", [-1, 10, 12])
def test_rows_beyond_the_array_are_an_error(handle, row):
    with pytest.raises(IndexError, match=f"clean/pages: row {row} of 10"):
        handle.read_rows(np.array([1, row]))


def test_what_is_read_is_a_copy(handle):
    handle.read_rows(np.array([1]))[:] = 7
    assert np.array_equal(handle.read_rows(np.array([1])), values_of(PAGES, [1]))


def test_a_lost_file_reads_as_nan_until_it_is_back(handle, tmp_path):
    path = tmp_path / "features.zarr/clean/pages/c/1/0/0"
    data = path.read_bytes()
    path.unlink()
    found = handle.read_rows(np.array([3, 4, 8]))
    assert np.isnan(found[1]).all()
    assert np.array_equal(found[[0, 2]], values_of(PAGES, [3, 8]))
    path.write_bytes(data)
    assert np.array_equal(handle.read_rows(np.array([4])), values_of(PAGES, [4]))


def test_a_truncated_file_is_named_as_zarr_names_it(handle, tmp_path):
    path = tmp_path / "features.zarr/clean/pages/c/1/0/0"
    path.write_bytes(path.read_bytes()[:-1])
    assert np.array_equal(handle.read_rows(np.array([0])), values_of(PAGES, [0]))
    with pytest.raises(StoreError, match=r"clean/pages cannot be read, ValueError.*store repair"):
        handle.read_rows(np.array([0, 4]))


def test_blocks_committed_later_are_seen(tmp_path):
    store = make_store(tmp_path, specs=[PAGES])
    handle = open_store(tmp_path)["clean/pages"]
    assert np.isnan(handle.read_rows(np.array([0, 5]))).all()
    StoreWriter(tmp_path).write_block(block(PAGES, [4, 5]), versions={})
    assert np.array_equal(handle.read_rows(np.array([5])), values_of(PAGES, [5]))
    store.add_images(image_ids(70))
    assert open_store(tmp_path)["clean/pages"].read_rows(np.array([4])).shape == (1, 2, 512)


def test_where_mappings_run_out_zarr_reads(handle, monkeypatch):
    def refuse(self, chunk):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(MappedRows, "_map_file", refuse)
    assert np.array_equal(handle.read_rows(np.array([9, 2])), values_of(PAGES, [9, 2]))
    assert not handle.is_mapped


def test_too_many_or_odd_chunks_are_not_mapped():
    assert MappedRows.can_map(8192, 10)
    assert not MappedRows.can_map(8192, 100_000)
    assert not MappedRows.can_map(8190, 10)
    assert not MappedRows.can_map(0, 10)
