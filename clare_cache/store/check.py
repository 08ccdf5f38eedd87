"""Hold every byte of a store against its checksums. Reads everything, changes nothing.

`store.json` and commit records seal themselves; `store.json` knows the index and the descriptions
of arrays, a commit record its chunks and its ledger, a request is named by its content. So there
is no file in which an altered byte goes unnoticed. Works on damaged stores: needs no index.
"""

from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import google_crc32c
import numpy as np
import zarr

from clare_cache.errors import StoreError
from clare_cache.store.encode import is_raw
from clare_cache.store.finite import are_finite
from clare_cache.store.place import Place, open_place
from clare_cache.store.reader import Store, open_array, read_description, read_stored
from clare_cache.store.records import (
    block_files,
    block_of,
    name_of_content,
    read_record_file,
    request_names,
)
from clare_cache.store.schema import (
    BLOCK_FILE,
    COMMITS_FOLDER,
    FEATURES_FOLDER,
    GROUP_FILE,
    LEDGER_FOLDER,
    REQUESTS_FOLDER,
    STORE_FILE,
    ArrayEntry,
    CommitRecord,
    StoreDescription,
    chunk_of,
)
from clare_cache.types import OnProgress, Progress, ignore_progress

READERS = 4
"""Blocks that are read at once: remote stores answer slowly, and each holds one chunk in memory."""

FOLDERS = (COMMITS_FOLDER, FEATURES_FOLDER, LEDGER_FOLDER, REQUESTS_FOLDER)
"""What is in these and is not named anywhere is an orphan; other files are left alone."""


@dataclass(frozen=True)
class StoreFault:
    """One thing that is not as it was written; `key` and `block` where it concerns a block."""

    kind: str
    where: str
    detail: str
    key: str = ""
    block: int | None = None

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.detail}"


def verify(
    store: Store | Place | str | Path, *, on_progress: OnProgress = ignore_progress
) -> list[StoreFault]:
    """Every missing, altered, torn or orphan file and every non-finite committed value.

    Blocks are not looked at while `store.json` is damaged. Raises StoreError where there is no
    store at all.
    """
    place = store.place if isinstance(store, Store) else open_place(store)
    faults = check_descriptions(place)
    if any(fault.where == STORE_FILE for fault in faults):
        return faults
    damaged = {fault.where for fault in faults}
    return [*faults, *check_blocks(place, damaged=damaged, on_progress=on_progress)]


def check_descriptions(place: Place) -> list[StoreFault]:
    """Faults of what describes the store: `store.json`, index, arrays, views, requests."""
    try:
        description = read_description(place)
    except StoreError as error:
        if not place.exists(STORE_FILE) and not place.exists(GROUP_FILE):
            raise
        fault = StoreFault("damaged store description", STORE_FILE, _reason(error))
        return [fault, *_check_requests(place)]
    return [*_check_described(place, description), *_check_requests(place)]


def check_blocks(
    place: Place,
    *,
    damaged: Collection[str] = (),
    only: Collection[tuple[str, int]] | None = None,
    on_progress: OnProgress = ignore_progress,
) -> list[StoreFault]:
    """Faults of blocks, and orphans; `damaged` names descriptions that cannot be relied on.

    With `only`, of these blocks (array, number) alone and without orphans.
    """
    description = read_description(place)
    names = {
        key: [n for n in block_files(place, COMMITS_FOLDER, key) if _is_asked(n, key, only)]
        for key in sorted(description.arrays)
    }
    total, done = sum(map(len, names.values())), 0
    faults: list[StoreFault] = []
    known = {*description.checksums, *request_names(place)}
    unread: set[tuple[str, int]] = set()
    pool = ThreadPoolExecutor(max_workers=READERS)
    try:
        for key, found in names.items():
            entry = description.arrays[key]
            is_readable = f"{FEATURES_FOLDER}/{key}/zarr.json" not in damaged
            array = open_array(place, key, mode="r") if found and is_readable else None
            known.update(found)
            checked = pool.map(partial(_check_block, place, entry, array), found)
            for name, (record, in_block) in zip(found, checked, strict=True):
                faults += in_block
                if record is None:
                    unread.add((key, block_of(name)))
                else:
                    known.update(_files_of(entry, record))
                done += 1
                on_progress(Progress(what="verify", done=done, total=total, unit="block"))
    finally:
        pool.shutdown(cancel_futures=True)
    if only is None:
        faults += _orphans(place, description, known, unread)
    return faults


def _is_asked(name: str, key: str, only: Collection[tuple[str, int]] | None) -> bool:
    return only is None or (key, block_of(name)) in only


def _check_described(place: Place, description: StoreDescription) -> Iterator[StoreFault]:
    """The index and the descriptions of arrays and views."""
    for name, expected in sorted(description.checksums.items()):
        what = "array description" if name.endswith("zarr.json") else "index"
        yield from _altered(place, name, expected, f"damaged {what}")


def _altered(
    place: Place, name: str, expected: tuple[int, ...], kind: str, key: str = "", block: int = -1
) -> Iterator[StoreFault]:
    """The fault of a file that is not there, or not with one of these checksums."""
    told = (key, block) if key else ("", None)
    try:
        found = google_crc32c.value(place.read(name))
    except FileNotFoundError:
        yield StoreFault(kind, name, "there is no such file", *told)
        return
    if found not in expected:
        was = " or ".join(map(str, expected))
        yield StoreFault(kind, name, f"CRC-32C is {found}, was {was} when it was written", *told)


def _check_requests(place: Place) -> Iterator[StoreFault]:
    for name in request_names(place):
        found = name_of_content(place, name)
        if found != name:
            digest = found.rpartition("/")[2].removesuffix(".parquet")
            yield StoreFault("damaged request", name, f"its content hashes to {digest}")


def _read_record(place: Place, entry: ArrayEntry, name: str) -> CommitRecord | StoreFault:
    block = block_of(name)
    try:
        record = read_record_file(place, entry, name)
    except StoreError as error:
        return StoreFault("damaged commit record", name, _reason(error), entry.key, block)
    if (record.block, f"{record.view}/{record.array}") != (block, entry.key):
        told = f"it is of block {record.block} of {record.view}/{record.array}"
        return StoreFault("damaged commit record", name, told, entry.key, block)
    return record


def _check_block(
    place: Place, entry: ArrayEntry, array: zarr.Array | None, name: str
) -> tuple[CommitRecord | None, list[StoreFault]]:
    """A block by the name of its record: the record if it can be read, and all faults.

    Values are looked at where `array` can be relied on.
    """
    record = _read_record(place, entry, name)
    if isinstance(record, StoreFault):
        return None, [record]
    faults: list[StoreFault] = []
    for chunk, expected in sorted(record.checksums.items()):
        faults += _check_chunk(place, entry, record, array, chunk, expected)
    if record.ledger is not None:
        ledger = f"{LEDGER_FOLDER}/{entry.key}/{record.block}.json"
        known = (record.ledger,)
        faults += _altered(place, ledger, known, "damaged ledger", entry.key, record.block)
    return record, faults


def _check_chunk(
    place: Place,
    entry: ArrayEntry,
    record: CommitRecord,
    array: zarr.Array | None,
    name: str,
    expected: int,
) -> Iterator[StoreFault]:
    where, told = f"{FEATURES_FOLDER}/{entry.key}/{name}", (entry.key, record.block)
    try:
        data = place.read(where)
    except FileNotFoundError:
        yield StoreFault(
            "missing chunk", where, f"block {record.block} was committed with it", *told
        )
        return
    if (found := google_crc32c.value(data)) != expected:
        detail = f"CRC-32C is {found}, was {expected} when committed"
        yield StoreFault("altered chunk", where, detail, *told)
        return
    start = chunk_of(name) * entry.chunk_rows
    rows = [row for row in record.rows if start <= row < start + entry.chunk_rows]
    if array is None or not rows:
        return
    if is_raw(array, entry.chunk_rows):  # then there is no need to read it twice
        stored = np.frombuffer(data, array.dtype).reshape(array.chunks)
    else:
        stored = read_stored(place, entry, array, slice(start, rows[-1] + 1))
    is_finite = are_finite(entry.unpack(stored))
    for row in rows:
        if not is_finite[row - start]:
            detail = f"{entry.key} row {row}"
            yield StoreFault("non-finite value", detail, "NaN or infinity", *told)


def _files_of(entry: ArrayEntry, record: CommitRecord) -> Iterator[str]:
    for name in record.checksums:
        yield f"{FEATURES_FOLDER}/{entry.key}/{name}"
    if record.ledger is not None:
        yield f"{LEDGER_FOLDER}/{entry.key}/{record.block}.json"


def _orphans(
    place: Place,
    description: StoreDescription,
    known: set[str],
    unread: set[tuple[str, int]],
) -> Iterator[StoreFault]:
    """Files that nothing names. What belongs to a block whose record cannot be read is spared."""
    torn = [child for child in place.children() if ".partial" in child]
    for name in (*torn, *(name for folder in FOLDERS for name in place.names(folder))):
        if name in known:
            continue
        folder, _, rest = name.partition("/")
        view, array, *parts = [*rest.split("/"), "", ""]
        entry = description.arrays.get(f"{view}/{array}")
        block = None
        if entry is not None and folder == COMMITS_FOLDER and BLOCK_FILE.fullmatch(parts[0]):
            continue  # committed while the others were looked at
        if entry is not None and folder == LEDGER_FOLDER:
            block = _number(parts[0].removesuffix(".json"), 1)
        elif entry is not None and folder == FEATURES_FOLDER and parts[0] == "c":
            block = _number(parts[1], description.block_rows // entry.chunk_rows)
        if entry is None or (entry.key, block) not in unread:
            yield StoreFault("orphan file", name, "no commit record names it")


def _number(text: str, per_block: int) -> int | None:
    return int(text) // per_block if text.isdecimal() else None


def _reason(error: StoreError) -> str:
    cause = error.__cause__
    return f"{type(cause).__name__}: {cause}" if cause else str(error)
