"""The store: what is written comes back, and only what was committed is there."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr

from clare_cache.errors import StoreError, StoreMismatch
from clare_cache.store import (
    CommitRecord,
    LedgerLine,
    StoreWriter,
    create_store,
    features_of,
    open_store,
)
from clare_cache.store.codecs import codec_of
from clare_cache.store.place import LocalPlace
from clare_cache.store.schema import BLOCK_ROWS as BLOCK_ROWS_OF_NEW_STORES
from clare_cache.store.schema import CHUNK_NBYTES, chunk_rows_for, from_ranges, to_ranges
from clare_cache.store.seal import sealed, unseal
from clare_cache.types import ArraySpec
from tests.fake_backbone import bytes_below
from tests.small_store import (
    BLOCK_ROWS,
    GRID,
    VECTOR,
    block,
    entry,
    failure,
    image_ids,
    make_store,
    values_of,
    write_all,
)

# Reading what was written


@pytest.mark.parametrize("spec", [VECTOR, GRID])
def test_what_is_written_comes_back_in_any_order(tmp_path, spec):
    write_all(make_store(tmp_path), spec)
    handle = open_store(tmp_path)[f"clean/{spec.name}"]
    rows = [9, 0, 4, 4, 3, 8]
    found = handle.by_image_id(image_ids(*rows))
    assert found.dtype == np.dtype(spec.dtype)
    assert np.array_equal(found, values_of(spec, rows))
    assert np.array_equal(handle.read_rows(np.array(rows)), values_of(spec, rows))
    assert np.array_equal(handle[2:7], values_of(spec, range(2, 7)))
    assert np.array_equal(handle[:], values_of(spec, range(10)))
    assert handle.read_rows(np.empty(0, np.int64)).shape == (0, *spec.shape)
    assert (handle.shape, handle.dtype) == ((10, *spec.shape), np.dtype(spec.dtype))
    assert handle.present.all()


def test_rows_without_a_commit_are_nan_and_not_present(tmp_path):
    make_store(tmp_path).write_block(block(VECTOR, [4, 6], failed=[5]), versions={})
    handle = open_store(tmp_path)["clean/vector"]
    assert np.flatnonzero(handle.present).tolist() == [4, 6]
    assert np.isfinite(handle[:]).all(axis=1).tolist() == handle.present.tolist()
    assert np.isnan(handle[:][~handle.present]).all()


def test_a_new_store_is_empty_and_opens(tmp_path):
    assert create_store(tmp_path / "a" / "b").place.root == tmp_path / "a" / "b"
    store = open_store(tmp_path / "a" / "b")
    assert (store.n_rows, list(store), store.views, store.ledger()) == (0, [], [], [])
    assert store.rows_of(image_ids(1)).tolist() == [-1]


def test_opening_creates_and_changes_nothing(tmp_path):
    write_all(make_store(tmp_path / "s"))
    before = bytes_below(tmp_path)
    store = open_store(tmp_path / "s")
    store["clean/vector"].by_image_id(image_ids(1))
    assert bytes_below(tmp_path) == before
    with pytest.raises(StoreError, match="found none"):
        open_store(tmp_path / "absent")
    assert not (tmp_path / "absent").exists()


def test_a_store_speaks_of_its_arrays(tmp_path):
    make_store(tmp_path).declare([entry(view="flip")])
    store = open_store(tmp_path)
    assert list(store) == ["clean/grid", "clean/vector", "flip/vector"]
    assert store.views == ["clean", "flip"]
    assert "clean/grid" in store
    assert "flip/grid" not in store
    assert set(features_of(store)) == {"grid", "vector"}
    assert set(features_of(store, "flip")) == {"vector"}
    handle = store["clean/grid"]
    assert handle.entry.spec == GRID
    assert handle.entry.source == "some weights"
    assert handle.declared == {"weights": "w", "size_px": 8}


# Rows


def test_rows_do_not_depend_on_the_order_of_the_images(tmp_path):
    ids = image_ids(5, 3, 9, 1)
    for name, given in (("a", ids), ("b", ids[::-1]), ("c", [*ids, *ids])):
        store = create_store(tmp_path / name)
        assert store.add_images(iter(given)) == 4
        assert open_store(tmp_path / name).rows_of(ids).tolist() == [2, 1, 3, 0]


def test_later_images_start_at_the_next_block_and_earlier_rows_stay(tmp_path):
    store = make_store(tmp_path, n_images=5)
    assert store.add_images(image_ids(3, 4)) == 0
    assert store.add_images([*image_ids(2, 1), "0" * 63 + "f", "0" * 62 + "0a"]) == 2
    found = open_store(tmp_path)
    assert found.rows_of(image_ids(0, 1, 2, 3, 4, 10, 15)).tolist() == [0, 1, 2, 3, 4, 8, 9]
    assert found.n_rows == 10


def test_a_full_last_block_leaves_no_gap(tmp_path):
    store = make_store(tmp_path, n_images=4)
    store.add_images(image_ids(20))
    assert open_store(tmp_path).rows_of(image_ids(20)).tolist() == [4]


def test_every_array_grows_with_the_images_and_keeps_its_rows(tmp_path):
    store = make_store(tmp_path, n_images=6)
    write_all(store, VECTOR, 6)
    store.add_images(image_ids(*range(20, 23)))
    found = open_store(tmp_path)
    for spec in (VECTOR, GRID):
        assert found[f"clean/{spec.name}"].array.shape == (11, *spec.shape)
    assert np.array_equal(found["clean/vector"][:6], values_of(VECTOR, range(6)))
    assert np.isnan(found["clean/vector"][6:]).all()
    assert np.flatnonzero(found["clean/vector"].present).tolist() == list(range(6))


def test_images_can_come_before_the_arrays(tmp_path):
    store = create_store(tmp_path, block_rows=BLOCK_ROWS)
    store.add_images(image_ids(*range(6)))
    store.declare([entry(GRID)])
    assert open_store(tmp_path)["clean/grid"].array.shape == (6, 2, 4, 4)


def test_the_index_is_a_plain_table_of_ids_and_rows(tmp_path):
    make_store(tmp_path, n_images=5).add_images(image_ids(30))
    index = pd.read_parquet(tmp_path / "index.parquet")
    assert list(index.columns) == ["image_id", "row"]
    assert index["row"].dtype == np.int64
    assert index["row"].tolist() == [0, 1, 2, 3, 4, 8]
    assert index["image_id"].tolist() == image_ids(0, 1, 2, 3, 4, 30)


# Several processes, and readers beside them


def test_a_writer_that_was_opened_before_another_added_images_takes_later_rows(tmp_path):
    one = create_store(tmp_path, block_rows=BLOCK_ROWS)
    one.declare([entry()])
    other = StoreWriter(tmp_path)
    one.add_images(image_ids(1, 2, 3))
    other.add_images(image_ids(3, 11, 12))
    one.write_block(block(VECTOR, [0, 1, 2]), versions={})
    found = open_store(tmp_path)
    assert found.rows_of(image_ids(1, 2, 3, 11, 12)).tolist() == [0, 1, 2, 4, 5]
    with pytest.raises(StoreError, match="has no row for 2 of 2 images"):
        found["clean/vector"].by_image_id(image_ids(11, 12))


def test_a_writer_that_was_opened_before_another_declared_keeps_both_arrays(tmp_path):
    one = create_store(tmp_path, block_rows=BLOCK_ROWS)
    other = StoreWriter(tmp_path)
    one.declare([entry(VECTOR)])
    with pytest.raises(StoreMismatch):
        other.declare([entry(VECTOR, weights="other")])
    other.declare([entry(GRID)])
    assert list(open_store(tmp_path)) == ["clean/grid", "clean/vector"]


def test_writers_that_start_together_give_every_image_one_row(tmp_path):
    def start(number):
        writer = create_store(tmp_path / "s", block_rows=BLOCK_ROWS)
        writer.declare([entry(VECTOR), entry(VECTOR, view=f"share-{number}")])
        writer.add_images(image_ids(*range(5 * number, 5 * number + 7)))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(start, range(6)))
    found = open_store(tmp_path / "s")
    assert len(found.image_ids) == len(set(found.image_ids)) == 32
    assert len(set(found.rows_of(found.image_ids).tolist())) == 32
    assert len(found.views) == 7
    assert {found[key].array.shape[0] for key in found} == {found.n_rows}


def test_an_open_store_stays_as_it_was_when_images_are_added(tmp_path):
    writer = make_store(tmp_path, n_images=6)
    write_all(writer, VECTOR, 6)
    found = open_store(tmp_path)
    writer.add_images(image_ids(20, 21))
    writer.write_block(block(VECTOR, [8, 9]), versions={})
    assert found.image_ids == image_ids(*range(6))
    assert found.rows_of(image_ids(5, 20)).tolist() == [5, -1]
    assert found["clean/vector"].present.tolist() == [True] * 6
    assert found["clean/vector"].shape == (6, 3)
    assert open_store(tmp_path)["clean/vector"].present.sum() == 8


def test_a_store_that_has_everything_needs_no_lock(tmp_path):
    writer = make_store(tmp_path, n_images=3)
    (tmp_path / "setup.lock").write_text("elsewhere 1")
    assert writer.add_images(image_ids(0, 2)) == 0
    writer.declare([entry(GRID)])
    assert create_store(tmp_path).store.n_rows == 3


def test_a_store_that_another_process_finishes_meanwhile_is_taken(tmp_path, monkeypatch):
    looked = []

    def exists(place, name):
        if not looked:  # it was not there when this process looked, and is a moment later
            looked.append(name)
            monkeypatch.undo()
            create_store(tmp_path, block_rows=BLOCK_ROWS)
            return False
        return (place.root / name).is_file()

    monkeypatch.setattr(LocalPlace, "exists", exists)
    assert create_store(tmp_path).description.block_rows == BLOCK_ROWS


def test_sparse_rows_read_their_own_chunks_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("clare_cache.store.schema.CHUNK_NBYTES", VECTOR.row_nbytes)
    write_all(make_store(tmp_path))
    handle = open_store(tmp_path)["clean/vector"]
    asked, array = [], handle.array

    class Spy:
        def __getitem__(self, selection):
            asked.append((selection.start, selection.stop))
            return array[selection]

    handle.__dict__["array"] = Spy()
    rows = [9, 0, 3, 5, 6, 0, 8]
    assert np.array_equal(handle.read_rows(np.array(rows)), values_of(VECTOR, rows))
    assert asked == [(0, 1), (3, 4), (5, 7), (8, 10)]


# Declared inputs


def test_declaring_again_changes_nothing(tmp_path):
    store = make_store(tmp_path)
    write_all(store)
    before = bytes_below(tmp_path)
    store.declare([replace(entry(), source="the same weights elsewhere")])
    assert bytes_below(tmp_path) == before


def test_a_mismatch_creates_no_array(tmp_path):
    store = make_store(tmp_path, specs=[VECTOR])
    before = bytes_below(tmp_path)
    with pytest.raises(StoreMismatch):
        store.declare([entry(GRID), entry(VECTOR, weights="other")])
    assert bytes_below(tmp_path) == before


def test_views_are_independent_of_each_other(tmp_path):
    store = make_store(tmp_path, specs=[VECTOR])
    store.declare([entry(VECTOR, view="jpeg-q50", view_rule="jpeg")])
    write_all(store)
    assert not open_store(tmp_path)["jpeg-q50/vector"].present.any()


@pytest.mark.parametrize("view", ["", "..", "../up", "a/b", "Clean", "-a", "a b", ".hidden"])
def test_views_that_are_no_folder_names_are_refused(tmp_path, view):
    store = create_store(tmp_path / "s")
    with pytest.raises(StoreError, match="a view is named with a-z, 0-9"):
        store.declare([entry(view=view)])
    assert list(open_store(tmp_path / "s")) == []


# Blocks


def test_a_commit_record_says_what_was_committed(tmp_path):
    store = make_store(tmp_path)
    given = store.write_block(block(VECTOR, [4, 6, 7], failed=[5]), versions={"zarr": "3.1"})
    (path,) = (tmp_path / "commits").rglob("*.json")
    assert path.relative_to(tmp_path).as_posix() == "commits/clean/vector/1.json"
    read = CommitRecord.from_json(unseal(path.read_bytes()))
    assert read == given == open_store(tmp_path)["clean/vector"].records[1]
    assert (read.view, read.array, read.block) == ("clean", "vector", 1)
    assert (read.rows, read.failed) == ((4, 6, 7), (5,))
    assert read.fingerprint == entry().fingerprint
    assert read.versions == {"zarr": "3.1"}
    assert read.seconds == 1.235
    assert list(read.checksums) == ["c/1/0"]
    assert (tmp_path / "features.zarr/clean/vector/c/1/0").is_file()


def test_a_second_commit_keeps_rows_and_ledger_lines_of_the_first(tmp_path):
    store = make_store(tmp_path)
    store.write_block(block(VECTOR, [4], failed=[5]), versions={})
    record = store.write_block(block(VECTOR, [6], failed=[7]), versions={})
    assert (record.rows, record.failed) == ((4, 6), (5, 7))
    found = open_store(tmp_path)
    assert np.array_equal(found["clean/vector"][[4, 6]], values_of(VECTOR, [4, 6]))
    assert found.ledger() == [
        LedgerLine(**vars(failure(row)), view="clean", array="vector") for row in (5, 7)
    ]


def test_a_row_written_again_is_replaced(tmp_path):
    store = make_store(tmp_path)
    store.write_block(block(VECTOR, [4, 5]), versions={})
    again = replace(block(VECTOR, [5]), values=np.full((1, 3), -1, "float32"))
    store.write_block(again, versions={})
    found = open_store(tmp_path)["clean/vector"]
    assert np.array_equal(found[[4]], values_of(VECTOR, [4]))
    assert (found[5] == -1).all()


def test_an_image_that_got_its_row_after_all_leaves_the_ledger(tmp_path):
    store = make_store(tmp_path)
    store.write_block(block(VECTOR, [4], failed=[5, 6]), versions={})
    store.write_block(block(VECTOR, [5]), versions={})
    assert [line.image_id for line in open_store(tmp_path).ledger()] == image_ids(6)
    record = store.write_block(block(VECTOR, [6]), versions={})
    assert (record.rows, record.failed) == ((4, 5, 6), ())
    assert open_store(tmp_path).ledger() == []
    assert not list((tmp_path / "ledger").rglob("*.json"))


def test_a_newer_reason_replaces_the_older_one(tmp_path):
    store = make_store(tmp_path)
    store.write_block(block(VECTOR, [], failed=[5]), versions={})
    store.write_block(
        replace(block(VECTOR, [], failed=[5]), failed={5: failure(5, "still none")}), versions={}
    )
    (line,) = open_store(tmp_path).ledger()
    assert (line.reason, line.path, line.stage) == ("still none", "5.png", "decode")


def test_a_block_of_failures_alone_is_done_and_has_no_chunk(tmp_path):
    record = make_store(tmp_path).write_block(block(VECTOR, [], failed=[0, 1]), versions={})
    assert (record.rows, record.failed, record.checksums) == ((), (0, 1), {})
    assert not (tmp_path / "features.zarr/clean/vector/c").exists()


def test_the_ledger_can_be_read_by_view_and_array(tmp_path):
    store = make_store(tmp_path)
    store.declare([entry(view="flip")])
    store.write_block(block(VECTOR, [], failed=[0]), versions={})
    store.write_block(block(GRID, [], failed=[1]), versions={})
    store.write_block(replace(block(VECTOR, [], failed=[2]), view="flip"), versions={})
    found = open_store(tmp_path)

    def ids(*args):
        return sorted(int(line.image_id, 16) for line in found.ledger(*args))

    assert ids() == [0, 1, 2]
    assert ids("clean") == [0, 1]
    assert ids("clean", ["grid"]) == [1]
    assert ids(None, ["vector"]) == [0, 2]
    assert ids("flip", ["grid"]) == []


@pytest.mark.parametrize(
    "data",
    [
        block(VECTOR, [3, 4], number=1),
        block(VECTOR, [7, 8], number=1),
        block(VECTOR, [8, 9, 10], number=2),
        block(VECTOR, [-1, 0], number=0),
        block(VECTOR, [4], failed=[8]),
        block(VECTOR, [12]),
    ],
)
def test_rows_outside_the_block_are_refused_and_nothing_is_written(tmp_path, data):
    store = make_store(tmp_path)
    before = bytes_below(tmp_path)
    with pytest.raises(StoreError, match="holds rows"):
        store.write_block(data, versions={})
    assert bytes_below(tmp_path) == before


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_refused_and_nothing_is_written(tmp_path, bad):
    store = make_store(tmp_path)
    data = block(VECTOR, [4, 5])
    data.values[1, 2] = bad
    before = bytes_below(tmp_path)
    with pytest.raises(StoreError, match="belong in the ledger"):
        store.write_block(data, versions={})
    assert bytes_below(tmp_path) == before


def test_two_writers_of_different_blocks_do_not_meet(tmp_path):
    one, other = make_store(tmp_path), StoreWriter(tmp_path)
    one.write_block(block(VECTOR, [0, 1]), versions={})
    other.write_block(block(VECTOR, [4, 5]), versions={})
    one.write_block(block(VECTOR, [2]), versions={})
    found = open_store(tmp_path)["clean/vector"]
    assert np.flatnonzero(found.present).tolist() == [0, 1, 2, 4, 5]
    assert np.array_equal(found[[2, 5]], values_of(VECTOR, [2, 5]))


def test_a_record_of_other_inputs_is_refused(tmp_path):
    write_all(make_store(tmp_path))
    path = tmp_path / "commits/clean/vector/1.json"
    path.write_bytes(sealed({**unseal(path.read_bytes()), "fingerprint": "0" * 16}))
    with pytest.raises(StoreError, match="was committed for fingerprint 0000000000000000"):
        _ = open_store(tmp_path)["clean/vector"].present


# The format


@pytest.mark.parametrize(
    ("shape", "dtype", "block_rows", "expected"),
    [
        ((4, 32, 32), "float32", 256, 256),
        ((256, 1024), "float16", 256, 16),
        ((24, 1024), "float16", 256, 256),
        ((768,), "float16", 256, 256),
        ((256, 1024), "float16", 100, 20),
        ((256, 1024), "float16", 17, 17),
        ((5000, 1024), "float32", 256, 1),
        ((3,), "float32", 1, 1),
    ],
)
def test_chunks_hold_12_mib_at_most_and_divide_the_block(shape, dtype, block_rows, expected):
    spec = ArraySpec("a", shape, ("x",) * len(shape), dtype, "")
    rows = chunk_rows_for(spec, block_rows)
    assert rows == expected
    assert block_rows % rows == 0
    assert rows == 1 or rows * spec.row_nbytes <= CHUNK_NBYTES


def test_a_block_of_several_chunks_writes_and_merges_each(tmp_path, monkeypatch):
    monkeypatch.setattr("clare_cache.store.schema.CHUNK_NBYTES", 2 * VECTOR.row_nbytes)
    store = make_store(tmp_path)
    assert open_store(tmp_path)["clean/vector"].entry.chunk_rows == 2
    first = store.write_block(block(VECTOR, [4, 7]), versions={})
    second = store.write_block(block(VECTOR, [5]), versions={})
    assert list(first.checksums) == list(second.checksums) == ["c/2/0", "c/3/0"]
    assert first.checksums["c/2/0"] != second.checksums["c/2/0"]
    assert first.checksums["c/3/0"] == second.checksums["c/3/0"]
    write_all(store)
    assert np.array_equal(open_store(tmp_path)["clean/vector"][:], values_of(VECTOR, range(10)))


@pytest.mark.parametrize(
    "rows", [(), (0,), (3, 4, 5), (0, 2, 4), tuple(range(256)), (1, 2, 9, 10, 12)]
)
def test_ranges_are_short_and_come_back(rows):
    ranges = to_ranges(rows)
    assert from_ranges(json.loads(json.dumps(ranges))) == rows
    assert all(later[0] > earlier[1] + 1 for earlier, later in pairwise(ranges))


def test_plain_zarr_opens_the_features(tmp_path):
    write_all(make_store(tmp_path), GRID)
    group = zarr.open_group(str(tmp_path / "features.zarr"), mode="r")
    array = group["clean/grid"]
    assert array.metadata.zarr_format == 3
    assert array.shape == (10, 2, 4, 4)
    assert array.chunks == (4, 2, 4, 4)
    assert array.compressors == ()
    assert array.metadata.dimension_names == ("image", "channel", "row", "column")
    assert np.isnan(array.fill_value)
    assert array.attrs["meaning"] == "two planes"
    assert array.attrs["fingerprint"] == entry().fingerprint
    assert np.array_equal(array[:], values_of(GRID, range(10)))


def test_xarray_opens_the_features(tmp_path):
    write_all(make_store(tmp_path), VECTOR)
    with xr.open_zarr(tmp_path / "features.zarr", group="clean", consolidated=False) as found:
        assert set(found.data_vars) == {"vector", "grid"}
        assert found["vector"].dims == ("image", "number")
        assert np.array_equal(found["vector"].values, values_of(VECTOR, range(10)))


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "codec", "n_files"),
    [
        ("error_map", (4, 32, 32), "float32", "none", 625),
        ("error_map_signed", (4, 64, 64), "float32", "none", 1250),
        ("vae_latent", (4, 32, 32), "float16", "none", 625),
        ("clip_patch_tokens", (256, 1024), "float16", "none", 10_000),
        ("clip_patch_tokens", (256, 1024), "float16", "int8", 5000),
        ("clip_patch_tokens", (576, 1024), "float16", "none", 20_000),
        ("clip_block_cls", (24, 1024), "float16", "none", 625),
        ("clip_embedding", (768,), "float16", "none", 625),
        ("clip_layer3_map", (1024, 14, 14), "float16", "none", 10_000),
    ],
)
def test_160_000_images_make_thousands_of_chunk_files(name, shape, dtype, codec, n_files):
    """Each array makes a commit record for 256 images besides, 625 files; the four default ones
    together 14,375 files, at most one for ten images."""
    axes = tuple(f"axis {n}" for n in range(len(shape)))
    stored = codec_of(codec).stored(ArraySpec(name, shape, axes, dtype, ""))
    assert -(-160_000 // chunk_rows_for(stored, BLOCK_ROWS_OF_NEW_STORES)) == n_files
