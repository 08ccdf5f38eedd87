"""Open a store read-only: only the arrays asked for, by row or by image id.

Knows nothing of labels, splits or heads. A row exists when a commit record names it; everything
else in the arrays is NaN and is never handed out by image id.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray

from clare_cache.errors import StoreError
from clare_cache.files import read_parquet
from clare_cache.store.codecs import codec_of
from clare_cache.store.encode import is_raw
from clare_cache.store.mapped import MappedRows
from clare_cache.store.place import Place, open_place
from clare_cache.store.records import NOT_WHOLE, block_files, block_of, read_ledger, read_records
from clare_cache.store.schema import (
    FEATURES_FOLDER,
    INDEX_FILE,
    LEDGER_FOLDER,
    STORE_FILE,
    ArrayEntry,
    CommitRecord,
    LedgerLine,
    StoreDescription,
    chunk_name,
)
from clare_cache.store.seal import unseal
from clare_cache.types import CLEAN, ImageId

MANY = 50_000
"""From so many images on they are looked up together."""


def open_store(where: str | Path | Place) -> "Store":
    """The store in a folder or at a URL (s3://bucket/path), read-only.

    Raises StoreError when there is none, it is unknown or it cannot be reached.
    """
    return Store(open_place(where))


class Store:
    """A read-only view of one store: its arrays and images are those of when it was opened.

    Commit records and the ledger are read when first asked for; what was committed since then to
    rows of these images is seen. Rows are never moved, so images added since are the rows from
    `n_rows` on, and are left out.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.description = read_description(place)
        try:
            with place.open(INDEX_FILE) as index:
                self.n_rows = _n_rows(index)
            """Length of every array: one more than the highest row in the index."""
        except (OSError, ValueError, KeyError) as error:
            raise _damaged(place, error) from error

    def read_index(self) -> pa.Table:
        """`image_id` and `row` of every image, in the order of rows."""
        try:
            with self.place.open(INDEX_FILE) as file:
                return read_parquet(file, rows=(0, self.n_rows))
        except (OSError, ValueError) as error:
            raise _damaged(self.place, error) from error

    @cached_property
    def _row_of(self) -> dict[ImageId, int]:
        # Read when first asked for: a worker needs the ids of its block alone.
        index = self.read_index()
        return dict(zip(index["image_id"].to_pylist(), index["row"].to_pylist(), strict=True))

    @property
    def image_ids(self) -> list[ImageId]:
        """Every image that has a place, in the order of rows."""
        return list(self._row_of)

    def ids_of_rows(self, rows: Sequence[int]) -> list[ImageId]:
        """The images of these rows, reading only their part of the index."""
        found = {row: i for i, row in self.rows_between(min(rows), max(rows) + 1).items()}
        return [found[row] for row in rows]

    def rows_between(self, first: int, stop: int) -> dict[ImageId, int]:
        """Image → row, of the rows first to stop−1, reading only their part of the index."""
        with self.place.open(INDEX_FILE) as file:
            table = read_parquet(file, rows=(first, stop))
        return dict(zip(table["image_id"].to_pylist(), table["row"].to_pylist(), strict=True))

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
                f"store {self.place}: array {key} was asked for, found "
                f"{', '.join(self) or 'no array'}. Extract it with `clare-cache extract`."
            )
        return ArrayHandle(self, self.description.arrays[key])

    def rows_of(self, image_ids: Sequence[ImageId]) -> NDArray[np.int64]:
        """(n,) row of each image, −1 for those the store has never heard of."""
        if len(image_ids) > MANY and "_row_of" not in self.__dict__:
            # Once, for a whole data set: a dict of millions of ids would take gigabytes.
            index = self.read_index()
            found = pc.index_in(pa.array(image_ids, pa.string()), value_set=index["image_id"])
            rows = np.append(index["row"].to_numpy(), -1)
            return rows[found.fill_null(-1).to_numpy()]
        return np.fromiter((self._row_of.get(i, -1) for i in image_ids), np.int64, len(image_ids))

    def ledger(
        self,
        view: str | None = None,
        arrays: Sequence[str] = (),
        *,
        shard: tuple[int, int] | None = None,
    ) -> list[LedgerLine]:
        """Images without a row and why, once per array; all views and arrays by default. Of a
        `shard` (i, n) those in every n-th block alone."""
        lines = []
        for entry in self.description.arrays.values():
            if view not in (None, entry.view) or (arrays and entry.spec.name not in arrays):
                continue
            for name in block_files(self.place, LEDGER_FOLDER, entry.key):
                if shard is None or block_of(name) % shard[1] == shard[0]:
                    lines += read_ledger(self.place, name)
        return lines


def read_description(place: Place) -> StoreDescription:
    """What `store.json` says. Raises StoreError when there is none or it is not whole."""
    try:
        data = place.read(STORE_FILE)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise StoreError(
            f"store {place}: expected a folder with {STORE_FILE}, found none. "
            "Make one with `clare-cache extract MANIFEST STORE`."
        ) from error
    try:
        description = StoreDescription.from_json(json.loads(data), str(place))
        unseal(data)
    except NOT_WHOLE as error:
        raise _damaged(place, error) from error
    return description


def _damaged(place: Place, error: Exception) -> StoreError:
    return StoreError(
        f"store {place}: expected whole files {STORE_FILE} and {INDEX_FILE}, found "
        f"{type(error).__name__}: {error}. Mend them with `clare-cache store repair`."
    )


class ArrayHandle:
    """One array of one view. `handle[...]` reads like numpy; `by_image_id` refuses absent rows."""

    def __init__(self, store: Store, entry: ArrayEntry) -> None:
        self._store = store
        self.entry = entry

    @property
    def shape(self) -> tuple[int, ...]:
        return (self._store.n_rows, *self.entry.spec.shape)

    @property
    def block_rows(self) -> int:
        return self._store.description.block_rows

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
        return open_array(self._store.place, self.entry.key, mode="r")

    @cached_property
    def records(self) -> dict[int, CommitRecord]:
        """Commit records by block number."""
        return read_records(self._store.place, self.entry)

    @cached_property
    def present(self) -> NDArray[np.bool_]:
        """(n_rows,) true where a commit record names the row."""
        mask = np.zeros(self.shape[0], dtype=bool)
        for record in self.records.values():
            mask[[row for row in record.rows if row < len(mask)]] = True
        return mask

    def __getitem__(self, selection: Any) -> NDArray[Any]:
        return read_values(self._store.place, self.entry, self.array, selection)

    @property
    def is_mapped(self) -> bool:
        """Whether rows are copied straight from chunk files: local, uncompressed, whole pages."""
        return self._mapped is not None

    @cached_property
    def _mapped(self) -> MappedRows | None:
        names = [
            f"{FEATURES_FOLDER}/{self.entry.key}/{chunk_name(n, len(self.entry.stored.shape))}"
            for n in range(-(-self.shape[0] // self.entry.chunk_rows))
        ]
        files = [path for path in map(self._store.place.local, names) if path is not None]
        stored = self.entry.stored
        nbytes = self.entry.chunk_rows * stored.row_nbytes
        if not names or len(files) < len(names) or not MappedRows.can_map(nbytes, len(files)):
            return None
        if not is_raw(self.array, self.entry.chunk_rows):
            return None
        return MappedRows(
            files,
            chunk_rows=self.entry.chunk_rows,
            row_shape=stored.shape,
            dtype=np.dtype(stored.dtype),
        )

    def prepare(self, rows: NDArray[np.int64]) -> None:
        """Let the operating system begin to read what `read_rows` will be asked for, if it can."""
        if self._mapped is not None:
            self._mapped.prepare(rows)

    def read_rows(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """(n, *row shape) in the order of `rows`, repeats allowed; every chunk is read once."""
        return self.entry.unpack(self.read_stored(rows))

    def read_stored(self, rows: NDArray[np.int64], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """As `read_rows`, in the form of the Zarr array: packed, where the codec packs.

        Into `out` where it is given: contiguous, of that shape and dtype.
        """
        stored = self.entry.stored
        if len(rows) and not 0 <= rows.min() <= rows.max() < self.shape[0]:
            wrong = rows[(rows < 0) | (rows >= self.shape[0])][0]
            raise IndexError(f"{self.entry.key}: row {wrong} of {self.shape[0]}")
        if out is None:
            out = np.empty((len(rows), *stored.shape), stored.dtype)
        if self._mapped is not None:
            try:
                self._mapped.take(rows, out)
            except (OSError, ValueError):
                # Too many mappings, or a file that is not whole: Zarr reads it, or says what it is.
                self.__dict__["_mapped"] = None
            else:
                return out
        order = np.argsort(rows, kind="stable")
        ordered = rows[order]
        # Neighbouring chunks are read together, up to a block; chunks without a row are not read.
        new_block = np.diff(ordered // self._store.description.block_rows) > 0
        gap = np.diff(ordered // self.entry.chunk_rows) > 1
        for part in np.split(np.arange(len(rows)), np.flatnonzero(new_block | gap) + 1):
            if len(part):
                first, last = int(ordered[part[0]]), int(ordered[part[-1]])
                found = read_stored(
                    self._store.place, self.entry, self.array, slice(first, last + 1)
                )
                out[order[part]] = found[ordered[part] - first]
        return out

    def by_image_id(self, image_ids: Sequence[ImageId]) -> NDArray[Any]:
        """(n, *row shape) in the order of `image_ids`. Raises StoreError naming absent images."""
        rows = self._store.rows_of(image_ids)
        absent = [
            i for i, row in zip(image_ids, rows, strict=True) if row < 0 or not self.present[row]
        ]
        if absent:
            raise StoreError(
                f"store {self._store.place}: {self.entry.key} has no row for {len(absent)} of "
                f"{len(image_ids)} images, the first is {absent[0]}. "
                "See `clare-cache store info --ledger`, or extract them."
            )
        return self.read_rows(rows)


def open_array(place: Place, key: str, *, mode: Literal["r", "r+"]) -> zarr.Array:
    """The Zarr array of a store. Raises StoreError when its description is lost or damaged."""
    try:
        with place.speaking():
            store = place.zarr_store(FEATURES_FOLDER, read_only=mode == "r")
            return zarr.open_array(store, path=key, mode=mode)
    except NOT_WHOLE as error:
        raise StoreError(
            f"store {place}: expected a whole {FEATURES_FOLDER}/{key}/zarr.json, found "
            f"{type(error).__name__}: {error}. Mend it with `clare-cache store repair`."
        ) from error


def read_values(place: Place, entry: ArrayEntry, array: zarr.Array, selection: Any) -> NDArray[Any]:
    """A part of an array, as values. Raises StoreError for chunks that are not whole."""
    if not codec_of(entry.codec).is_packed:
        return read_stored(place, entry, array, selection)
    images, *rest = selection if isinstance(selection, tuple) else (selection,)
    values = entry.unpack(read_stored(place, entry, array, images))
    return values[(slice(None), *rest)[isinstance(images, int) :]]


def read_stored(place: Place, entry: ArrayEntry, array: zarr.Array, selection: Any) -> NDArray[Any]:
    """A part of the Zarr array itself. Raises StoreError for chunks that are not whole."""
    try:
        with place.speaking():
            return np.asarray(array[selection])
    except (OSError, ValueError, RuntimeError) as error:
        raise StoreError(
            f"store {place}: {entry.key} cannot be read, {type(error).__name__}: {error}. Mend "
            "it with `clare-cache store repair`."
        ) from error


def features_of(store: Store, view: str = CLEAN) -> dict[str, ArrayEntry]:
    """The arrays of one view by name."""
    return {e.spec.name: e for e in store.description.arrays.values() if e.view == view}


def _n_rows(index: BinaryIO) -> int:
    """One more than the highest row, from the file's own statistics where it has them."""
    metadata = pq.read_metadata(index)
    column = metadata.schema.names.index("row")
    groups = [metadata.row_group(i).column(column) for i in range(metadata.num_row_groups)]
    highest = [g.statistics.max for g in groups if g.statistics and g.statistics.has_min_max]
    if len(highest) < len(groups):
        highest = read_parquet(index, columns=["row"])["row"].to_pylist()
    return 1 + max(highest, default=-1)
