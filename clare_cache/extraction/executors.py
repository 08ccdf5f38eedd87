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

from clare_cache.extraction.attempts import LASTING, Attempts
from clare_cache.extraction.work import BlockReport, OnImages, ignore_images

Result = TypeVar("Result")

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
    """Where blocks are done. Every block is done exactly once; reports come in any order.

    A block that fails is tried again as `attempts` says, and then stops the run with its reason.
    """

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """One call of a function where the blocks are done."""
        ...

    def in_each(self, function: Callable[[], object]) -> None:
        """One call in every process where blocks are done."""
        ...

    def run(
        self, work: Work, blocks: Sequence[int], *, on_images: OnImages = ignore_images
    ) -> Iterator[BlockReport]: ...


class InProcess:
    """One block after the other, here; a block is written while the next one is computed.

    Blocks are committed in order. What stops a run, an interrupt too, lets the write in progress
    end first. A block that was computed is not computed again because it could not be written.
    """

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return function(*arguments)

    def in_each(self, function: Callable[[], object]) -> None:
        function()

    def run(
        self, work: Work, blocks: Sequence[int], *, on_images: OnImages = ignore_images
    ) -> Iterator[BlockReport]:
        attempts = Attempts()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="write") as writer:
            writing: Future[BlockReport] | None = None
            for block in blocks:
                made = _tried(partial(_make, work, block, on_images), block, attempts)
                if writing is not None:
                    yield _written(writing, attempts)
                writing = writer.submit(_tried, partial(work.commit, made), block, attempts)
                del made  # the writer alone holds it: two blocks in memory, never three
            if writing is not None:
                yield _written(writing, attempts)


def _tried(act: Callable[[], Result], block: int, attempts: Attempts) -> Result:
    """What `act`, a part of doing `block`, gives in the end."""
    while True:
        try:
            return act()
        except LASTING:
            raise
        except Exception as error:
            if not attempts.are_left(block, error):
                raise attempts.reason(block) from error
        time.sleep(attempts.pause(block))


def _make(work: Work, block: int, on_images: OnImages) -> Any:
    """A computed block; images of an attempt that failed are taken back."""
    seen = 0

    def count(n_images: int) -> None:
        nonlocal seen
        seen += n_images
        on_images(n_images)

    try:
        return work.make(block, count)
    except Exception:  # rule-ok: raised again
        on_images(-seen)
        raise


def _written(writing: Future[BlockReport], attempts: Attempts) -> BlockReport:
    """The report of a block that is being written; its time for writing is what was waited."""
    began = time.perf_counter()
    report = writing.result()
    waited = {"write": time.perf_counter() - began}
    return _told(replace(report, seconds={**report.seconds, **waited}), attempts)


def _told(report: BlockReport, attempts: Attempts) -> BlockReport:
    return replace(report, notes=(*report.notes, *attempts.notes(report.block)))


class OnDask:
    """On the workers behind a `distributed.Client`.

    A block whose worker dies is done by another.
    """

    def __init__(self, client: Any) -> None:
        self.client = client

    def call(self, function: Callable[..., Result], *arguments: Any) -> Result:
        return self.client.submit(function, *arguments, pure=False).result()

    def in_each(self, function: Callable[[], object]) -> None:
        self.client.run(function, on_error="ignore")  # a worker may die of it, or just now

    def run(
        self, work: Work, blocks: Sequence[int], *, on_images: OnImages = ignore_images
    ) -> Iterator[BlockReport]:
        from distributed import as_completed

        waiting = deque(blocks)
        attempts = Attempts()
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
            sent = self.client.map(do, out, [*map(attempts.pause, out)], pure=False)
            for block, future in zip(out, sent, strict=True):
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
                    yield _told(report, attempts)
                elif isinstance(error, LASTING):
                    raise error
                elif attempts.are_left(block, error):
                    waiting.append(block)
                else:
                    raise attempts.reason(block) from error
            top_up()


def _do(work: Work, block: int, pause: float) -> BlockReport:
    time.sleep(pause)
    return work(block)
