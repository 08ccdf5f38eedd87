"""One block of images → arrays and failures. Pure but for the files and backbones it is given.

An image is read and decoded once, whatever the number of backbones; the next batch is decoded
while the networks look at the present one. Memory is bounded by the block, never by the data set.
"""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clare_cache.backbones.protocol import Backbone
from clare_cache.extraction.decoding import Item, Look, Looked, Pictures, look_ahead
from clare_cache.extraction.fitting import look_at
from clare_cache.types import Failure

__all__ = ["Extracted", "Item", "Job", "Pictures", "extract_block"]


@dataclass(frozen=True)
class Extracted:
    """What a block gave. `values["<view>/<array>"]` maps row → one row of that array, in stored
    dtype; `failures` likewise row → why there is none. `seconds` is where the time of the block
    went, `beside` what other threads worked meanwhile, `notes` what the user should hear."""

    values: Mapping[str, Mapping[int, NDArray[np.generic]]]
    failures: Mapping[str, Mapping[int, Failure]]
    n_decoded: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    beside: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One backbone on one view: the arrays to make, and the rows that lack any of them."""

    view: str
    backbone: Backbone
    arrays: tuple[str, ...]
    rows: frozenset[int]


def extract_block(
    items: Sequence[Item],
    missing: Mapping[str, Collection[int]],
    *,
    backbones: Sequence[Backbone],
    look: Look,
    pool: Executor,
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
    notes: list[str] = []
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
                    made = look_at(job.backbone, pictures, ids, job.arrays, notes=notes)
                    for array, output in made.items():
                        key = f"{view}/{array}"
                        _keep(output, shown, key, values[key], failures[key], missing[key])
                    for network, spent in job.backbone.take_seconds().items():
                        seconds[network] += spent
        on_images(len(batch))
        started = time.perf_counter()
    seconds["other"] = time.perf_counter() - whole - sum(seconds.values())
    return Extracted(
        values=values,
        failures=failures,
        n_decoded=n_decoded,
        seconds=seconds,
        beside=beside,
        notes=tuple(notes),
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
                jobs[name].append(Job(name, backbone, arrays, rows))
    return jobs


def _view_of(key: str) -> str:
    return key.split("/")[0]


def _batches(
    items: Sequence[Item],
    jobs: Mapping[str, Sequence[Job]],
    *,
    look: Look,
    pool: Executor,
    batch_size: int,
) -> Iterator[Looked]:
    """Batches of prepared pictures, one batch ahead of the consumer."""
    prepare = {view: [job.backbone.preprocess for job in in_view] for view, in_view in jobs.items()}
    ahead: deque[Callable[[], Looked]] = deque()
    for start in range(0, len(items), batch_size):
        ahead.append(look_ahead(pool, look, items[start : start + batch_size], prepare))
        if len(ahead) == 2:
            yield ahead.popleft()()
    for collect in ahead:
        yield collect()


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
