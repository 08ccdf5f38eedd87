"""One block of images → arrays and failures. Pure but for the files and backbones it is given.

An image is read and decoded once, whatever the number of backbones; the next batch is decoded
while the networks look at the present one. Memory is bounded by the block, never by the data set.
"""

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clare_cache.backbones.protocol import Backbone
from clare_cache.errors import ImageError
from clare_cache.images import decode
from clare_cache.types import Failure, ImageId, Pixels


@dataclass(frozen=True)
class Item:
    """An image to be looked at: its row in the store and where its bytes may lie."""

    row: int
    image_id: ImageId
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Extracted:
    """What a block gave. `values[array]` maps row → one row of that array, in stored dtype."""

    values: Mapping[str, Mapping[int, NDArray[np.generic]]]
    failures: Mapping[str, Mapping[int, Failure]]
    n_decoded: int
    seconds: Mapping[str, float] = field(default_factory=dict)


def extract_block(
    items: Sequence[Item],
    missing: Mapping[str, Collection[int]],
    *,
    backbones: Sequence[Backbone],
    root: Path,
    pool: ThreadPoolExecutor,
    batch_size: int,
    on_images: Callable[[int], None] = lambda n: None,
) -> Extracted:
    """Look at every item once and make the arrays that `missing` (array → rows) asks for.

    `seconds` has the time spent waiting for pictures ("decode") and inside each backbone.
    """
    wanted = {b.name: [s.name for s in b.arrays if s.name in missing] for b in backbones}
    active = [b for b in backbones if wanted[b.name]]
    values: dict[str, dict[int, NDArray[np.generic]]] = {array: {} for array in missing}
    failures: dict[str, dict[int, Failure]] = {array: {} for array in missing}
    seconds: dict[str, float] = defaultdict(float)
    n_decoded = 0

    started = time.perf_counter()
    for batch in _batches(items, active, root=root, pool=pool, batch_size=batch_size):
        seconds["decode"] += time.perf_counter() - started
        good: list[tuple[Item, list[Pixels]]] = []
        for item, outcome in batch:
            if isinstance(outcome, Failure):
                for array, rows in missing.items():
                    if item.row in rows:
                        failures[array][item.row] = outcome
            else:
                good.append((item, outcome))
        n_decoded += len(good)
        for position, backbone in enumerate(active if good else ()):
            began = time.perf_counter()
            stacked = np.stack([pictures[position] for _, pictures in good])
            names = wanted[backbone.name]
            outputs = backbone(stacked, [item.image_id for item, _ in good], names)
            for array in names:
                _keep(outputs[array], [i for i, _ in good], array, values, failures, missing)
            seconds[backbone.name] += time.perf_counter() - began
        on_images(len(batch))
        started = time.perf_counter()
    return Extracted(values=values, failures=failures, n_decoded=n_decoded, seconds=seconds)


def load_pixels(item: Item, root: Path) -> Pixels:
    """Read, check and decode one image. Raises ImageError with stage `read` or `decode`."""
    return decode(_read(item, root))


def _read(item: Item, root: Path) -> bytes:
    """The image's bytes from the first path that has them, else what is wrong with the first."""
    problems = []
    for path in item.paths:
        try:
            data = (root / path).read_bytes()
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
    backbones: Sequence[Backbone],
    *,
    root: Path,
    pool: ThreadPoolExecutor,
    batch_size: int,
) -> Iterator[list[tuple[Item, list[Pixels] | Failure]]]:
    """Batches of prepared pictures, one batch ahead of the consumer."""

    def prepare(item: Item) -> list[Pixels] | Failure:
        try:
            pixels = load_pixels(item, root)
        except ImageError as error:
            return Failure(item.image_id, item.paths[0], error.stage, error.reason)
        return [backbone.preprocess(pixels) for backbone in backbones]

    pending: list[tuple[Sequence[Item], list[Future[list[Pixels] | Failure]]]] = []
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        pending.append((batch, [pool.submit(prepare, item) for item in batch]))
        if len(pending) == 2:
            ready, futures = pending.pop(0)
            yield [(i, f.result()) for i, f in zip(ready, futures, strict=True)]
    for ready, futures in pending:
        yield [(i, f.result()) for i, f in zip(ready, futures, strict=True)]


def _keep(
    output: NDArray[np.generic],
    items: Sequence[Item],
    array: str,
    values: dict[str, dict[int, NDArray[np.generic]]],
    failures: dict[str, dict[int, Failure]],
    missing: Mapping[str, Collection[int]],
) -> None:
    """File finite rows as values and the others as failures; rows not asked for are dropped."""
    for item, row in zip(items, output, strict=True):
        if item.row not in missing[array]:
            continue
        finite = np.isfinite(row)
        if finite.all():
            values[array][item.row] = row
        else:
            reason = f"{int((~finite).sum())} of {row.size} values are not finite"
            failures[array][item.row] = Failure(item.image_id, item.paths[0], array, reason)
