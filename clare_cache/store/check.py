"""Hold the bytes of a store against its commit records. Reads everything, changes nothing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import google_crc32c
import numpy as np

from clare_cache.errors import StoreError
from clare_cache.store.reader import (
    ArrayHandle,
    Store,
    block_files,
    read_ledger,
    read_record_file,
)
from clare_cache.store.schema import (
    COMMITS_FOLDER,
    FEATURES_FOLDER,
    LEDGER_FOLDER,
    CommitRecord,
)
from clare_cache.types import OnProgress, Progress, ignore_progress


@dataclass(frozen=True)
class StoreFault:
    """One thing that is not as the commit records say."""

    kind: str
    where: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.where}: {self.detail}"


def verify(store: Store, *, on_progress: OnProgress = ignore_progress) -> list[StoreFault]:
    """Every damaged, missing, altered or orphan file and every non-finite committed value."""
    faults: list[StoreFault] = []
    place = store.place
    names = {key: block_files(place, COMMITS_FOLDER, key) for key in store}
    total = sum(len(found) for found in names.values())
    done = 0
    for key in store:
        handle = store[key]
        for name in block_files(place, LEDGER_FOLDER, key):
            faults += _damage("ledger", name, partial(read_ledger, place, name))
        description = f"{FEATURES_FOLDER}/{key}/zarr.json"
        damaged = _damage("array description", description, partial(getattr, handle, "array"))
        faults += damaged
        records: list[CommitRecord] = []
        unread: list[StoreFault] = []
        for name in names[key]:
            read = partial(_append_record, records, store, handle, name)
            unread += _damage("commit record", name, read)
        faults += unread
        if not unread:  # else there is no telling which chunks belong to nothing
            faults += _orphans(store, handle, records)
        done += len(unread)
        for record in sorted(records, key=lambda record: record.block):
            faults += _verify_block(store, handle, record, values=not damaged)
            done += 1
            on_progress(Progress(what="verify", done=done, total=total, unit="block"))
    return faults


def _append_record(
    records: list[CommitRecord], store: Store, handle: ArrayHandle, name: str
) -> None:
    records.append(read_record_file(store.place, handle.entry, name))


def _damage(what: str, name: str, read: Callable[[], Any]) -> list[StoreFault]:
    """The fault of a file that cannot be read as what it should be, if it has one."""
    try:
        read()
    except StoreError as error:
        cause = error.__cause__
        detail = f"{type(cause).__name__}: {cause}" if cause else str(error)
        return [StoreFault(f"damaged {what}", name, detail)]
    return []


def _verify_block(
    store: Store, handle: ArrayHandle, record: CommitRecord, *, values: bool
) -> Iterator[StoreFault]:
    altered = False
    for name, expected in sorted(record.checksums.items()):
        where = f"{handle.entry.key}/{name}"
        try:
            checksum = google_crc32c.value(store.place.read(f"{FEATURES_FOLDER}/{where}"))
        except FileNotFoundError:
            altered = True
            detail = f"block {record.block} was committed with it"
            yield StoreFault("missing chunk", where, detail)
            continue
        if checksum != expected:
            altered = True
            yield StoreFault(
                "altered chunk", where, f"CRC-32C is {checksum}, was {expected} when committed"
            )
    rows = np.array(record.rows, np.int64)
    if values and not altered and len(rows):
        found = handle.read_rows(rows).reshape(len(rows), -1)
        for row in rows[~np.isfinite(found).all(axis=1)]:
            yield StoreFault("non-finite value", f"{handle.entry.key} row {row}", "NaN or infinity")


def _orphans(
    store: Store, handle: ArrayHandle, records: Sequence[CommitRecord]
) -> Iterator[StoreFault]:
    key = handle.entry.key
    known = {f"{key}/{name}" for record in records for name in record.checksums}
    for path in store.place.names(f"{FEATURES_FOLDER}/{key}/c"):
        name = path.removeprefix(f"{FEATURES_FOLDER}/")
        if name not in known:
            yield StoreFault("orphan file", name, "no commit record names it")
