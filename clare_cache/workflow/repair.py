"""Mend a damaged store: descriptions from each other, blocks from their images, and nothing else.

For stores that nobody writes to meanwhile.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from clare_cache.errors import StoreError
from clare_cache.extraction.block import Extracted, Pictures, extract_block
from clare_cache.extraction.request import read_all_requests, request_file
from clare_cache.extraction.versions import present_versions
from clare_cache.extraction.work import block_data
from clare_cache.files import read_bytes_at
from clare_cache.manifest import Manifest
from clare_cache.store import (
    ArrayEntry,
    Place,
    Store,
    StoreFault,
    StoreWriter,
    open_place,
    setup_lock,
    verify,
)
from clare_cache.store.check import check_blocks, check_descriptions
from clare_cache.store.finite import are_finite
from clare_cache.store.mend import length_of_arrays, mend_description, mend_index, mend_metadata
from clare_cache.store.reader import read_description
from clare_cache.store.records import read_ledger, read_record
from clare_cache.store.schema import COMMITS_FOLDER, GROUP_FILE, LEDGER_FOLDER, STORE_FILE
from clare_cache.types import ImageId, OnProgress, Progress, ignore_progress
from clare_cache.workflow.again import LoadBackbones, items_of_rows, load_again, paths_of_rows
from clare_cache.workflow.features import paths_by_image


@dataclass(frozen=True)
class RepairReport:
    """What a repair found, what is still damaged afterwards and why, and the images looked at."""

    found: tuple[StoreFault, ...]
    left: tuple[StoreFault, ...]
    reasons: tuple[str, ...]
    n_images: int


def repair(
    where: str | Path | Place,
    *,
    load_backbones: LoadBackbones,
    root: str | Path = ".",
    manifests: Sequence[Manifest] = (),
    batch_size: int = 16,
    workers: int = 2,
    dry_run: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> RepairReport:
    """Mend everything that `verify` finds; healthy blocks are not touched.

    Images are looked for below `root` where the store's requests and `manifests` say. Networks are
    loaded only for arrays with a damaged block. A block that is made again to other bytes (by
    another machine or library) gets a new commit record; one made to the same keeps its own.
    Raises StoreError where there is no store, or its descriptions cannot be put back.
    """
    place = open_place(where)
    if dry_run or not any(map(place.exists, (STORE_FILE, GROUP_FILE))):
        found = verify(place, on_progress=on_progress)  # raises where there is no store to lock
        return RepairReport(tuple(found), tuple(found), (), 0)
    with setup_lock(place):
        found = _mend_descriptions(place, Path(root), manifests)
    records = place.names(COMMITS_FOLDER)
    in_blocks = check_blocks(place, on_progress=on_progress)
    work = _Blocks(Store(place), Path(root), manifests)
    work.mend(
        [fault for fault in in_blocks if fault.key],
        load_backbones,
        batch_size=batch_size,
        workers=workers,
        on_progress=on_progress,
    )
    mended = {(fault.key, fault.block) for fault in in_blocks if fault.block is not None}
    left = [*check_descriptions(place), *check_blocks(place, only=mended)]
    orphans = [fault for fault in in_blocks if fault.kind == "orphan file"]
    if orphans and set(place.names(COMMITS_FOLDER)) - set(records):
        # What was an orphan a moment ago may be a chunk whose record comes next.
        work.reasons.append("orphans: blocks are being committed; call again when that run is done")
        left += orphans
    else:
        for fault in orphans:
            place.delete(fault.where)
    return RepairReport((*found, *in_blocks), tuple(left), tuple(work.reasons), work.n_images)


def _mend_descriptions(place: Place, root: Path, manifests: Sequence[Manifest]) -> list[StoreFault]:
    """Mend what describes the store; the faults that it had. Call it while holding the lock."""
    faults = check_descriptions(place)
    if any(fault.where == STORE_FILE for fault in faults):
        mend_description(place)
        faults = [*faults[:1], *check_descriptions(place)]
    for fault in faults:
        if fault.kind == "damaged array description":
            description = read_description(place)
            mend_metadata(place, description, fault.where, length_of_arrays(place, description))
    if any(fault.kind == "damaged index" for fault in faults):
        mend_index(place, read_description(place), _images_of_rows(place, root, manifests))
    _mend_requests(place, faults, manifests)
    return faults


def _images_of_rows(place: Place, root: Path, manifests: Sequence[Manifest]) -> dict[int, ImageId]:
    """Row → image, by the paths that were asked for: from manifests, the ledger or the files."""
    images = {
        path: image
        for manifest in manifests
        for image, paths in paths_by_image(manifest).items()
        for path in paths
    }
    for name in place.names(LEDGER_FOLDER):
        try:
            lines = read_ledger(place, name)
        except StoreError:
            continue  # mended later
        images |= {line.path: line.image_id for line in lines if line.path not in images}
    found = {}
    for row, paths in read_all_requests(place).items():
        for path in paths:
            if path in images:
                found[row] = images[path]
                continue
            try:
                data = read_bytes_at(root, path)
            except OSError:
                continue  # another of its paths may be there
            found[row] = ImageId(hashlib.sha256(data).hexdigest())
    return found


def _mend_requests(
    place: Place, faults: Sequence[StoreFault], manifests: Sequence[Manifest]
) -> None:
    """Requests are known by their names: what the manifests ask for is written again."""
    damaged = [fault.where for fault in faults if fault.kind == "damaged request"]
    if not damaged:
        return
    store = Store(place)
    for manifest in manifests:
        paths = paths_by_image(manifest)
        rows = store.rows_of(list(paths)).tolist()
        asked = sorted((r, p) for r, p in zip(rows, paths.values(), strict=True) if r >= 0)
        name, data = request_file(np.array([r for r, _ in asked], np.int64), [p for _, p in asked])
        if name in damaged or not place.exists(name):
            place.write(name, data)
    if manifests:  # a damaged one that none of them asked for is replaced by theirs
        for fault in check_descriptions(place):
            if fault.kind == "damaged request":
                place.delete(fault.where)


@dataclass
class _Damage:
    """What one block of one array needs: rows that must get values, rows that may fail, files that
    cannot be read and go before it is written."""

    must: set[int] = field(default_factory=set)
    may_fail: set[int] = field(default_factory=set)
    unreadable: list[str] = field(default_factory=list)

    @property
    def rows(self) -> frozenset[int]:
        return frozenset(self.must | self.may_fail)


class _Blocks:
    """Makes damaged blocks again, one after the other."""

    def __init__(self, store: Store, root: Path, manifests: Sequence[Manifest]) -> None:
        self.store, self.root = store, root
        self.reasons: list[str] = []
        self.n_images = 0
        self._manifests = manifests

    @cached_property
    def _paths(self) -> dict[int, tuple[str, ...]]:
        return paths_of_rows(self.store, self._manifests)

    def mend(
        self,
        faults: Sequence[StoreFault],
        load_backbones: LoadBackbones,
        *,
        batch_size: int,
        workers: int,
        on_progress: OnProgress,
    ) -> None:
        blocks: dict[int, dict[str, _Damage]] = {}
        for fault in faults:
            if fault.block is not None:
                damage = blocks.setdefault(fault.block, {}).setdefault(fault.key, _Damage())
                self._add(damage, fault)
        if not blocks:
            return
        keys = sorted({key for damaged in blocks.values() for key in damaged})
        entries = {key: self.store[key].entry for key in keys}
        backbones = load_again(self.store, entries.values(), load_backbones)
        writer = StoreWriter(self.store.place)
        with ThreadPoolExecutor(max_workers=workers) as pool:
            for done, (block, damaged) in enumerate(sorted(blocks.items()), start=1):
                rows = sorted(frozenset().union(*(d.rows for d in damaged.values())))
                items = items_of_rows(self.store, rows, self._paths)
                if len(items) < len(rows):
                    self.reasons.append(
                        f"block {block}: {len(rows) - len(items)} of {len(rows)} images are named "
                        "by no request; name the manifest with --manifest"
                    )
                    continue
                extracted = extract_block(
                    items,
                    {key: damage.rows for key, damage in damaged.items()},
                    backbones=backbones,
                    look=Pictures(self.root),
                    pool=pool,
                    batch_size=batch_size,
                )
                self.n_images += len(items)
                for key, damage in damaged.items():
                    self._write(writer, block, entries[key], damage, extracted)
                on_progress(Progress(what="repair", done=done, total=len(blocks), unit="block"))

    def _add(self, damage: _Damage, fault: StoreFault) -> None:
        """What mending this fault takes."""
        place, entry, block = self.store.place, self.store[fault.key].entry, fault.block or 0
        if fault.kind == "damaged commit record":
            self._salvage(damage, entry, block)
            damage.unreadable.append(fault.where)
            return
        record = read_record(place, entry, block)
        if record is None:
            return
        if fault.kind == "damaged ledger":
            damage.may_fail |= set(record.failed)
            damage.unreadable.append(fault.where)
            return
        if fault.kind == "non-finite value":
            chunk = int(fault.where.rpartition(" ")[2]) // entry.chunk_rows
        else:
            chunk = int(fault.where.partition(f"{entry.key}/c/")[2].partition("/")[0])
        damage.must |= {row for row in record.rows if row // entry.chunk_rows == chunk}

    def _salvage(self, damage: _Damage, entry: ArrayEntry, block: int) -> None:
        """The rows of a block whose record is lost: those with values, and those in its ledger."""
        writer = StoreWriter(self.store.place)
        first, stop = writer.rows_of_block(block)
        ledger = f"{LEDGER_FOLDER}/{entry.key}/{block}.json"
        try:
            values = self.store[entry.key][first:stop]
            lines = read_ledger(self.store.place, ledger)
            failed = set(self.store.rows_of([line.image_id for line in lines]).tolist())
        except FileNotFoundError:
            failed = set()
        except StoreError:
            # Neither can be trusted: everything that was asked for.
            damage.may_fail |= {row for row in self._paths if first <= row < stop}
            damage.unreadable.append(ledger)
            return
        there = first + np.flatnonzero(are_finite(values))
        damage.must |= set(there.tolist()) - failed
        damage.may_fail |= failed

    def _write(
        self,
        writer: StoreWriter,
        block: int,
        entry: ArrayEntry,
        damage: _Damage,
        extracted: Extracted,
    ) -> None:
        failures = extracted.failures[entry.key]
        lost = [failures[row] for row in sorted(damage.must) if row in failures]
        if lost:
            self.reasons.append(
                f"block {block} of {entry.key}: {len(lost)} of {len(damage.must)} images cannot be "
                f"looked at again, the first is {lost[0].path} ({lost[0].stage}: {lost[0].reason})"
            )
            return
        for name in damage.unreadable:
            writer.place.delete(name)
        writer.write_block(block_data(entry, block, extracted), versions=present_versions())
