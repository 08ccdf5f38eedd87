"""Where blocks are done: here, or on the workers of a dask cluster. Block numbers go out, small
records come back, tensors never travel.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

from clare_cache.errors import ClareCacheError, ExtractError
from clare_cache.extraction.work import BlockReport, OnImages, ignore_images

Result = TypeVar("Result")

ATTEMPTS = 3
"""So often a block is tried before its failure stops the run."""

BLOCKS_IN_FLIGHT = 4
"""Blocks handed out per worker: enough to keep it busy, few enough for a light scheduler."""

SECONDS_BETWEEN_COUNTS = 1.0
"""So often the workers are counted."""


class Work(Protocol):
    """Does one block; `on_images` hears of images as they are done, where that is possible.

    A call is `make`, the computing, and then `commit`, the writing.
    """

    def __call__(self, block: int, on_images: OnImages = ...) -> BlockReport: ...

    def make(self, block: int, on_images: OnImages = ...) -> Any: ...

    def commit(self, made: Any) -> BlockReport: ...


class Executor(Protocol):
    """Where blocks are done. Every block is done exactly once; reports come in any order."""

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """One call of a function where the blocks are done."""
        ...

    def run(
        self, work: Work, blocks: Sequence[int], *, on_images: OnImages = ignore_images
    ) -> Iterator[BlockReport]: ...


class InProcess:
    """One block after the other, here; a block is written while the next one is computed.

    Blocks are committed in order. What stops a run, an interrupt too, lets the write in progress
    end first. What a file system refuses is tried three times, for one over a network may answer
    again; another failure would be the same in this process, and stops the run at once.
    """

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return function(*arguments)

    def run(
        self, work: Work, blocks: Sequence[int], *, on_images: OnImages = ignore_images
    ) -> Iterator[BlockReport]:
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="write") as writer:
            writing: Future[BlockReport] | None = None
            for block in blocks:
                made = _tried(partial(work.make, block, on_images))
                if writing is not None:
                    yield _written(writing)
                writing = writer.submit(_tried, partial(work.commit, made))
                del made  # the writer alone holds it: two blocks in memory, never three
            if writing is not None:
                yield _written(writing)


def _tried(act: Callable[[], Result]) -> Result:
    """What `act` gives, tried so often as `ATTEMPTS` says where it raises OSError."""
    for _ in range(ATTEMPTS - 1):
        try:
            return act()
        except OSError:
            continue
    return act()


def _written(writing: Future[BlockReport]) -> BlockReport:
    """The report of a block that is being written; its time for writing is what was waited."""
    began = time.perf_counter()
    report = writing.result()
    waited = {"write": time.perf_counter() - began}
    return replace(report, seconds={**report.seconds, **waited})


class OnDask:
    """On the workers behind a `distributed.Client`.

    A block whose worker dies is done by another. A block that fails three times stops the run with
    its reason; one that fails for a reason of ours (a user's mistake) stops it at once.
    """

    def __init__(self, client: Any) -> None:
        self.client = client

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return self.client.submit(function, *arguments, pure=False).result()

    def run(
        self, work: Work, blocks: Sequence[int], *, on_images: OnImages = ignore_images
    ) -> Iterator[BlockReport]:
        from distributed import as_completed

        waiting = deque(blocks)
        attempts = dict.fromkeys(blocks, 0)
        flying: dict[Any, int] = {}
        finished = as_completed()
        do = partial(_do, work)
        n_workers, asked_at = 0, -math.inf

        def top_up() -> None:
            nonlocal n_workers, asked_at
            # Asked now and then: workers join late and die, on clusters above all. Not for every
            # block: that is a question to the scheduler.
            if time.monotonic() - asked_at > SECONDS_BETWEEN_COUNTS:
                n_workers, asked_at = len(self.client.nthreads()), time.monotonic()
            room = BLOCKS_IN_FLIGHT * max(n_workers, 1) - len(flying)
            out = [waiting.popleft() for _ in range(min(room, len(waiting)))]
            for block, future in zip(out, self.client.map(do, out, pure=False), strict=True):
                attempts[block] += 1
                flying[future] = block
                finished.add(future)

        top_up()
        for batch in finished.batches():  # what has come meanwhile is followed up in one message
            for future in batch:
                block = flying.pop(future)
                error = future.exception()
                if error is None:
                    report = future.result()
                    on_images(report.n_images)
                    yield report
                elif isinstance(error, ClareCacheError):
                    raise error
                elif attempts[block] < ATTEMPTS:
                    waiting.append(block)
                else:
                    raise _stopped(block, error) from error
            top_up()


def _stopped(block: int, error: BaseException) -> ExtractError:
    return ExtractError(
        f"extract: block {block} failed {ATTEMPTS} times, last with {type(error).__name__}: "
        f"{error}. What is committed stays; mend the cause and call again."
    )


def _do(work: Work, block: int) -> BlockReport:
    return work(block)
