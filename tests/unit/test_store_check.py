"""`verify` finds what is not as the commit records say, and nothing on a healthy store."""

import google_crc32c
import numpy as np
import pytest

from clare_cache.store import ArrayEntry, BlockData, create_store, open_store, verify
from clare_cache.store.seal import sealed, unseal
from clare_cache.types import ArraySpec, Failure

SPEC = ArraySpec("vector", (3,), ("number",), "float32", "three numbers")
CHUNKS = "features.zarr/clean/vector/c"


@pytest.fixture
def path(tmp_path):
    """Three blocks of rows 0-3, 4-7 (row 6 in the ledger) and 8-9."""
    store = create_store(tmp_path, block_rows=4)
    store.add_images([f"{number:064x}" for number in range(10)])
    store.declare([ArrayEntry("clean", SPEC, 0, {"weights": "w"})])
    for number, rows in enumerate([[0, 1, 2, 3], [4, 5, 7], [8, 9]]):
        failed = {6: Failure(f"{6:064x}", "6.png", "decode", "no picture")} if number == 1 else {}
        values = np.array(rows, "float32")[:, None] + np.arange(3, dtype="float32")
        store.write_block(
            BlockData("clean", "vector", number, np.array(rows), values, failed), versions={}
        )
    return tmp_path


def faults_of(path):
    return [str(fault) for fault in verify(open_store(path))]


def test_a_healthy_store_has_no_fault_and_is_not_changed(path):
    before = {p: p.stat().st_mtime_ns for p in path.rglob("*")}
    seen = []
    assert verify(open_store(path), on_progress=seen.append) == []
    assert [(p.what, p.done, p.total, p.unit) for p in seen] == [
        ("verify", number, 3, "block") for number in (1, 2, 3)
    ]
    assert {p: p.stat().st_mtime_ns for p in path.rglob("*")} == before


def test_an_empty_store_has_no_fault(tmp_path):
    create_store(tmp_path)
    assert faults_of(tmp_path) == []


def test_a_missing_chunk(path):
    (path / CHUNKS / "1/0").unlink()
    assert faults_of(path) == [
        "missing chunk: features.zarr/clean/vector/c/1/0: block 1 was committed with it"
    ]


def test_one_altered_bit(path):
    chunk = path / CHUNKS / "0/0"
    data = bytearray(chunk.read_bytes())
    before = google_crc32c.value(bytes(data))
    data[5] ^= 1
    chunk.write_bytes(bytes(data))
    found = google_crc32c.value(bytes(data))
    assert faults_of(path) == [
        f"altered chunk: features.zarr/clean/vector/c/0/0: CRC-32C is {found}, was {before} when "
        "committed"
    ]


@pytest.mark.parametrize("nbytes", [0, 1, 47])
def test_a_truncated_chunk(path, nbytes):
    chunk = path / CHUNKS / "0/0"
    chunk.write_bytes(chunk.read_bytes()[:nbytes])
    (fault,) = verify(open_store(path))
    assert (fault.kind, fault.where) == ("altered chunk", "features.zarr/clean/vector/c/0/0")


def test_zeros_in_place_of_a_chunk(path):
    chunk = path / CHUNKS / "2/0"
    chunk.write_bytes(bytes(chunk.stat().st_size))
    assert [fault.kind for fault in verify(open_store(path))] == ["altered chunk"]


def test_a_committed_value_that_is_not_finite(path):
    chunk = path / CHUNKS / "1/0"
    values = np.frombuffer(chunk.read_bytes(), "float32").reshape(4, 3).copy()
    values[1, 2] = np.inf
    chunk.write_bytes(values.tobytes())
    record = path / "commits/clean/vector/1.json"
    content = unseal(record.read_bytes())
    content["checksums"]["c/1/0"] = google_crc32c.value(values.tobytes())
    record.write_bytes(sealed(content))
    assert faults_of(path) == ["non-finite value: clean/vector row 5: NaN or infinity"]


def test_files_that_no_record_names(path):
    (path / "commits/clean/vector/2.json").unlink()
    (path / CHUNKS / "0/0.1b2c.partial").write_bytes(b"torn")
    assert faults_of(path) == [
        "orphan file: features.zarr/clean/vector/c/0/0.1b2c.partial: no commit record names it",
        "orphan file: features.zarr/clean/vector/c/2/0: no commit record names it",
    ]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "\x00"])
def test_a_damaged_commit_record_is_a_fault_and_the_others_are_checked(path, text):
    (path / "commits/clean/vector/1.json").write_text(text)
    (path / CHUNKS / "0/0").unlink()
    one, other = verify(open_store(path))
    assert (one.kind, one.where) == ("missing chunk", "features.zarr/clean/vector/c/0/0")
    assert (other.kind, other.where) == ("damaged commit record", "commits/clean/vector/1.json")
    assert (other.key, other.block) == ("clean/vector", 1)


@pytest.mark.parametrize("text", ["", "{", "{}x", "[3]", '[{"a": 1}]'])
def test_a_damaged_ledger_is_a_fault(path, text):
    (path / "ledger/clean/vector/1.json").write_text(text)
    (fault,) = verify(open_store(path))
    assert (fault.kind, fault.where) == ("damaged ledger", "ledger/clean/vector/1.json")


@pytest.mark.parametrize("text", [None, "", "{}", "{"])
def test_a_lost_or_damaged_array_description_is_a_fault(path, text):
    description = path / "features.zarr/clean/vector/zarr.json"
    description.unlink()
    if text is not None:
        description.write_text(text)
    (path / CHUNKS / "2/0").unlink()
    one, other = verify(open_store(path))
    assert one.kind == "damaged array description"
    assert one.where == "features.zarr/clean/vector/zarr.json"
    assert other.kind == "missing chunk"


def test_a_record_of_other_inputs_is_a_fault(path):
    record = path / "commits/clean/vector/0.json"
    record.write_bytes(sealed(unseal(record.read_bytes()) | {"fingerprint": "0" * 16}))
    (fault,) = verify(open_store(path))
    assert fault.kind == "damaged commit record"
    assert "was committed for fingerprint 0000000000000000" in fault.detail


def test_every_fault_is_found_in_one_go(path):
    (path / CHUNKS / "0/0").unlink()
    (path / CHUNKS / "1/0").write_bytes(b"x")
    (path / CHUNKS / "9").write_bytes(b"x")
    assert [fault.kind for fault in verify(open_store(path))] == [
        "missing chunk",
        "altered chunk",
        "orphan file",
    ]
