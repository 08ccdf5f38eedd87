"""Open a store read-only: only the arrays asked for, by row or by image id.

Knows nothing of labels, splits or heads. A row exists when a commit record names it; everything
else in the arrays is NaN and is never handed out by image id.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from clare_cache.errors import StoreError
from clare_cache.files import read_json
from clare_cache.store.schema import (
    BLOCK_FILES,
    COMMITS_FOLDER,
    FEATURES_FOLDER,
    INDEX_FILE,
    LEDGER_FOLDER,
    STORE_FILE,
    ArrayEntry,
    CommitRecord,
    LedgerLine,
    StoreDescription,
)
from clare_cache.types import CLEAN, ImageId

_NOT_WHOLE = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading a torn, emptied or foreign file raises."""


def open_store(path: str | Path) -> "Store":
    """The store at `path`, read-only. Raises StoreError when there is none or it is unknown."""
    return Store(Path(path))


class Store:
    """A read-only view of one store: its arrays and images are those of when it was opened.

    Commit records and the ledger are read when first asked for; what was committed since then to
    rows of these images is seen. Rows are never moved, so images added since are the rows from
    `n_rows` on, and are left out.
    """

    def __init__(self, path: Path) -> None:
        if not (path / STORE_FILE).is_file():
            raise StoreError(
                f"store {path}: expected a folder with {STORE_FILE}, found none. "
                "Make one with `clare-cache extract MANIFEST STORE`."
            )
        self.path = path
        try:
            self.description = StoreDescription.from_json(read_json(path / STORE_FILE), str(path))
            self.n_rows = _n_rows(path / INDEX_FILE)
            """Length of every array: one more than the highest row in the index."""
        except (OSError, ValueError, KeyError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> StoreError:
        return StoreError(
            f"store {self.path}: expected whole files {STORE_FILE} and {INDEX_FILE}, found "
            f"{type(error).__name__}: {error}. Restore them, or extract into another store."
        )

    @cached_property
    def _row_of(self) -> dict[ImageId, int]:
        # Read when first asked for: a worker needs the ids of its block alone.
        try:
            index = pq.read_table(self.path / INDEX_FILE, filters=[("row", "<", self.n_rows)])
        except (OSError, ValueError) as error:
            raise self._damaged(error) from error
        return dict(zip(index["image_id"].to_pylist(), index["row"].to_pylist(), strict=True))

    @property
    def image_ids(self) -> list[ImageId]:
        """Every image that has a place, in the order of rows."""
        return list(self._row_of)

    def ids_of_rows(self, rows: Sequence[int]) -> list[ImageId]:
        """The images of these rows, reading only their part of the index."""
        table = pq.read_table(
            self.path / INDEX_FILE, filters=[("row", ">=", min(rows)), ("row", "<=", max(rows))]
        )
        found = dict(zip(table["row"].to_pylist(), table["image_id"].to_pylist(), strict=True))
        return [found[row] for row in rows]

    @property
    def views(self) -> list[str]:
        return sorted({entry.view for entry in self.description.arrays.values()})

    def __contains__(self, key: object) -> bool:
        return key in self.description.arrays

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.description.arrays))

    def __getitem__(self, key: str) -> "ArrayHandle":
        if key not in self.description.arrays:
            raise StoreError(
                f"store {self.path}: array {key} was asked for, found "
                f"{', '.join(self) or 'no array'}. Extract it with `clare-cache extract`."
            )
        return ArrayHandle(self, self.description.arrays[key])

    def rows_of(self, image_ids: Sequence[ImageId]) -> NDArray[np.int64]:
        """(n,) row of each image, −1 for those the store has never heard of."""
        return np.fromiter((self._row_of.get(i, -1) for i in image_ids), np.int64, len(image_ids))

    def ledger(self, view: str | None = None, arrays: Sequence[str] = ()) -> list[LedgerLine]:
        """Images without a row and why, once per array; all views and arrays by default."""
        lines = []
        for entry in self.description.arrays.values():
            if view not in (None, entry.view) or (arrays and entry.spec.name not in arrays):
                continue
            for path in sorted((self.path / LEDGER_FOLDER / entry.key).glob(BLOCK_FILES)):
                lines += read_ledger(self.path, path)
        return lines


class ArrayHandle:
    """One array of one view. `handle[...]` reads like numpy; `by_image_id` refuses absent rows."""

    def __init__(self, store: Store, entry: ArrayEntry) -> None:
        self._store = store
        self.entry = entry

    @property
    def shape(self) -> tuple[int, ...]:
        return (self._store.n_rows, *self.entry.spec.shape)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.entry.spec.dtype)

    @property
    def declared(self) -> Mapping[str, Any]:
        return self.entry.declared

    @property
    def fingerprint(self) -> str:
        return self.entry.fingerprint

    @cached_property
    def array(self) -> zarr.Array:
        """The plain Zarr array."""
        return open_array(self._store.path, self.entry.key, mode="r")

    @cached_property
    def records(self) -> dict[int, CommitRecord]:
        """Commit records by block number."""
        return read_records(self._store.path, self.entry)

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """(n_rows,) true where a commit record names the row."""
        mask = np.zeros(self.shape[0], dtype=bool)
        for record in self.records.values():
            mask[[row for row in record.rows if row < len(mask)]] = True
        return mask

    def __getitem__(self, selection: Any) -> NDArray[Any]:
        return read_values(self.array, selection, where=f"{self._store.path}: {self.entry.key}")

    def read_rows(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(n, *row shape) in the order of `rows`, repeats allowed; every chunk is read once."""
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        # Neighbouring chunks are read together, up to a block; chunks without a row are not read.
        new_block = np.diff(ordered // self._store.description.block_rows) > 0
        gap = np.diff(ordered // self.entry.chunk_rows) > 1
        for part in np.split(np.arange(len(rows)), np.flatnonzero(new_block | gap) + 1):
            if len(part):
                first, last = ordered[part[0]], ordered[part[-1]]
                out[order[part]] = self[int(first) : int(last) + 1][ordered[part] - first]
        return out

    def by_image_id(self, image_ids: Sequence[ImageId]) -> NDArray[Any]:
        """(n, *row shape) in the order of `image_ids`. Raises StoreError naming absent images."""
        rows = self._store.rows_of(image_ids)
        absent = [
            i for i, row in zip(image_ids, rows, strict=True) if row < 0 or not self.present[row]
        ]
        if absent:
            raise StoreError(
                f"store {self._store.path}: {self.entry.key} has no row for {len(absent)} of "
                f"{len(image_ids)} images, the first is {absent[0]}. "
                "See `clare-cache store info --ledger`, or extract them."
            )
        return self.read_rows(rows)


def read_records(store: Path, entry: ArrayEntry) -> dict[int, CommitRecord]:
    """Commit records of one array by block; those of other declared inputs are refused."""
    paths = sorted((store / COMMITS_FOLDER / entry.key).glob(BLOCK_FILES))
    records = [read_record_file(store, entry, path) for path in paths]
    return {record.block: record for record in records}


def read_record(store: Path, entry: ArrayEntry, block: int) -> CommitRecord | None:
    """The commit record of one block, checked as in `read_records`, or None."""
    path = store / COMMITS_FOLDER / entry.key / f"{block}.json"
    return read_record_file(store, entry, path) if path.is_file() else None


def read_record_file(store: Path, entry: ArrayEntry, path: Path) -> CommitRecord:
    """One commit record. Raises StoreError when it is not whole or of other declared inputs."""
    try:
        record = CommitRecord.from_json(read_json(path))
    except _NOT_WHOLE as error:
        raise StoreError(
            f"store {store}: expected a whole commit record {path.relative_to(store)}, found "
            f"{type(error).__name__}: {error}. Remove that file and extract again: its block is "
            "made anew."
        ) from error
    if record.fingerprint != entry.fingerprint:
        raise StoreError(
            f"store {store}: {path.name} of {entry.key} was committed for fingerprint "
            f"{record.fingerprint}, {STORE_FILE} declares {entry.fingerprint}. "
            "Remove that array and extract it again."
        )
    return record


def read_ledger(store: Path, path: Path) -> list[LedgerLine]:
    """The lines of one ledger file. Raises StoreError when it is not whole."""
    try:
        return [LedgerLine(**line) for line in read_json(path)]
    except _NOT_WHOLE as error:
        name = path.relative_to(store)
        record = COMMITS_FOLDER / name.relative_to(LEDGER_FOLDER)
        raise StoreError(
            f"store {store}: expected a whole ledger {name}, found {type(error).__name__}: "
            f"{error}. Remove that file and {record}, and extract again: the block is made anew."
        ) from error


def open_array(store: Path, key: str, *, mode: Literal["r", "r+"]) -> zarr.Array:
    """The Zarr array of a store. Raises StoreError when its description is lost or damaged."""
    try:
        return zarr.open_array(str(store / FEATURES_FOLDER), path=key, mode=mode)
    except _NOT_WHOLE as error:
        raise StoreError(
            f"store {store}: expected a whole {FEATURES_FOLDER}/{key}/zarr.json, found "
            f"{type(error).__name__}: {error}. Restore it, or extract into another store."
        ) from error


def read_values(array: zarr.Array, selection: Any, *, where: str) -> NDArray[Any]:
    """A part of an array. Raises StoreError, beginning with `where`, for chunks of a wrong size."""
    try:
        return np.asarray(array[selection])
    except (OSError, ValueError) as error:
        raise StoreError(
            f"store {where} cannot be read, {type(error).__name__}: {error}. Run `clare-cache "
            "store verify`; a block whose commit record is removed is extracted again."
        ) from error


def features_of(store: Store, view: str = CLEAN) -> dict[str, ArrayEntry]:
    """The arrays of one view by name."""
    return {e.spec.name: e for e in store.description.arrays.values() if e.view == view}


def _n_rows(index: Path) -> int:
    """One more than the highest row, from the file's own statistics where it has them."""
    metadata = pq.read_metadata(index)
    column = metadata.schema.names.index("row")
    groups = [metadata.row_group(i).column(column) for i in range(metadata.num_row_groups)]
    highest = [g.statistics.max for g in groups if g.statistics and g.statistics.has_min_max]
    if len(highest) < len(groups):
        highest = pq.read_table(index, columns=["row"])["row"].to_pylist()
    return 1 + max(highest, default=-1)
