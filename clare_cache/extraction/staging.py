"""Decoded pictures → batches that lie where the networks look at them, one ahead of the consumer.

While a network computes, the pictures of the next batch are decoded, stacked and, for a GPU, copied
to its memory. Knows no network: a backbone brings its batches to its device itself.
"""

from collections import deque
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from clare_cache.backbones.protocol import Backbone
from clare_cache.extraction.decoding import Item, Look, Looked, look_ahead
from clare_cache.types import Failure


@dataclass(frozen=True)
class Job:
    """One backbone on one view: the arrays to make, and the rows that lack any of them."""

    view: str
    backbone: Backbone
    arrays: tuple[str, ...]
    rows: frozenset[int]


@dataclass(frozen=True)
class Shown:
    """What one job is to look at: images and their pictures, one after the other."""

    job: Job
    items: tuple[Item, ...]
    pictures: Any
    """As `Backbone.upload` gives them."""


@dataclass(frozen=True)
class Batch:
    """Images that were looked for together. `failures[row]` has, by view, why there is no picture;
    `seconds` is what decoding took, all threads together."""

    n_images: int
    n_decoded: int
    failures: Mapping[int, Mapping[str, Failure]]
    shown: tuple[Shown, ...]
    seconds: float


def batches(
    items: Sequence[Item],
    jobs: Mapping[str, Sequence[Job]],
    *,
    look: Look,
    pool: Executor,
    batch_size: int,
) -> Generator[Batch]:
    """Batches of prepared pictures for the `jobs` of each view; `pool` decodes."""
    prepare = {view: [job.backbone.preprocess for job in in_view] for view, in_view in jobs.items()}
    ahead: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="stage") as stager:
        for start in range(0, len(items), batch_size):
            collect = look_ahead(pool, look, items[start : start + batch_size], prepare)
            ahead.append(stager.submit(lambda collect: _staged(collect(), jobs), collect))
            if len(ahead) == 2:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _staged(looked: Looked, jobs: Mapping[str, Sequence[Job]]) -> Batch:
    failures: dict[int, dict[str, Failure]] = {}
    for item, outcome, _ in looked:
        by_view = dict.fromkeys(jobs, outcome) if isinstance(outcome, Failure) else outcome
        failures[item.row] = {
            v: found for v, found in by_view.items() if isinstance(found, Failure)
        }
    shown = []
    for view, in_view in jobs.items():
        for position, job in enumerate(in_view):
            due = [
                (item, found[position])
                for item, outcome, _ in looked
                if item.row in job.rows
                and not isinstance(outcome, Failure)
                and not isinstance(found := outcome[view], Failure)
            ]
            if due:
                pictures = job.backbone.upload(np.stack([picture for _, picture in due]))
                shown.append(Shown(job, tuple(item for item, _ in due), pictures))
    return Batch(
        n_images=len(looked),
        n_decoded=sum(not isinstance(outcome, Failure) for _, outcome, _ in looked),
        failures=failures,
        shown=tuple(shown),
        seconds=sum(spent for _, _, spent in looked),
    )
