"""Hold the bytes of a store against its commit records. Reads everything, changes nothing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

from clare_cache.errors import StoreError
from clare_cache.store.reader import ArrayHandle, Store, read_ledger, read_record_file
from clare_cache.store.schema import (
    BLOCK_FILES,
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
    paths = {key: _files(store, COMMITS_FOLDER, key) for key in store}
    total = sum(len(found) for found in paths.values())
    done = 0
    for key in store:
        handle = store[key]
        for path in _files(store, LEDGER_FOLDER, key):
            faults += _damage(store, "ledger", path, partial(read_ledger, store.path, path))
        description = _folder(store, handle) / "zarr.json"
        damaged = _damage(
            store, "array description", description, partial(getattr, handle, "array")
        )
        faults += damaged
        records: list[CommitRecord] = []
        unread: list[StoreFault] = []
        for path in paths[key]:
            read = partial(_append_record, records, store, handle, path)
            unread += _damage(store, "commit record", path, read)
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
    records: list[CommitRecord], store: Store, handle: ArrayHandle, path: Path
) -> None:
    records.append(read_record_file(store.path, handle.entry, path))


def _damage(store: Store, what: str, path: Path, read: Callable[[], Any]) -> list[StoreFault]:
    """The fault of a file that cannot be read as what it should be, if it has one."""
    try:
        read()
    except StoreError as error:
        cause = error.__cause__
        detail = f"{type(cause).__name__}: {cause}" if cause else str(error)
        return [StoreFault(f"damaged {what}", path.relative_to(store.path).as_posix(), detail)]
    return []


def _files(store: Store, folder: str, key: str) -> list[Path]:
    return sorted((store.path / folder / key).glob(BLOCK_FILES))


def _verify_block(
    store: Store, handle: ArrayHandle, record: CommitRecord, *, values: bool
) -> Iterator[StoreFault]:
    folder, block = _folder(store, handle), record.block
    altered = False
    for name, expected in sorted(record.checksums.items()):
        path = folder / name
        where = f"{handle.entry.key}/{name}"
        if not path.is_file():
            altered = True
            yield StoreFault("missing chunk", where, f"block {block} was committed with it")
        elif (checksum := google_crc32c.value(path.read_bytes())) != expected:
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
    folder = _folder(store, handle)
    known = {name for record in records for name in record.checksums}
    for path in sorted(folder.glob("c/**/*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in known:
            yield StoreFault(
                "orphan file", f"{handle.entry.key}/{name}", "no commit record names it"
            )


def _folder(store: Store, handle: ArrayHandle) -> Path:
    return store.path / FEATURES_FOLDER / handle.entry.key
