"""Create, extend and fill a store, one block at a time.

Rows are handed out once and never move. Images added together are sorted by id: a SHA-256 order
is a random order, so a chunk is as mixed as a full shuffle, and every process that adds the same
images gives them the same rows. A later batch of images starts at the next block, because a
block has one writer. Data first, then the ledger, then the commit record: a block without a
record never happened.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from clare_cache.errors import StoreError, StoreMismatch
from clare_cache.files import is_partial, json_bytes
from clare_cache.fingerprint import differences
from clare_cache.store.encode import encode_chunk
from clare_cache.store.finite import are_finite
from clare_cache.store.lock import LOCK_FILE, is_left_behind, setup_lock
from clare_cache.store.metadata import array_metadata, group_metadata, index_file
from clare_cache.store.place import Place, open_place, sweep
from clare_cache.store.reader import Store, open_array, read_stored
from clare_cache.store.records import each_record, read_ledger, read_record, read_records
from clare_cache.store.schema import (
    BLOCK_ROWS,
    COMMITS_FOLDER,
    FEATURES_FOLDER,
    GROUP_FILE,
    INDEX_FILE,
    LEDGER_FOLDER,
    STORE_FILE,
    ArrayEntry,
    CommitRecord,
    LedgerLine,
    StoreDescription,
    chunk_name,
    chunk_rows_for,
)
from clare_cache.store.seal import sealed
from clare_cache.types import Failure, ImageId

VIEW_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class BlockData:
    """What one block of one array gains: `values[i]` is row `rows[i]`; the rest failed.

    `is_stored` values are in the form of the Zarr array already, as `read_stored` gives them.
    """

    view: str
    array: str
    block: int
    rows: NDArray[np.int64]
    values: NDArray[np.generic]
    failed: Mapping[int, Failure] = field(default_factory=dict)
    seconds: float = 0.0
    is_stored: bool = False


def create_store(where: str | Path | Place, *, block_rows: int = BLOCK_ROWS) -> "StoreWriter":
    """An empty store at `where`, or the one already there. Raises StoreError for other folders."""
    place = open_place(where)
    if place.exists(STORE_FILE):
        return StoreWriter(place)
    _refuse_other_files(place)
    with setup_lock(place):
        if place.exists(STORE_FILE):
            return StoreWriter(place)  # made while this process waited
        files = {
            INDEX_FILE: index_file([], np.empty(0, np.int64)),
            GROUP_FILE: group_metadata({"block_rows": block_rows}),
        }
        for name, data in files.items():
            place.write(name, data)
        description = StoreDescription(block_rows=block_rows, checksums=checksums_of(files))
        place.write(STORE_FILE, sealed(description.to_json()))
    return StoreWriter(place)


def checksums_of(files: Mapping[str, bytes]) -> dict[str, tuple[int, ...]]:
    """What `store.json` says of these files, by name."""
    return {name: (google_crc32c.value(data),) for name, data in files.items()}


def _refuse_other_files(place: Place) -> None:
    # Without store.json, these are what an interrupted `create_store` leaves.
    begun = {INDEX_FILE, FEATURES_FOLDER, LOCK_FILE}
    try:
        # One listing: what another process is making is gone by the next.
        others = {name for name in place.children() if not is_partial(Path(name))}
    except NotADirectoryError:
        others = {str(place)}
    # A store that another process finished after this one looked for it is no other file.
    if not begun.issuperset(others) and not place.exists(STORE_FILE):
        raise StoreError(
            f"store {place}: expected a store or an empty folder, found other files and no "
            f"{STORE_FILE}. Name another folder."
        )


class StoreWriter:
    """The one way to change a store. Cheap to open; workers open their own.

    What concerns the whole store (images, arrays) is changed under the setup lock, starting from
    what is on disk then: processes may do it at the same time.
    """

    def __init__(self, where: str | Path | Place) -> None:
        self.place = open_place(where)
        self._reload()

    def _reload(self) -> None:
        self.store = Store(self.place)
        self.description = self.store.description

    def add_images(self, image_ids: Iterable[ImageId]) -> int:
        """Give rows to the images that have none; the number of new rows."""
        asked = list(image_ids)
        if not self._unknown(asked) and not self._is_being_replaced:
            return 0  # rows never go away: no need to wait for the lock
        with setup_lock(self.place):
            self._reload()
            self._settle()
            return self._add(self._unknown(asked))

    def _unknown(self, image_ids: Sequence[ImageId]) -> set[ImageId]:
        rows = self.store.rows_of(image_ids)
        return {image_ids[position] for position in np.flatnonzero(rows < 0).tolist()}

    def _add(self, new: Collection[ImageId]) -> int:
        if not new:
            return 0
        block_rows = self.description.block_rows
        start = -(-self.store.n_rows // block_rows) * block_rows
        known = self.store.read_index()
        rows = np.concatenate([known["row"].to_numpy(), np.arange(start, start + len(new))])
        image_ids = [*known["image_id"].to_pylist(), *sorted(new)]
        # Arrays first: an index that points past an array's end would be a broken store.
        files = {
            metadata_name(key): array_metadata(entry, start + len(new))
            for key, entry in self.description.arrays.items()
        }
        self._replace({**files, INDEX_FILE: index_file(image_ids, rows)})
        return len(new)

    def _replace(self, files: Mapping[str, bytes]) -> None:
        """Replace described files, in this order; `store.json` fits them at any moment."""
        before, after = self.description.checksums, checksums_of(files)
        both = {name: (*before.get(name, ()), *after[name]) for name in files}
        self._describe(replace(self.description, checksums={**before, **both}))
        for name, data in files.items():
            self.place.write(name, data)
        self._describe(replace(self.description, checksums={**before, **after}))
        self._reload()

    @property
    def _is_being_replaced(self) -> bool:
        return any(len(found) > 1 for found in self.description.checksums.values())

    def _settle(self) -> None:
        """Forget what a killed `_replace` was about to do; call it while holding the lock."""
        if self._is_being_replaced:
            files = {name: self.place.read(name) for name in self.description.checksums}
            self._describe(replace(self.description, checksums=checksums_of(files)))

    def _describe(self, description: StoreDescription) -> None:
        self.place.write(STORE_FILE, sealed(description.to_json()))
        self.description = description

    def declare(self, entries: Sequence[ArrayEntry]) -> None:
        """Create the arrays that are absent; hold those that exist to their declared inputs.

        Raises StoreMismatch listing, for every array, each declared input that differs.
        """
        self._refuse_others(entries)
        if all(entry.key in self.description.arrays for entry in entries):
            return  # arrays never go away: no need to wait for the lock
        with setup_lock(self.place):
            self._reload()
            self._settle()
            self._refuse_others(entries)
            arrays, files = dict(self.description.arrays), dict[str, bytes]()
            for entry in entries:
                if entry.key not in arrays:
                    chunk_rows = chunk_rows_for(entry.stored, self.description.block_rows)
                    arrays[entry.key] = replace(entry, chunk_rows=chunk_rows)
                    files[metadata_name(entry.view)] = group_metadata({})
                    files[metadata_name(entry.key)] = array_metadata(
                        arrays[entry.key], self.store.n_rows
                    )
            # Over what a run left that stopped before store.json named the arrays.
            for name, data in files.items():
                self.place.write(name, data)
            checksums = {**self.description.checksums, **checksums_of(files)}
            self._describe(replace(self.description, arrays=arrays, checksums=checksums))
            self._reload()

    def _refuse_others(self, entries: Sequence[ArrayEntry]) -> None:
        sentences = []
        for entry in entries:
            if not VIEW_NAME.fullmatch(entry.view):
                raise StoreError(
                    f"store {self.place}: a view is named with a-z, 0-9, '.', '_' and '-', "
                    f"found {entry.view!r}."
                )
            if found := self.description.arrays.get(entry.key):
                sentences += [
                    f"  - {entry.key}: {phrase}"
                    for phrase in differences(entry.declared, found.declared)
                ]
        if sentences:
            raise StoreMismatch(
                f"store {self.place}: it was made from other inputs than asked for now\n"
                + "\n".join(sentences)
                + "\nExtract into another store, or ask for what this one holds."
            )

    def records(self, view: str, array: str) -> dict[int, CommitRecord]:
        """Commit records of one array by block, as they are on disk now."""
        return read_records(self.place, self._entry(view, array))

    def each_record(
        self, view: str, array: str, blocks: Iterable[int] | None = None
    ) -> Iterator[CommitRecord]:
        """The same one at a time; of these blocks alone, if they are named."""
        return each_record(self.place, self._entry(view, array), blocks)

    def record(self, view: str, array: str, block: int) -> CommitRecord | None:
        """The commit record of one block, as it is on disk now."""
        return read_record(self.place, self._entry(view, array), block)

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
                f"store {self.place}: block {data.block} holds rows {first} to {stop - 1}, "
                f"was given row {outside[0]}."
            )
        if not are_finite(data.values).all():
            raise StoreError(
                f"store {self.place}: block {data.block} of {entry.key} was given non-finite "
                "values; such images belong in the ledger."
            )
        before = read_record(self.place, entry, data.block)
        array = open_array(self.place, entry.key, mode="r")
        kept = sorted(set(before.rows if before else ()) - set(data.rows.tolist()))
        checksums = dict(before.checksums) if before else {}
        for start in range(first, stop, entry.chunk_rows):
            end = min(start + entry.chunk_rows, stop)
            inside = (data.rows >= start) & (data.rows < end)
            if not inside.any():
                continue
            chunk = np.full((end - start, *array.shape[1:]), array.fill_value, array.dtype)
            old = [row for row in kept if start <= row < end]
            if old:
                found = read_stored(self.place, entry, array, slice(start, end))
                chunk[np.array(old) - start] = found[np.array(old) - start]
            new = data.values[inside]
            chunk[data.rows[inside] - start] = new if data.is_stored else entry.pack(new)
            encoded = encode_chunk(array, chunk)
            name = chunk_name(start // entry.chunk_rows, len(entry.stored.shape))
            self.place.write(f"{FEATURES_FOLDER}/{entry.key}/{name}", encoded)
            sweep(self.place, f"{FEATURES_FOLDER}/{entry.key}/{name.rpartition('/')[0]}")
            checksums[name] = google_crc32c.value(encoded)
        rows = {*kept, *data.rows.tolist()}
        failed, ledger = self._write_ledger(entry, data, rows)
        record = CommitRecord(
            view=data.view,
            array=data.array,
            block=data.block,
            fingerprint=entry.fingerprint,
            rows=tuple(sorted(rows)),
            failed=failed,
            checksums=checksums,
            ledger=ledger,
            seconds=round(data.seconds, 3),
            versions=versions,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if before is not None and _is_same(record, before):
            return before  # mended or made twice: the record keeps its time
        self.place.write(
            f"{COMMITS_FOLDER}/{entry.key}/{data.block}.json", sealed(record.to_json())
        )
        return record

    def sweep_leftovers(self) -> None:
        """Remove what killed processes left, but for chunks, which are swept when written again.

        Blocks may be written meanwhile, and the lock is waited for only where there is need.
        """
        for key in self.description.arrays:
            sweep(self.place, f"{COMMITS_FOLDER}/{key}")
            sweep(self.place, f"{LEDGER_FOLDER}/{key}")
        inside = {e.view for e in self.description.arrays.values()} | set(self.description.arrays)
        folders = ["", FEATURES_FOLDER, *(f"{FEATURES_FOLDER}/{name}" for name in inside)]
        if is_left_behind(self.place) or any(map(self.place.partials, folders)):
            with setup_lock(self.place):
                for folder in folders:
                    sweep(self.place, folder)

    def _entry(self, view: str, array: str) -> ArrayEntry:
        return self.store[f"{view}/{array}"].entry

    def _write_ledger(
        self, entry: ArrayEntry, data: BlockData, rows: set[int]
    ) -> tuple[tuple[int, ...], int | None]:
        """Add this block's failures to its ledger, drop the lines of images that now have rows.

        The rows in it, and the CRC-32C of the file.
        """
        name = f"{LEDGER_FOLDER}/{entry.key}/{data.block}.json"
        old = read_ledger(self.place, name) if self.place.exists(name) else []
        row_of = self.store.rows_between(*self.rows_of_block(data.block)) if old else {}
        lines = {row_of[line.image_id]: line for line in old}
        for row, failure in data.failed.items():
            lines[row] = LedgerLine(**asdict(failure), view=entry.view, array=entry.spec.name)
        failed = tuple(sorted(lines.keys() - rows))
        if not failed:
            self.place.delete(name)
            return (), None
        content = json_bytes([asdict(lines[row]) for row in failed])
        self.place.write(name, content)
        return failed, google_crc32c.value(content)


def _is_same(record: CommitRecord, before: CommitRecord) -> bool:
    """Whether two records of a block say the same of its bytes."""
    return record == replace(
        before,
        seconds=record.seconds,
        versions=record.versions,
        finished_at=record.finished_at,
    )


def metadata_name(key: str) -> str:
    """The file that describes a view or an array."""
    return f"{FEATURES_FOLDER}/{key}/zarr.json"
