"""What a worker does with a block number: find what is missing, make it, commit it.

A `BlockWork` is small and picklable; networks are loaded once per process, at the first block.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Protocol
from weakref import WeakKeyDictionary

import numpy as np

from clare_cache.backbones import NOWHERE, load_backbones
from clare_cache.backbones.config import ClipConfig, ErrorMapConfig
from clare_cache.backbones.protocol import Backbone
from clare_cache.extraction.block import Extracted, extract_block
from clare_cache.extraction.decoding import DecodeIn, Item, Look, Pictures, open_pool
from clare_cache.extraction.fitting import SMALLEST_BATCH, choose_batch_size
from clare_cache.extraction.latents import read_latents
from clare_cache.extraction.plan import BlockTask, plan_blocks
from clare_cache.extraction.request import read_request
from clare_cache.extraction.versions import present_versions
from clare_cache.store import ArrayEntry, BlockData, CommitRecord, Place, Store, StoreWriter
from clare_cache.types import ArraySpec

_COMPUTING = threading.Lock()

OnImages = Callable[[int], None]


def ignore_images(count: int) -> None:
    """The callback for those who do not watch."""


class BackboneSource(Protocol):
    """Where a worker gets its backbones. Equal sources are loaded once per process."""

    def load(self) -> Sequence[Backbone]: ...


@dataclass(frozen=True)
class BackboneSpec:
    """Names of weights and settings: what `load_backbones` takes. Small and picklable."""

    sd: str | None
    clip: str | None
    features: tuple[str, ...]
    error_map: ErrorMapConfig
    image_tower: ClipConfig
    device: str = "auto"
    from_latents: bool = False
    compiled: bool = False

    def load(self) -> Sequence[Backbone]:
        return _load_once(self)

    def outline(self) -> Sequence[Backbone]:
        """Backbones that can be asked what they make, and are not loaded for that."""
        return load_backbones(**_asked(replace(self, device=NOWHERE, compiled=False)))


def _asked(spec: BackboneSpec) -> dict[str, Any]:
    return {
        "sd": spec.sd,
        "clip": spec.clip,
        "features": spec.features,
        "error_map": spec.error_map,
        "clip_config": spec.image_tower,
        "device": spec.device,
        "from_latents": spec.from_latents,
        "compiled": spec.compiled,
    }


@lru_cache(maxsize=1)
def _load_once(spec: BackboneSpec) -> Sequence[Backbone]:
    return load_backbones(**_asked(spec))


@dataclass(frozen=True, eq=False)
class LoadedBackbones:
    """Backbones that are already here. For this process only: they do not travel."""

    backbones: Sequence[Backbone]

    def load(self) -> Sequence[Backbone]:
        return self.backbones


@dataclass(frozen=True)
class Described:
    """One array that the backbones make, as a small record: what a store declares of it."""

    spec: ArraySpec
    declared: Mapping[str, Any]
    source: str


def describe(source: BackboneSource) -> dict[str, Described]:
    """Every array that the backbones make, by name; without loading networks, where that goes."""
    backbones = source.outline() if isinstance(source, BackboneSpec) else source.load()
    return {
        spec.name: Described(spec, dict(backbone.declared(spec.name)), backbone.source)
        for backbone in backbones
        for spec in backbone.arrays
    }


def load_networks(source: BackboneSource) -> None:
    """Load them now, so that the first block does not have to; nothing where that is done."""
    source.load()


@dataclass(frozen=True)
class BlockReport:
    """The small record that comes back from a block. `seconds` is where its time went, waiting
    included, and `beside` what was worked meanwhile beside the networks (decode, write). `notes`
    is what the user should hear."""

    block: int
    n_images: int
    n_decoded: int
    seconds: Mapping[str, float]
    beside: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Made:
    """A block that was computed and is not in the store yet."""

    writer: StoreWriter
    task: BlockTask
    extracted: Extracted


@dataclass(frozen=True, eq=False)
class BlockWork:
    """Everything that a worker must know to do any block of a call."""

    store: Place
    request: str
    root: Path
    views: tuple[str, ...]
    features: tuple[str, ...]
    backbones: BackboneSource
    batch_size: int | Literal["auto"]
    workers: int
    retry_failed: bool = False
    from_latents: bool = False
    decode_in: DecodeIn = "threads"

    def __call__(self, block: int, on_images: OnImages = ignore_images) -> BlockReport:
        """Make and commit what block `block` lacks now; nothing if another run was faster.

        Threads of one process make one block at a time, for networks are not safe to share; with
        two threads one writes while the other computes.
        """
        with _COMPUTING:
            made = self.make(block, on_images)
        return self.commit(made)

    def make(self, block: int, on_images: OnImages = ignore_images) -> Made:
        """Compute what block `block` lacks now; the store is only read."""
        writer = StoreWriter(self.store)
        first, stop = writer.rows_of_block(block)
        paths = read_request(self.store, self.request, first=first, stop=stop)
        settled = {
            f"{view}/{array}": settled_rows(
                writer.record(view, array, block), retry_failed=self.retry_failed
            )
            for view in self.views
            for array in self.features
        }
        tasks = plan_blocks(
            list(paths),
            block_rows=writer.description.block_rows,
            settled=settled,
        )
        if not tasks:
            return Made(writer, BlockTask(block, {}), Extracted({}, {}, n_decoded=0))
        (task,) = tasks
        image_ids = writer.store.ids_of_rows(task.rows)
        items = [
            Item(row=row, image_id=image_id, paths=paths[row])
            for row, image_id in zip(task.rows, image_ids, strict=True)
        ]
        backbones = self.backbones.load()
        # Latents are only looked up: no process is worth that.
        kind: DecodeIn = "threads" if self.from_latents else self.decode_in
        with open_pool(kind, self.workers) as pool:
            extracted = extract_block(
                items,
                {array: frozenset(rows) for array, rows in task.missing.items()},
                backbones=backbones,
                look=self._look(writer.store, items),
                pool=pool,
                batch_size=self._batch_size(backbones),
                on_images=on_images,
            )
        if self.batch_size == "auto" and backbones and backbones[0].largest_batch > SMALLEST_BATCH:
            told = f"batches of {self._batch_size(backbones)} images, found by trial"
            extracted = replace(extracted, notes=(told, *extracted.notes))
        return Made(writer, task, extracted)

    def commit(self, made: Made) -> BlockReport:
        """Write every array of a block, each with its own ledger and commit record."""
        began = time.perf_counter()
        for key in made.task.missing:
            data = block_data(made.writer.store[key].entry, made.task.block, made.extracted)
            made.writer.write_block(data, versions=present_versions())
        wrote = {"write": time.perf_counter() - began}
        return BlockReport(
            block=made.task.block,
            n_images=len(made.task.rows),
            n_decoded=made.extracted.n_decoded,
            seconds={**made.extracted.seconds, **wrote},
            beside={**made.extracted.beside, **wrote},
            notes=made.extracted.notes,
        )

    def _batch_size(self, backbones: Sequence[Backbone]) -> int:
        if self.batch_size != "auto":
            return self.batch_size
        if not backbones:
            return SMALLEST_BATCH
        if backbones[0] not in _chosen:
            _chosen[backbones[0]] = choose_batch_size(backbones, self.features)
        return _chosen[backbones[0]]

    def _look(self, store: Store, items: Sequence[Item]) -> Look:
        if self.from_latents:
            return read_latents(store, self.views, items)
        return Pictures(self.root)


_chosen: WeakKeyDictionary[Backbone, int] = WeakKeyDictionary()
"""The batch size that was tried out for these backbones, by the first of them."""


def settled_rows(record: CommitRecord | None, *, retry_failed: bool) -> tuple[int, ...]:
    """Rows that need no work: those with data and, unless they are retried, those that failed."""
    if record is None:
        return ()
    return record.rows if retry_failed else (*record.rows, *record.failed)


def block_data(entry: ArrayEntry, block: int, extracted: Extracted) -> BlockData:
    """What a block gave of one array, as the store takes it."""
    values = extracted.values[entry.key]
    rows = sorted(values)
    stacked = np.empty((len(rows), *entry.spec.shape), entry.spec.dtype)
    for position, row in enumerate(rows):
        stacked[position] = values[row]
    return BlockData(
        view=entry.view,
        array=entry.spec.name,
        block=block,
        rows=np.array(rows, np.int64),
        values=stacked,
        failed=extracted.failures[entry.key],
        seconds=sum(extracted.seconds.values()),
    )
