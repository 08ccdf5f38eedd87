"""Stores after a crash, a kill, a power cut, or a careless hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from clare_cache import files
from clare_cache.errors import StoreError
from clare_cache.store import StoreWriter, create_store, open_store, place
from clare_cache.store.place import LocalPlace
from tests.fake_backbone import bytes_below
from tests.small_store import (
    BLOCK_ROWS,
    GRID,
    VECTOR,
    block,
    entry,
    image_ids,
    make_store,
    values_of,
    write_all,
)


class Crash(Exception):
    """Stands for whatever stops a process."""


def stop_at(suffix):
    """A `LocalPlace.write` that stops before the first file whose name ends so."""
    write = LocalPlace.write

    def guarded(self, name, data):
        if name.endswith(suffix):
            raise Crash
        write(self, name, data)

    return guarded


def crash_at(monkeypatch, n):
    """Let the writer stop at its n-th step to the disk, counted from 0: write, flush, rename."""
    steps = iter(range(n + 1))

    def guard(act):
        def guarded(*args, **kwargs):
            if next(steps, n) == n:
                raise Crash
            return act(*args, **kwargs)

        return guarded

    monkeypatch.setattr(files, "flush", guard(files.flush))
    monkeypatch.setattr(place, "flush", guard(place.flush))
    monkeypatch.setattr(LocalPlace, "write", guard(LocalPlace.write))


def test_data_and_ledger_are_on_disk_before_the_record(tmp_path, monkeypatch):
    store, steps = make_store(tmp_path), []

    def flushed(path):
        name = path.relative_to(tmp_path).as_posix()
        steps.append("(a partial)" if "partial" in name else name)

    monkeypatch.setattr(files, "flush", flushed)
    monkeypatch.setattr(place, "flush", flushed)
    store.write_block(block(GRID, [4, 5], failed=[6]), versions={})
    array = "features.zarr/clean/grid"
    above = ["features.zarr/clean", "features.zarr", "."]
    assert steps == [
        "(a partial)",
        *[f"{array}/c/1/0/0", f"{array}/c/1/0", f"{array}/c/1", f"{array}/c", array, *above],
        *["(a partial)", "ledger/clean/grid", "ledger/clean", "ledger", "."],
        *["(a partial)", "commits/clean/grid", "commits/clean", "commits", "."],
    ]


@pytest.mark.parametrize("n", range(16))
def test_a_block_without_its_record_never_happened(tmp_path, monkeypatch, n):
    whole = make_store(tmp_path / "whole")
    write_all(whole)
    store = make_store(tmp_path / "torn")
    store.write_block(block(VECTOR, [0, 1, 2, 3]), versions={})
    with monkeypatch.context() as patch:
        crash_at(patch, n)
        with pytest.raises(Crash):
            store.write_block(block(VECTOR, [4, 5, 6], failed=[7]), versions={})
    found = open_store(tmp_path / "torn")["clean/vector"]
    assert np.flatnonzero(found.present).tolist() == [0, 1, 2, 3]
    with pytest.raises(StoreError, match="has no row for 1 of 1 images"):
        found.by_image_id(image_ids(4))

    write_all(StoreWriter(tmp_path / "torn"))
    assert bytes_below(tmp_path / "torn/features.zarr") == bytes_below(
        tmp_path / "whole/features.zarr"
    )
    assert open_store(tmp_path / "torn").ledger() == []


def test_a_merge_that_stops_before_its_record_keeps_what_was_committed(tmp_path, monkeypatch):
    store = make_store(tmp_path)
    store.write_block(block(VECTOR, [4, 5]), versions={})
    with monkeypatch.context() as patch:
        patch.setattr(LocalPlace, "write", stop_at(".json"))
        with pytest.raises(Crash):
            store.write_block(block(VECTOR, [6]), versions={})
    found = open_store(tmp_path)["clean/vector"]
    assert np.flatnonzero(found.present).tolist() == [4, 5]
    assert np.array_equal(found[[4, 5]], values_of(VECTOR, [4, 5]))
    record = store.write_block(block(VECTOR, [6]), versions={})
    assert record.rows == (4, 5, 6)


@pytest.mark.parametrize("left", [b"", b"\x00" * 5, b"\x00" * 48, b"\xff" * 100])
@pytest.mark.parametrize("rows", [[4, 5, 6, 7], [8, 9]])
def test_a_chunk_torn_by_a_power_cut_does_not_stop_the_block_that_was_never_committed(
    tmp_path, left, rows
):
    store = make_store(tmp_path)
    path = tmp_path / f"features.zarr/clean/vector/c/{rows[0] // BLOCK_ROWS}/0"
    path.parent.mkdir(parents=True)
    path.write_bytes(left)
    store.write_block(block(VECTOR, rows), versions={})
    assert np.array_equal(
        open_store(tmp_path)["clean/vector"].by_image_id(image_ids(*rows)), values_of(VECTOR, rows)
    )


def test_growth_that_stops_before_the_index_is_not_seen_and_can_be_done_again(
    tmp_path, monkeypatch
):
    store = make_store(tmp_path, n_images=6)
    write_all(store, VECTOR, 6)
    with monkeypatch.context() as patch:
        patch.setattr(LocalPlace, "write", stop_at(".parquet"))
        with pytest.raises(Crash):
            store.add_images(image_ids(*range(20, 30)))
    found = open_store(tmp_path)
    assert found.n_rows == 6
    assert found["clean/vector"].shape == (6, 3)
    StoreWriter(tmp_path).add_images(image_ids(40))
    found = open_store(tmp_path)
    assert found.rows_of(image_ids(20, 40)).tolist() == [-1, 8]
    assert found["clean/grid"].array.shape[0] == 9
    assert np.array_equal(found["clean/vector"][:6], values_of(VECTOR, range(6)))


def test_files_that_killed_writers_leave_do_not_disturb(tmp_path):
    store = make_store(tmp_path)
    store.write_block(block(VECTOR, [4, 5], failed=[6]), versions={})
    record = (tmp_path / "commits/clean/vector/1.json").read_text()
    for name, text in {
        "commits/clean/vector/.0.0a1b2c3d.partial.json": record[:40],
        "commits/clean/vector/.2.0a1b2c3d.partial.json": record.replace('"block": 1', '"block": 2'),
        "ledger/clean/vector/.1.0a1b2c3d.partial.json": '[{"image_id": ',
        ".store.0a1b2c3d.partial.json": "{",
        ".index.0a1b2c3d.partial.parquet": "PAR",
        "features.zarr/clean/vector/c/1/0.52a0c6e5.partial": "torn",
    }.items():
        (tmp_path / name).write_text(text)
    found = open_store(tmp_path)
    assert list(found["clean/vector"].records) == [1]
    assert [line.image_id for line in found.ledger()] == image_ids(6)
    assert np.array_equal(found["clean/vector"][[4, 5]], values_of(VECTOR, [4, 5]))
    assert StoreWriter(tmp_path).write_block(block(VECTOR, [6]), versions={}).rows == (4, 5, 6)


def test_an_array_left_by_a_run_that_stopped_before_naming_it_is_made_anew(tmp_path, monkeypatch):
    store = create_store(tmp_path, block_rows=BLOCK_ROWS)
    store.add_images(image_ids(0))
    with monkeypatch.context() as patch:
        patch.setattr(LocalPlace, "write", stop_at("store.json"))
        with pytest.raises(Crash):
            store.declare([entry()])
    assert (tmp_path / "features.zarr/clean/vector/zarr.json").is_file()
    assert list(open_store(tmp_path)) == []
    StoreWriter(tmp_path).declare([entry(GRID), entry(replace(GRID, name="vector"))])
    assert open_store(tmp_path)["clean/vector"].array.shape == (1, 2, 4, 4)


# Folders that are no store, and files that are not whole


def test_a_creation_that_stopped_is_taken_up(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(LocalPlace, "write", stop_at(".json"))
        with pytest.raises(Crash):
            create_store(tmp_path)
    assert (tmp_path / "index.parquet").is_file()
    assert create_store(tmp_path, block_rows=2).description.block_rows == 2


def test_creating_where_a_store_is_opens_it(tmp_path):
    write_all(make_store(tmp_path))
    store = create_store(tmp_path, block_rows=99)
    assert store.description.block_rows == BLOCK_ROWS
    assert store.records("clean", "vector").keys() == {0, 1, 2}


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(StoreError, match="found other files"):
        create_store(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["holiday.jpg"]


def test_a_file_is_no_place_for_a_store(tmp_path):
    path = tmp_path / "manifest.csv"
    path.write_bytes(b"x")
    with pytest.raises(StoreError, match="expected a store or an empty folder"):
        create_store(path)
    assert path.read_bytes() == b"x"


@pytest.mark.parametrize("version", [0, 1, 3, "2", None])
def test_other_format_versions_are_refused(tmp_path, version):
    make_store(tmp_path)
    edit_store_json(tmp_path, lambda value: value.update(format_version=version))
    for act in (open_store, create_store, StoreWriter):
        with pytest.raises(StoreError, match="format version 2 is understood, found"):
            act(tmp_path)


def test_declared_inputs_edited_by_hand_are_noticed(tmp_path):
    make_store(tmp_path)
    edit_store_json(
        tmp_path, lambda value: value["arrays"]["clean/grid"]["declared"].update(size_px=9)
    )
    with pytest.raises(StoreError, match=r"declared inputs of clean/grid .* edited by hand"):
        open_store(tmp_path)


def edit_store_json(path: Path, edit) -> None:
    value = json.loads((path / "store.json").read_text())
    edit(value)
    (path / "store.json").write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("store.json", b""),
        ("store.json", b'{"format_version": 2'),
        ("store.json", b'{"format_version": 2}'),
        ("store.json", b"\xff\xfe"),
        ("index.parquet", b""),
        ("index.parquet", b"PAR1 and no more"),
        ("index.parquet", None),
    ],
)
def test_damaged_files_are_named_in_one_sentence(tmp_path, name, content):
    make_store(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(StoreError, match=r"expected whole files store\.json and index\.parquet"):
        open_store(tmp_path)
