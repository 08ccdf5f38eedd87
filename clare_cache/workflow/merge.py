"""Join stores that were made apart: by array jobs, for other images, for other arrays.

The result does not depend on the order in which the stores are named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clare_cache.errors import StoreError, StoreMismatch, raise_faults
from clare_cache.extraction.request import read_all_requests, write_request
from clare_cache.fingerprint import differences
from clare_cache.store import (
    ArrayEntry,
    ArrayHandle,
    BlockData,
    LedgerLine,
    Place,
    Store,
    StoreWriter,
    create_store,
    open_place,
    open_store,
)
from clare_cache.types import Failure, ImageId, OnProgress, Progress, ignore_progress


@dataclass(frozen=True)
class MergeReport:
    """What a merged store holds, and how many blocks this call wrote (the others were there)."""

    arrays: tuple[str, ...]
    n_images: int
    n_failed: int
    n_blocks: int
    n_written: int
    notes: tuple[str, ...] = ()
    """What to know of: requests that were altered, and are not in it."""


def merge(
    out: str | Path | Place,
    stores: Sequence[str | Path | Place],
    *,
    block_rows: int | None = None,
    on_progress: OnProgress = ignore_progress,
) -> MergeReport:
    """Copy the rows of `stores` into `out`, which is new, or a merge to go on with.

    An image that several stores have is taken from the first of them by name; one that failed in
    one and not in another has its row. Raises StoreMismatch listing every array that was made from
    different inputs, StoreError when `out` is one of the stores.
    """
    places = sorted((open_place(where).resolve() for where in stores), key=str)
    target = open_place(out).resolve()
    if target in places:
        raise StoreError(f"merge into {out}: it is one of the stores. Name a new folder.")
    sources = [open_store(place) for place in places]
    entries = _entries(sources)
    writer = create_store(
        target, block_rows=block_rows or max(s.description.block_rows for s in sources)
    )
    writer.declare([replace(entry, chunk_rows=0) for entry in entries.values()])
    writer.add_images({image for source in sources for image in source.image_ids})
    rows = [writer.store.rows_of(source.image_ids) for source in sources]
    notes = _write_request(writer, sources, rows)
    from_row = [
        _inverse(source, into, writer.store.n_rows)
        for source, into in zip(sources, rows, strict=True)
    ]
    n_blocks = -(-writer.store.n_rows // writer.description.block_rows)
    total, done, n_written = n_blocks * len(entries), 0, 0
    for key in sorted(entries):
        parts = [
            _Part(source[key], back)
            for source, back in zip(sources, from_row, strict=True)
            if key in source
        ]
        ledger = _ledger(writer, sources, key)
        for block in range(n_blocks):
            n_written += _merge_block(writer, writer.store[key].entry, parts, ledger, block)
            done += 1
            on_progress(Progress(what="merge", done=done, total=total, unit="block"))
    merged = open_store(target)
    return MergeReport(
        arrays=tuple(merged),
        n_images=len(merged.image_ids),
        n_failed=len({line.image_id for line in merged.ledger()}),
        n_blocks=total,
        n_written=n_written,
        notes=tuple(notes),
    )


def _entries(sources: Sequence[Store]) -> dict[str, ArrayEntry]:
    """Every array of the stores. Raises StoreMismatch where two say different things of one."""
    entries: dict[str, tuple[Store, ArrayEntry]] = {}
    faults = []
    for source in sources:
        for key in source:
            entry = source[key].entry
            first, known = entries.setdefault(key, (source, entry))
            # As in "asked 200, found 280", with the stores for the words.
            for phrase in differences(known.declared, entry.declared):
                name, _, said = phrase.partition(": asked ")
                one, _, other = said.rpartition(", found ")
                faults.append(f"{key}: {name}: {one} in {first.place}, {other} in {source.place}")
            if known.spec != entry.spec and known.declared == entry.declared:
                faults.append(
                    f"{key}: rows of {known.spec.shape} {known.spec.dtype} in {first.place}, of "
                    f"{entry.spec.shape} {entry.spec.dtype} in {source.place}"
                )
    raise_faults(
        StoreMismatch,
        "merge: the stores were not made from the same inputs",
        faults,
        advice="Prune the arrays that differ, or merge those stores apart.",
    )
    return {key: entry for key, (_, entry) in entries.items()}


@dataclass(frozen=True)
class _Part:
    """One array of one store; `row_of[r]` is its row of the target's row r, or −1."""

    handle: ArrayHandle
    row_of: NDArray[np.int64]


def _inverse(source: Store, into: NDArray[np.int64], n_rows: int) -> NDArray[np.int64]:
    back = np.full(n_rows, -1, np.int64)
    back[into] = source.rows_of(source.image_ids)
    return back


def _write_request(
    writer: StoreWriter, sources: Sequence[Store], rows: Sequence[NDArray[np.int64]]
) -> list[str]:
    """What all of them were asked for, as one request; a note for each that was altered."""
    notes: list[str] = []
    paths: dict[int, set[str]] = {}
    for source, into in zip(sources, rows, strict=True):
        here = dict(zip(source.rows_of(source.image_ids).tolist(), into.tolist(), strict=True))
        for row, found in read_all_requests(source.place, notes).items():
            paths.setdefault(here[row], set()).update(found)
    if paths:
        asked = sorted(paths)
        write_request(
            writer.place, np.array(asked, np.int64), [sorted(paths[row]) for row in asked]
        )
    return notes


def _ledger(writer: StoreWriter, sources: Sequence[Store], key: str) -> dict[int, LedgerLine]:
    """Target row → the line of the first store that has one."""
    view, _, array = key.partition("/")
    lines: dict[ImageId, LedgerLine] = {}
    for source in sources:
        if key in source:
            for line in source.ledger(view, [array]):
                lines.setdefault(line.image_id, line)
    rows = writer.store.rows_of(list(lines)).tolist()
    return dict(zip(rows, lines.values(), strict=True))


def _merge_block(
    writer: StoreWriter,
    entry: ArrayEntry,
    parts: Sequence[_Part],
    ledger: Mapping[int, LedgerLine],
    block: int,
) -> bool:
    """Copy what one block of one array lacks; whether there was anything."""
    first, stop = writer.rows_of_block(block)
    before = writer.record(entry.view, entry.spec.name, block)
    lacking = np.ones(stop - first, bool)
    if before is not None:
        lacking[np.array(before.rows, np.int64) - first] = False
    # As stored: what a lossy codec made once is not to go through it again.
    values = np.empty((stop - first, *entry.stored.shape), entry.stored.dtype)
    taken = np.zeros(stop - first, bool)
    versions: dict[str, set[str]] = {}
    for part in parts:
        rows = part.row_of[first:stop]
        here = (rows >= 0) & lacking & ~taken
        here[here] = part.handle.present[rows[here]]
        if not here.any():
            continue
        values[here] = part.handle.read_stored(rows[here])
        taken |= here
        size = part.handle.block_rows
        for number in np.unique(rows[here] // size).tolist():
            for name, release in part.handle.records[number].versions.items():
                versions.setdefault(name, set()).update(release.split(", "))
    settled = set(before.failed) if before is not None else set()
    failed = {
        row: Failure(line.image_id, line.path, line.stage, line.reason)
        for row, line in ledger.items()
        if first <= row < stop and lacking[row - first] and not taken[row - first]
    }
    if not taken.any() and failed.keys() <= settled:
        return False
    writer.write_block(
        BlockData(
            view=entry.view,
            array=entry.spec.name,
            block=block,
            rows=first + np.flatnonzero(taken),
            values=values[taken],
            failed=failed,
            is_stored=True,
        ),
        versions={name: ", ".join(sorted(found)) for name, found in sorted(versions.items())},
    )
    return True
