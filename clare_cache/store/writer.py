"""Create, extend and fill a store, one block at a time.

Rows are handed out once and never move. Images added together are sorted by id: a SHA-256 order
is a random order, so a chunk is as mixed as a full shuffle, and every process that adds the same
images gives them the same rows. A later batch of images starts at the next block, because a
block has one writer. Data first, then the ledger, then the commit record: a block without a
record never happened.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePath

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from clare_cache.errors import StoreError, StoreMismatch
from clare_cache.files import (
    flush,
    is_partial,
    partial_files,
    sweep,
    write_again_if_swept,
    write_json,
    write_whole,
)
from clare_cache.fingerprint import differences
from clare_cache.store.lock import LOCK_FILE, is_left_behind, setup_lock
from clare_cache.store.reader import (
    Store,
    open_array,
    read_ledger,
    read_record,
    read_records,
    read_values,
)
from clare_cache.store.schema import (
    BLOCK_ROWS,
    COMMITS_FOLDER,
    FEATURES_FOLDER,
    INDEX_FILE,
    LEDGER_FOLDER,
    STORE_FILE,
    ArrayEntry,
    CommitRecord,
    LedgerLine,
    StoreDescription,
    chunk_rows_for,
)
from clare_cache.types import Failure, ImageId

INDEX_ROW_GROUP = 16_384
"""Rows that are read to find those of one block."""

VIEW_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class BlockData:
    """What one block of one array gains: `values[i]` is row `rows[i]`; the rest failed."""

    view: str
    array: str
    block: int
    rows: NDArray[np.int64]
    values: NDArray[np.generic]
    failed: Mapping[int, Failure] = field(default_factory=dict)
    seconds: float = 0.0


def create_store(path: str | Path, *, block_rows: int = BLOCK_ROWS) -> "StoreWriter":
    """An empty store at `path`, or the one already there. Raises StoreError for other folders."""
    path = Path(path)
    if (path / STORE_FILE).is_file():
        return StoreWriter(path)
    if path.is_file():
        raise _other_files(path)
    with setup_lock(path):
        if (path / STORE_FILE).is_file():
            return StoreWriter(path)  # made while this process waited
        # Without store.json, these are what an interrupted `create_store` leaves.
        begun = {path / INDEX_FILE, path / FEATURES_FOLDER, path / LOCK_FILE}
        if not all(file in begun or is_partial(file) for file in path.iterdir()):
            raise _other_files(path)
        _write_index(path, [], np.empty(0, np.int64))
        zarr.open_group(str(path / FEATURES_FOLDER), mode="a", zarr_format=3)
        write_json(
            path / STORE_FILE, StoreDescription(block_rows=block_rows).to_json(), durable=True
        )
    return StoreWriter(path)


def _other_files(path: Path) -> StoreError:
    return StoreError(
        f"store {path}: expected a store or an empty folder, found other files and no "
        f"{STORE_FILE}. Name another folder."
    )


class StoreWriter:
    """The one way to change a store. Cheap to open; workers open their own.

    What concerns the whole store (images, arrays) is changed under the setup lock, starting from
    what is on disk then: processes may do it at the same time.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._reload()

    def _reload(self) -> None:
        self.store = Store(self.path)
        self.description = self.store.description

    def add_images(self, image_ids: Iterable[ImageId]) -> int:
        """Give rows to the images that have none; the number of new rows."""
        asked = set(image_ids)
        if asked <= set(self.store.image_ids):
            return 0  # rows never go away: no need to wait for the lock
        with setup_lock(self.path):
            self._reload()
            return self._add(sorted(asked - set(self.store.image_ids)))

    def _add(self, new: Sequence[ImageId]) -> int:
        if not new:
            return 0
        block_rows = self.description.block_rows
        start = -(-self.store.n_rows // block_rows) * block_rows
        known = self.store.image_ids
        rows = np.concatenate([self.store.rows_of(known), np.arange(start, start + len(new))])
        # Arrays first: an index that points past an array's end would be a broken store.
        for key, entry in self.description.arrays.items():
            array = self._open(key)
            array.resize((start + len(new), *entry.spec.shape))
            self._flush_metadata(key)
        _write_index(self.path, [*known, *new], rows)
        self._reload()
        return len(new)

    def declare(self, entries: Sequence[ArrayEntry]) -> None:
        """Create the arrays that are absent; hold those that exist to their declared inputs.

        Raises StoreMismatch listing, for every array, each declared input that differs.
        """
        self._refuse_others(entries)
        if all(entry.key in self.description.arrays for entry in entries):
            return  # arrays never go away: no need to wait for the lock
        with setup_lock(self.path):
            self._reload()
            self._refuse_others(entries)
            arrays = dict(self.description.arrays)
            for entry in entries:
                if entry.key not in arrays:
                    chunk_rows = chunk_rows_for(entry.spec, self.description.block_rows)
                    arrays[entry.key] = replace(entry, chunk_rows=chunk_rows)
                    self._create(arrays[entry.key])
            description = replace(self.description, arrays=arrays)
            write_json(self.path / STORE_FILE, description.to_json(), durable=True)
            self._reload()

    def _refuse_others(self, entries: Sequence[ArrayEntry]) -> None:
        sentences = []
        for entry in entries:
            if not VIEW_NAME.fullmatch(entry.view):
                raise StoreError(
                    f"store {self.path}: a view is named with a-z, 0-9, '.', '_' and '-', "
                    f"found {entry.view!r}."
                )
            if found := self.description.arrays.get(entry.key):
                sentences += [
                    f"  - {entry.key}: {phrase}"
                    for phrase in differences(entry.declared, found.declared)
                ]
        if sentences:
            raise StoreMismatch(
                f"store {self.path}: it was made from other inputs than asked for now\n"
                + "\n".join(sentences)
                + "\nExtract into another store, or ask for what this one holds."
            )

    def records(self, view: str, array: str) -> dict[int, CommitRecord]:
        """Commit records of one array by block, as they are on disk now."""
        return read_records(self.path, self._entry(view, array))

    def record(self, view: str, array: str, block: int) -> CommitRecord | None:
        """The commit record of one block, as it is on disk now."""
        return read_record(self.path, self._entry(view, array), block)

    def rows_of_block(self, block: int) -> tuple[int, int]:
        """First row of a block, and one more than its last."""
        first = block * self.description.block_rows
        return first, min(first + self.description.block_rows, self.store.n_rows)

    def write_block(self, data: BlockData, *, versions: Mapping[str, str]) -> CommitRecord:
        """Write, flush and commit rows of one block; rows committed before are kept.

        Raises StoreError when a row lies outside the block or a value is not finite.
        """
        entry = self._entry(data.view, data.array)
        first, stop = self.rows_of_block(data.block)
        outside = [r for r in (*data.rows.tolist(), *data.failed) if not first <= r < stop]
        if outside:
            raise StoreError(
                f"store {self.path}: block {data.block} holds rows {first} to {stop - 1}, "
                f"was given row {outside[0]}."
            )
        if not np.isfinite(data.values).all():
            raise StoreError(
                f"store {self.path}: block {data.block} of {entry.key} was given non-finite "
                "values; such images belong in the ledger."
            )
        before = read_record(self.path, entry, data.block)
        array = self._open(entry.key)
        kept = sorted(set(before.rows if before else ()) - set(data.rows.tolist()))
        checksums = dict(before.checksums) if before else {}
        for start in range(first, stop, entry.chunk_rows):
            end = min(start + entry.chunk_rows, stop)
            inside = (data.rows >= start) & (data.rows < end)
            if not inside.any():
                continue
            chunk = np.full((end - start, *entry.spec.shape), np.nan, entry.spec.dtype)
            old = [row for row in kept if start <= row < end]
            if old:
                found = read_values(array, slice(start, end), where=f"{self.path}: {entry.key}")
                chunk[np.array(old) - start] = found[np.array(old) - start]
            chunk[data.rows[inside] - start] = data.values[inside]
            write_again_if_swept(partial(array.__setitem__, slice(start, end), chunk))
            name = chunk_name(start // entry.chunk_rows, len(entry.spec.shape))
            checksums[name] = self._flush_chunk(entry, name)
        rows = {*kept, *data.rows.tolist()}
        failed = self._write_ledger(entry, data, rows)
        record = CommitRecord(
            view=data.view,
            array=data.array,
            block=data.block,
            fingerprint=entry.fingerprint,
            rows=tuple(sorted(rows)),
            failed=failed,
            checksums=checksums,
            seconds=round(data.seconds, 3),
            versions=versions,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        write_json(
            self.path / COMMITS_FOLDER / entry.key / f"{data.block}.json",
            record.to_json(),
            durable=True,
        )
        return record

    def sweep_leftovers(self) -> None:
        """Remove what killed processes left, but for chunks, which are swept when written again.

        Blocks may be written meanwhile, and the lock is waited for only where there is need.
        """
        for key in self.description.arrays:
            sweep(self.path / COMMITS_FOLDER / key)
            sweep(self.path / LEDGER_FOLDER / key)
        group = self.path / FEATURES_FOLDER
        views = {group / entry.view for entry in self.description.arrays.values()}
        arrays = {group / key for key in self.description.arrays}
        folders = (self.path, group, *views, *arrays)
        if is_left_behind(self.path) or any(map(partial_files, folders)):
            with setup_lock(self.path):
                for folder in folders:
                    sweep(folder)

    def _entry(self, view: str, array: str) -> ArrayEntry:
        return self.store[f"{view}/{array}"].entry

    def _open(self, key: str) -> zarr.Array:
        return open_array(self.path, key, mode="r+")

    def _create(self, entry: ArrayEntry) -> None:
        group = zarr.open_group(str(self.path / FEATURES_FOLDER), mode="a", zarr_format=3)
        group.require_group(entry.view)
        group.create_array(
            entry.key,
            shape=(self.store.n_rows, *entry.spec.shape),
            dtype=entry.spec.dtype,
            chunks=(entry.chunk_rows, *entry.spec.shape),
            compressors=None,
            filters=None,
            fill_value=float("nan"),
            dimension_names=("image", *entry.spec.axes),
            attributes={"meaning": entry.spec.meaning, "fingerprint": entry.fingerprint},
            config={"write_empty_chunks": True},
            overwrite=True,  # left by a run that stopped before store.json named the array
        )
        self._flush_metadata(entry.key)

    def _flush_metadata(self, key: str) -> None:
        flush(self.path / FEATURES_FOLDER / key / "zarr.json")

    def _flush_chunk(self, entry: ArrayEntry, name: str) -> int:
        """CRC-32C of a chunk as it is on disk, after forcing it there (zarr does not)."""
        path = self.path / FEATURES_FOLDER / entry.key / name
        sweep(path.parent)
        flush(path)
        for folder in path.parents[: len(PurePath(name).parts)]:
            flush(folder)  # each may be new, and its name is kept in the one above
        return google_crc32c.value(path.read_bytes())

    def _write_ledger(self, entry: ArrayEntry, data: BlockData, rows: set[int]) -> tuple[int, ...]:
        """Add this block's failures to its ledger, drop the lines of images that now have rows."""
        path = self.path / LEDGER_FOLDER / entry.key / f"{data.block}.json"
        old = read_ledger(self.path, path) if path.is_file() else []
        lines = dict(zip(self.store.rows_of([x.image_id for x in old]).tolist(), old, strict=True))
        for row, failure in data.failed.items():
            lines[row] = LedgerLine(**asdict(failure), view=entry.view, array=entry.spec.name)
        failed = tuple(sorted(lines.keys() - rows))
        if failed:
            write_json(path, [asdict(lines[row]) for row in failed], durable=True)
        else:
            path.unlink(missing_ok=True)
        return failed


def chunk_name(number: int, row_rank: int) -> str:
    """File name of a chunk below its array: Zarr v3's default key, all other axes whole."""
    return "/".join(["c", str(number), *["0"] * row_rank])


def _write_index(path: Path, image_ids: Sequence[ImageId], rows: NDArray[np.int64]) -> None:
    table = pa.table({"image_id": pa.array(image_ids, pa.string()), "row": pa.array(rows)})
    write_whole(
        path / INDEX_FILE,
        lambda p: pq.write_table(table, p, row_group_size=INDEX_ROW_GROUP),
        durable=True,
    )
