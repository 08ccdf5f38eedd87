"""The sentences that owners of stores meet, word for word."""

import numpy as np
import pytest

from clare_cache.errors import StoreError, StoreMismatch
from clare_cache.store import ArrayEntry, BlockData, create_store, open_store
from clare_cache.store.seal import sealed, unseal
from clare_cache.types import ArraySpec, Failure

MAP = ArraySpec("error_map", (2,), ("number",), "float32", "two numbers")
CLS = ArraySpec("clip_cls", (3,), ("channel",), "float16", "three numbers")
DECLARED = {"size_px": 512, "timestep": 280, "vae": {"dtype": "float32"}}


def message_of(error, act) -> str:
    with pytest.raises(StoreError) as caught:
        act()
    assert type(caught.value) is error
    return str(caught.value)


@pytest.fixture
def store(tmp_path):
    """Six images in blocks of four; rows 0 and 1 of error_map are there."""
    writer = create_store(tmp_path / "faces", block_rows=4)
    writer.add_images(f"{number:064x}" for number in range(6))
    writer.declare(
        [ArrayEntry("clean", MAP, 0, DECLARED), ArrayEntry("clean", CLS, 0, {"tap": "a"})]
    )
    writer.write_block(
        BlockData("clean", "error_map", 0, np.array([0, 1]), np.ones((2, 2), "float32")),
        versions={},
    )
    return writer


def test_no_store(tmp_path):
    assert message_of(StoreError, lambda: open_store(tmp_path / "faces")) == (
        f"store {tmp_path}/faces: expected a folder with store.json, found none. "
        "Make one with `clare-cache extract MANIFEST STORE`."
    )


def test_a_folder_of_other_files(tmp_path):
    (tmp_path / "a.png").touch()
    assert message_of(StoreError, lambda: create_store(tmp_path)) == (
        f"store {tmp_path}: expected a store or an empty folder, found other files and no "
        "store.json. Name another folder."
    )


def test_features_made_from_other_inputs(store):
    asked = [
        ArrayEntry("clean", CLS, 0, {"tap": "b", "stored": "float16"}),
        ArrayEntry("clean", MAP, 0, {"size_px": 256, "vae": {"dtype": "float16"}}),
        ArrayEntry("flip", MAP, 0, {"anything": "new"}),
    ]
    assert message_of(StoreMismatch, lambda: store.declare(asked)) == (
        f"store {store.place}: it was made from other inputs than asked for now\n"
        '  - clean/clip_cls: stored: asked "float16", found nothing\n'
        '  - clean/clip_cls: tap: asked "b", found "a"\n'
        "  - clean/error_map: size_px: asked 256, found 512\n"
        "  - clean/error_map: timestep: asked nothing, found 280\n"
        '  - clean/error_map: vae.dtype: asked "float16", found "float32"\n'
        "Extract into another store, or ask for what this one holds."
    )


def test_an_array_that_is_not_there(store, tmp_path):
    assert message_of(StoreError, lambda: open_store(store.place.root)["clean/tokens"]) == (
        f"store {store.place}: array clean/tokens was asked for, found clean/clip_cls, "
        "clean/error_map. Extract it with `clare-cache extract`."
    )
    create_store(tmp_path / "new")
    assert message_of(StoreError, lambda: open_store(tmp_path / "new")["clean/tokens"]) == (
        f"store {tmp_path}/new: array clean/tokens was asked for, found no array. "
        "Extract it with `clare-cache extract`."
    )


def test_images_without_a_row(store):
    handle = open_store(store.place.root)["clean/error_map"]
    ids = [f"{number:064x}" for number in (1, 2, 99, 0)]
    assert message_of(StoreError, lambda: handle.by_image_id(ids)) == (
        f"store {store.place}: clean/error_map has no row for 2 of 4 images, "
        f"the first is {ids[1]}. See `clare-cache store info --ledger`, or extract them."
    )


def test_a_view_that_cannot_name_a_folder(store):
    entry = ArrayEntry("Blur 2", MAP, 0, {})
    assert message_of(StoreError, lambda: store.declare([entry])) == (
        f"store {store.place}: a view is named with a-z, 0-9, '.', '_' and '-', found 'Blur 2'."
    )


def test_blocks_that_are_refused(store):
    def write(rows, value=1.0):
        values = np.full((len(rows), 2), value, "float32")
        store.write_block(BlockData("clean", "error_map", 1, np.array(rows), values), versions={})

    assert message_of(StoreError, lambda: write([4, 6])) == (
        f"store {store.place}: block 1 holds rows 4 to 5, was given row 6."
    )
    assert message_of(StoreError, lambda: write([4], np.inf)) == (
        f"store {store.place}: block 1 of clean/error_map was given non-finite values; such images "
        "belong in the ledger."
    )


def rewrite(path, edit):
    value = unseal(path.read_bytes())
    edit(value)
    path.write_bytes(sealed(value))


def test_another_format_version(store):
    rewrite(store.place.root / "store.json", lambda value: value.update(format_version=3))
    assert message_of(StoreError, lambda: open_store(store.place.root)) == (
        f"store {store.place}: format version 2 is understood, found 3 in store.json. "
        "Install the clare-cache release that wrote it, or extract again."
    )


def test_declared_inputs_edited_by_hand(store):
    before = store.store["clean/error_map"].fingerprint
    rewrite(
        store.place.root / "store.json",
        lambda value: value["arrays"]["clean/error_map"]["declared"].update(size_px=256),
    )
    after = ArrayEntry("clean", MAP, 0, DECLARED | {"size_px": 256}).fingerprint
    assert message_of(StoreError, lambda: open_store(store.place.root)) == (
        f"store {store.place}: the declared inputs of clean/error_map hash to {after}, store.json "
        f"says {before}. It was edited by hand; restore it."
    )


def test_a_commit_record_of_other_inputs(store):
    rewrite(
        store.place.root / "commits/clean/error_map/0.json",
        lambda value: value.update(fingerprint="0123456789abcdef"),
    )
    declared = store.store["clean/error_map"].fingerprint
    assert message_of(
        StoreError, lambda: open_store(store.place.root)["clean/error_map"].records
    ) == (
        f"store {store.place}: 0.json of clean/error_map was committed for fingerprint "
        f"0123456789abcdef, store.json declares {declared}. "
        "Remove that array and extract it again."
    )


def test_a_store_description_that_is_not_whole(store):
    (store.place.root / "store.json").write_text("")
    assert message_of(StoreError, lambda: open_store(store.place.root)) == (
        f"store {store.place}: expected whole files store.json and index.parquet, found "
        "JSONDecodeError: Expecting value: line 1 column 1 (char 0). "
        "Mend them with `clare-cache store repair`."
    )


def test_a_damaged_commit_record(store):
    (store.place.root / "commits/clean/error_map/0.json").write_text("")
    for act in (
        lambda: open_store(store.place.root)["clean/error_map"].present,
        lambda: store.record("clean", "error_map", 0),
    ):
        assert message_of(StoreError, act) == (
            f"store {store.place}: expected a whole commit record commits/clean/error_map/0.json, "
            "found JSONDecodeError: Expecting value: line 1 column 1 (char 0). "
            "`clare-cache store repair` makes its block anew."
        )


def test_a_damaged_ledger(store):
    failed = {2: Failure("2" * 64, "2.png", "decode", "no picture")}
    none = BlockData(
        "clean", "error_map", 0, np.empty(0, "int64"), np.empty((0, 2), "float32"), failed
    )
    store.write_block(none, versions={})
    (store.place.root / "ledger/clean/error_map/0.json").write_text("")
    for act in (
        lambda: open_store(store.place.root).ledger(),
        lambda: store.write_block(none, versions={}),
    ):
        assert message_of(StoreError, act) == (
            f"store {store.place}: expected a whole ledger ledger/clean/error_map/0.json, found "
            "JSONDecodeError: Expecting value: line 1 column 1 (char 0). "
            "`clare-cache store repair` makes it anew."
        )


def test_a_lost_array_description(store):
    (store.place.root / "features.zarr/clean/error_map/zarr.json").unlink()
    found = message_of(StoreError, lambda: open_store(store.place.root)["clean/error_map"][0])
    start = f"store {store.place}: expected a whole features.zarr/clean/error_map/zarr.json, found "
    assert found.startswith(start)
    assert found.endswith(". Mend it with `clare-cache store repair`.")


@pytest.mark.parametrize("nbytes", [0, 7, 8])
def test_a_truncated_chunk(store, nbytes):
    chunk = store.place.root / "features.zarr/clean/error_map/c/0/0"
    chunk.write_bytes(chunk.read_bytes()[:nbytes])
    handle = open_store(store.place.root)["clean/error_map"]
    two = BlockData("clean", "error_map", 0, np.array([2]), np.ones((1, 2), "float32"))
    for act in (
        lambda: handle[0:2],
        lambda: handle.read_rows(np.array([1])),
        lambda: store.write_block(two, versions={}),
    ):
        found = message_of(StoreError, act)
        assert found.startswith(
            f"store {store.place}: clean/error_map cannot be read, ValueError: "
        )
        assert found.endswith(". Mend it with `clare-cache store repair`.")
