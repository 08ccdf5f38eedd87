"""Hold the bytes of a store against its commit records. Reads everything, changes nothing."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np

from clare_cache.store.reader import ArrayHandle, Store
from clare_cache.store.schema import FEATURES_FOLDER
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
    """Every missing, altered or orphan chunk and every non-finite committed value."""
    faults: list[StoreFault] = []
    total = sum(len(store[key].records) for key in store)
    done = 0
    for key in store:
        handle = store[key]
        faults += _orphans(store, handle)
        for block in sorted(handle.records):
            faults += _verify_block(store, handle, block)
            done += 1
            on_progress(Progress(what="verify", done=done, total=total, unit="block"))
    return faults


def _verify_block(store: Store, handle: ArrayHandle, block: int) -> Iterator[StoreFault]:
    record, folder = handle.records[block], _folder(store, handle)
    altered = False
    for name, expected in sorted(record.checksums.items()):
        path = folder / name
        where = f"{handle.entry.key}/{name}"
        if not path.is_file():
            altered = True
            yield StoreFault("missing chunk", where, f"block {block} was committed with it")
        elif (found := google_crc32c.value(path.read_bytes())) != expected:
            altered = True
            yield StoreFault(
                "altered chunk", where, f"CRC-32C is {found}, was {expected} when committed"
            )
    rows = np.array(record.rows, np.int64)
    if not altered and len(rows):
        values = handle.read_rows(rows).reshape(len(rows), -1)
        for row in rows[~np.isfinite(values).all(axis=1)]:
            yield StoreFault("non-finite value", f"{handle.entry.key} row {row}", "NaN or infinity")


def _orphans(store: Store, handle: ArrayHandle) -> Iterator[StoreFault]:
    folder = _folder(store, handle)
    known = {name for record in handle.records.values() for name in record.checksums}
    for path in sorted(folder.glob("c/**/*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in known:
            yield StoreFault(
                "orphan file", f"{handle.entry.key}/{name}", "no commit record names it"
            )


def _folder(store: Store, handle: ArrayHandle) -> Path:
    return store.path / FEATURES_FOLDER / handle.entry.key
