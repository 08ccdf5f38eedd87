"""One block of images → arrays and failures. Pure but for the files and backbones it is given.

An image is read and decoded once, whatever the number of backbones; the next batch is made ready
while the networks look at the present one. Memory is bounded by the block, never by the data set.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clare_cache.backbones.protocol import Backbone
from clare_cache.extraction.decoding import Item, Look, Pictures
from clare_cache.extraction.fitting import look_at
from clare_cache.extraction.staging import Job, batches
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
    with closing(batches(items, jobs, look=look, pool=pool, batch_size=batch_size)) as in_batches:
        for batch in in_batches:
            seconds["decode"] += time.perf_counter() - started
            beside["decode"] += batch.seconds
            n_decoded += batch.n_decoded
            for row, by_view in batch.failures.items():
                for key, rows in missing.items():
                    if row in rows and (failure := by_view.get(_view_of(key))):
                        failures[key][row] = failure
            for shown in batch.shown:
                job = shown.job
                ids = [item.image_id for item in shown.items]
                made = look_at(job.backbone, shown.pictures, ids, job.arrays, notes=notes)
                for array, output in made.items():
                    key = f"{job.view}/{array}"
                    _keep(output, shown.items, key, values[key], failures[key], missing[key])
                for network, spent in job.backbone.take_seconds().items():
                    seconds[network] += spent
            on_images(batch.n_images)
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
