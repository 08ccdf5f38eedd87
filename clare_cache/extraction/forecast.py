"""What an extraction would add to a store, before it begins. Writes nothing."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from clare_cache.store import CommitRecord, Store
from clare_cache.store.schema import BLOCK_ROWS, chunk_of, chunk_rows_for
from clare_cache.types import ArraySpec, ImageId


@dataclass(frozen=True)
class ArrayForecast:
    """One array of one view: images asked for, there, in the ledger and to be made.

    `nbytes` and `n_files` are what making them adds, before compression: chunks and commit records.
    """

    key: str
    row_nbytes: int
    n_asked: int
    n_there: int
    n_failed: int
    n_todo: int
    nbytes: int
    n_files: int


@dataclass(frozen=True)
class Forecast:
    """What is to be done: per array, and for each the images that it lacks."""

    arrays: tuple[ArrayForecast, ...]
    missing: Mapping[str, frozenset[ImageId]]

    @property
    def images(self) -> frozenset[ImageId]:
        """Every image that has to be looked at."""
        return frozenset().union(*self.missing.values())


def forecast(
    store: Store | None,
    images: Collection[ImageId],
    *,
    arrays: Sequence[ArraySpec],
    views: Sequence[str],
    block_rows: int | None = None,
    retry_failed: bool = False,
) -> Forecast:
    """What `extract` would do for these images; None stands for a store that is yet to be made."""
    if store is not None:
        block_rows = store.description.block_rows
    block_rows = block_rows or BLOCK_ROWS
    rows = _rows(store, sorted(images), block_rows)
    found, missing = [], {}
    for view in views:
        for spec in arrays:
            key = f"{view}/{spec.name}"
            records: Mapping[int, CommitRecord] = {}
            stored, chunk_rows = spec, chunk_rows_for(spec, block_rows)
            if store is not None and key in store:
                entry, records = store[key].entry, store[key].records
                stored, chunk_rows = entry.stored, entry.chunk_rows
            one, lacking = _array(
                key,
                stored,
                rows,
                records,
                chunk_rows=chunk_rows,
                block_rows=block_rows,
                retry_failed=retry_failed,
            )
            found.append(one)
            missing[key] = lacking
    return Forecast(tuple(found), missing)


def _rows(store: Store | None, images: Sequence[ImageId], block_rows: int) -> dict[ImageId, int]:
    """The rows that the images have, or would be given."""
    known = [-1] * len(images) if store is None else store.rows_of(images).tolist()
    rows = {image: row for image, row in zip(images, known, strict=True) if row >= 0}
    n_rows = 0 if store is None else store.n_rows
    start = -(-n_rows // block_rows) * block_rows
    new = (image for image in images if image not in rows)
    return rows | {image: start + number for number, image in enumerate(new)}


def _array(
    key: str,
    spec: ArraySpec,
    rows: Mapping[ImageId, int],
    records: Mapping[int, CommitRecord],
    *,
    chunk_rows: int,
    block_rows: int,
    retry_failed: bool,
) -> tuple[ArrayForecast, frozenset[ImageId]]:
    there = _named(record.rows for record in records.values())
    failed = _named(record.failed for record in records.values())
    settled = there if retry_failed else there | failed
    lacking = {image: row for image, row in rows.items() if row not in settled}
    todo = np.array(sorted(lacking.values()), np.int64)
    chunks = set(np.unique(todo // chunk_rows).tolist())
    written = {chunk_of(name) for record in records.values() for name in record.checksums}
    blocks = set(np.unique(todo // block_rows).tolist())
    return (
        ArrayForecast(
            key=key,
            row_nbytes=spec.row_nbytes,
            n_asked=len(rows),
            n_there=sum(row in there for row in rows.values()),
            n_failed=sum(row in failed for row in rows.values()),
            n_todo=len(todo),
            nbytes=len(todo) * spec.row_nbytes,
            n_files=len(chunks - written) + len(blocks - records.keys()),
        ),
        frozenset(lacking),
    )


def _named(groups: Iterable[Iterable[int]]) -> set[int]:
    return {row for rows in groups for row in rows}
