"""Run stage one: plan the missing blocks, hand them to an executor, gather small records.

Tensors never pass through here: a block is computed, written and committed where it was handed
to. The in-process executor is the only one so far; others implement `Executor`.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import numpy as np

from clare_cache.backbones.protocol import Backbone
from clare_cache.errors import ExtractError
from clare_cache.extraction.block import Extracted, Item, extract_block
from clare_cache.extraction.plan import BlockTask, plan_blocks
from clare_cache.images import decoder_versions
from clare_cache.store import (
    ArrayEntry,
    BlockData,
    LedgerLine,
    StoreWriter,
    create_store,
    open_store,
)
from clare_cache.types import CLEAN, ImageId, OnProgress, Progress, ignore_progress

ROOT_SAMPLE = 64
"""So many images are looked for before the first block, to notice a wrong root."""

RECORDED_VERSIONS = (
    "clare-cache",
    "diffusers",
    "numpy",
    "open_clip_torch",
    "torch",
    "transformers",
    "zarr",
)


@dataclass(frozen=True)
class BlockReport:
    """The small record that comes back from a block."""

    block: int
    n_images: int
    n_decoded: int
    seconds: Mapping[str, float]


Work = Callable[[BlockTask], BlockReport]


class Executor(Protocol):
    """Where blocks are done. Every task is done exactly once; reports come in any order."""

    def run(self, work: Work, tasks: Sequence[BlockTask]) -> Iterator[BlockReport]: ...


class InProcess:
    """One block after the other, here."""

    def run(self, work: Work, tasks: Sequence[BlockTask]) -> Iterator[BlockReport]:
        yield from map(work, tasks)


@dataclass(frozen=True)
class ExtractReport:
    """What a call of `extract_features` did.

    `seconds` has the whole ("total") and its parts: decode (waiting for pictures), one entry per
    backbone, write. `failures` are the asked-for images in the ledger, of this call or earlier.
    """

    store: Path
    n_images: int
    n_settled_before: int
    n_decoded: int
    failures: tuple[LedgerLine, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def n_failed(self) -> int:
        return len({line.image_id for line in self.failures})

    @property
    def images_per_second(self) -> float:
        """Decoded images per second of the whole call."""
        return self.n_decoded / self.seconds["total"]


def extract_features(
    store: str | Path,
    images: Mapping[ImageId, Sequence[str]],
    *,
    root: str | Path,
    backbones: Sequence[Backbone],
    features: Sequence[str],
    view: str = CLEAN,
    batch_size: int = 16,
    workers: int = 2,
    block_rows: int | None = None,
    retry_failed: bool = False,
    executor: Executor | None = None,
    on_progress: OnProgress = ignore_progress,
) -> ExtractReport:
    """Make the `features` that the store lacks for `images` (id → paths below `root`).

    A block is committed as a whole, so an interrupt costs at most the block in work; calling
    again does what is missing and nothing else. Images in the ledger count as done unless
    `retry_failed`. Raises StoreMismatch when the store was made from other inputs, ExtractError
    when no backbone makes a feature or `root` is not the folder of the images.
    """
    began = time.perf_counter()
    makers = {spec.name: (b, spec) for b in backbones for spec in b.arrays}
    if unknown := [name for name in features if name not in makers]:
        raise ExtractError(
            f"extract: features {', '.join(unknown)} were asked for, the backbones make "
            f"{', '.join(makers)}. Correct --features."
        )
    writer = create_store(store, **({} if block_rows is None else {"block_rows": block_rows}))
    writer.declare(
        [
            ArrayEntry(
                view=view,
                spec=makers[name][1],
                chunk_rows=0,
                declared=makers[name][0].declared(name),
                source=makers[name][0].source,
            )
            for name in features
        ]
    )
    writer.add_images(images)
    asked = writer.store.rows_of(list(images)).tolist()
    items = {
        row: Item(row=row, image_id=image_id, paths=tuple(paths))
        for row, (image_id, paths) in zip(asked, images.items(), strict=True)
    }
    tasks = plan_blocks(
        asked,
        view=view,
        block_rows=writer.description.block_rows,
        settled={
            name: _settled(writer, view, name, retry_failed=retry_failed) for name in features
        },
    )
    if tasks:
        _refuse_wrong_root(Path(root), list(items.values()))
    n_todo = sum(len(task.rows) for task in tasks)
    done = 0

    def on_images(count: int) -> None:
        nonlocal done
        done += count
        on_progress(Progress(what="extract", done=done, total=n_todo, unit="image"))

    versions = {name: version(name) for name in RECORDED_VERSIONS} | decoder_versions()
    with ThreadPoolExecutor(max_workers=workers) as pool:

        def work(task: BlockTask) -> BlockReport:
            extracted = extract_block(
                [items[row] for row in task.rows],
                {array: frozenset(rows) for array, rows in task.missing.items()},
                backbones=backbones,
                root=Path(root),
                pool=pool,
                batch_size=batch_size,
                on_images=on_images,
            )
            return _commit(writer, task, extracted, versions=versions)

        reports = list((executor or InProcess()).run(work, tasks))
    seconds = Counter({"total": time.perf_counter() - began})
    for report in reports:
        seconds.update(report.seconds)
    return ExtractReport(
        store=Path(store),
        n_images=len(items),
        n_settled_before=len(items) - n_todo,
        n_decoded=sum(report.n_decoded for report in reports),
        failures=_failures(Path(store), view, features, images),
        seconds=dict(seconds),
    )


def _settled(writer: StoreWriter, view: str, array: str, *, retry_failed: bool) -> set[int]:
    records = writer.records(view, array).values()
    return {
        row
        for record in records
        for row in (record.rows if retry_failed else (*record.rows, *record.failed))
    }


def _refuse_wrong_root(root: Path, items: Sequence[Item]) -> None:
    """Stop before a mistyped folder sends every image of the manifest to the ledger."""
    step = -(-len(items) // ROOT_SAMPLE)
    sample = items[::step]
    if not any((root / path).exists() for item in sample for path in item.paths):
        raise ExtractError(
            f"extract: {len(items)} images were asked for below {root}, of {len(sample)} tried "
            f"none is there, for example {sample[0].paths[0]}. Correct --root."
        )


def _commit(
    writer: StoreWriter, task: BlockTask, extracted: Extracted, *, versions: Mapping[str, str]
) -> BlockReport:
    """Write every array of a block, each with its own ledger and commit record."""
    began = time.perf_counter()
    for array in task.missing:
        values = extracted.values[array]
        rows = sorted(values)
        spec = writer.store[f"{task.view}/{array}"].entry.spec
        stacked = (
            np.stack([values[row] for row in rows])
            if rows
            else np.empty((0, *spec.shape), spec.dtype)
        )
        writer.write_block(
            BlockData(
                view=task.view,
                array=array,
                block=task.block,
                rows=np.array(rows, np.int64),
                values=stacked.astype(spec.dtype, copy=False),
                failed=extracted.failures[array],
                seconds=sum(extracted.seconds.values()),
            ),
            versions=versions,
        )
    seconds = {**extracted.seconds, "write": time.perf_counter() - began}
    return BlockReport(
        block=task.block,
        n_images=len(task.rows),
        n_decoded=extracted.n_decoded,
        seconds=seconds,
    )


def _failures(
    store: Path, view: str, features: Sequence[str], images: Iterable[ImageId]
) -> tuple[LedgerLine, ...]:
    asked = set(images)
    lines = open_store(store).ledger(view, features)
    return tuple(line for line in lines if line.image_id in asked)
