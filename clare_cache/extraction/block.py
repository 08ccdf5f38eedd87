"""One block of images → arrays and failures. Pure but for the files and backbones it is given.

An image is read and decoded once, whatever the number of backbones; the next batch is decoded
while the networks look at the present one. Memory is bounded by the block, never by the data set.
"""

import hashlib
import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from clare_cache.backbones.protocol import Backbone
from clare_cache.errors import ImageError
from clare_cache.files import read_bytes_at
from clare_cache.images import View, decode, find_view
from clare_cache.types import Failure, ImageId, Pixels


@dataclass(frozen=True)
class Item:
    """An image to be looked at: its row in the store and where its bytes may lie."""

    row: int
    image_id: ImageId
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Extracted:
    """What a block gave. `values["<view>/<array>"]` maps row → one row of that array, in stored
    dtype; `failures` likewise row → why there is none. `seconds` is where the time of the block
    went, and `beside` what other threads worked meanwhile."""

    values: Mapping[str, Mapping[int, NDArray[np.generic]]]
    failures: Mapping[str, Mapping[int, Failure]]
    n_decoded: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    beside: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One backbone on one view: the arrays to make, and the rows that lack any of them."""

    view: View
    backbone: Backbone
    arrays: tuple[str, ...]
    rows: frozenset[int]


Prepared = Mapping[str, list[Pixels] | list[NDArray[np.generic]] | Failure]
"""View → the picture prepared for each backbone of that view's jobs, in their order."""


class Look(Protocol):
    """How an image becomes what the backbones are shown, in each view."""

    def __call__(self, item: Item, jobs: Mapping[str, Sequence[Job]]) -> Prepared | Failure: ...


@dataclass(frozen=True)
class Pictures:
    """Image files below `root`: read, checked and decoded once for all views and backbones."""

    root: Path

    def __call__(self, item: Item, jobs: Mapping[str, Sequence[Job]]) -> Prepared | Failure:
        try:
            pixels = load_pixels(item, self.root)
        except ImageError as error:
            return Failure(item.image_id, item.paths[0], error.stage, error.reason)
        return {view: _show(pixels, item, in_view) for view, in_view in jobs.items()}


def extract_block(
    items: Sequence[Item],
    missing: Mapping[str, Collection[int]],
    *,
    backbones: Sequence[Backbone],
    look: Look,
    pool: ThreadPoolExecutor,
    batch_size: int,
    on_images: Callable[[int], None] = lambda n: None,
) -> Extracted:
    """Look at every item once and make what `missing` ("<view>/<array>" → rows) asks for.

    `seconds` adds up to the whole: waiting for pictures ("decode"), each network by its name, and
    all between them ("other").
    """
    whole = time.perf_counter()
    jobs = _jobs(missing, backbones)
    values: dict[str, dict[int, NDArray[np.generic]]] = {key: {} for key in missing}
    failures: dict[str, dict[int, Failure]] = {key: {} for key in missing}
    seconds, beside = defaultdict[str, float](float), {"decode": 0.0}
    n_decoded = 0

    started = time.perf_counter()
    for timed in _batches(items, jobs, look=look, pool=pool, batch_size=batch_size):
        seconds["decode"] += time.perf_counter() - started
        beside["decode"] += sum(spent for _, _, spent in timed)
        batch = [(item, outcome) for item, outcome, _ in timed]
        for item, outcome in batch:
            n_decoded += not isinstance(outcome, Failure)
            for key, rows in missing.items():
                found = outcome if isinstance(outcome, Failure) else outcome[_view_of(key)]
                if item.row in rows and isinstance(found, Failure):
                    failures[key][item.row] = found
        for view, in_view in jobs.items():
            for position, job in enumerate(in_view):
                due = [
                    (item, found[position])
                    for item, outcome in batch
                    if item.row in job.rows
                    and not isinstance(outcome, Failure)
                    and not isinstance(found := outcome[view], Failure)
                ]
                if due:
                    pictures = np.stack([picture for _, picture in due])
                    shown = [item for item, _ in due]
                    ids = [item.image_id for item in shown]
                    for array, output in job.backbone(pictures, ids, job.arrays).items():
                        key = f"{view}/{array}"
                        _keep(output, shown, key, values[key], failures[key], missing[key])
                    for network, spent in job.backbone.take_seconds().items():
                        seconds[network] += spent
        on_images(len(batch))
        started = time.perf_counter()
    seconds["other"] = time.perf_counter() - whole - sum(seconds.values())
    return Extracted(
        values=values, failures=failures, n_decoded=n_decoded, seconds=seconds, beside=beside
    )


def _jobs(
    missing: Mapping[str, Collection[int]], backbones: Sequence[Backbone]
) -> dict[str, list[Job]]:
    """View → what has to be run on it; only backbones whose arrays are missing there."""
    jobs: dict[str, list[Job]] = {}
    for name in dict.fromkeys(_view_of(key) for key in missing):
        jobs[name] = []
        for backbone in backbones:
            arrays = tuple(s.name for s in backbone.arrays if f"{name}/{s.name}" in missing)
            rows = frozenset().union(*(missing[f"{name}/{array}"] for array in arrays))
            if arrays:
                jobs[name].append(Job(find_view(name), backbone, arrays, rows))
    return jobs


def _view_of(key: str) -> str:
    return key.split("/")[0]


def load_pixels(item: Item, root: Path) -> Pixels:
    """Read, check and decode one image. Raises ImageError with stage `read` or `decode`."""
    return decode(_read(item, root))


def _read(item: Item, root: Path) -> bytes:
    """The image's bytes from the first path that has them, else what is wrong with the first."""
    problems = []
    for path in item.paths:
        try:
            data = read_bytes_at(root, path)
        except OSError as error:
            problems.append(error.strerror or str(error))
            continue
        if hashlib.sha256(data).hexdigest() == item.image_id:
            return data
        problems.append(
            "the file is no longer the one in the manifest: its SHA-256 differs from image_id. "
            "Build the manifest again"
        )
    raise ImageError("read", problems[0])


def _batches(
    items: Sequence[Item],
    jobs: Mapping[str, Sequence[Job]],
    *,
    look: Look,
    pool: ThreadPoolExecutor,
    batch_size: int,
) -> Iterator[list[tuple[Item, Prepared | Failure, float]]]:
    """Batches of prepared pictures, each with the seconds it took, one batch ahead of the
    consumer."""
    pending: deque[tuple[Sequence[Item], list[Future[tuple[Prepared | Failure, float]]]]] = deque()
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        pending.append((batch, [pool.submit(_timed, look, item, jobs) for item in batch]))
        if len(pending) == 2:
            yield _collect(*pending.popleft())
    for ready, futures in pending:
        yield _collect(ready, futures)


def _collect(
    items: Sequence[Item], futures: Sequence[Future[tuple[Prepared | Failure, float]]]
) -> list[tuple[Item, Prepared | Failure, float]]:
    return [(item, *future.result()) for item, future in zip(items, futures, strict=True)]


def _timed(
    look: Look, item: Item, jobs: Mapping[str, Sequence[Job]]
) -> tuple[Prepared | Failure, float]:
    began = time.perf_counter()
    return look(item, jobs), time.perf_counter() - began


def _show(pixels: Pixels, item: Item, jobs: Sequence[Job]) -> list[Pixels] | Failure:
    """The decoded picture in one view, prepared for each backbone; or why it has none."""
    if not jobs:
        return []
    try:
        seen = jobs[0].view(pixels, item.image_id)
    except ImageError as error:
        return Failure(item.image_id, item.paths[0], error.stage, error.reason)
    return [job.backbone.preprocess(seen) for job in jobs]


def _keep(
    output: NDArray[np.generic],
    items: Sequence[Item],
    key: str,
    values: dict[int, NDArray[np.generic]],
    failures: dict[int, Failure],
    asked: Collection[int],
) -> None:
    """File finite rows as values and the others as failures; rows not asked for are dropped."""
    for item, row in zip(items, output, strict=True):
        if item.row not in asked:
            continue
        finite = np.isfinite(row)
        if finite.all():
            values[item.row] = row
        else:
            reason = f"{int((~finite).sum())} of {row.size} values are not finite"
            array = key.partition("/")[2]
            failures[item.row] = Failure(item.image_id, item.paths[0], array, reason)
