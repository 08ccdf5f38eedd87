"""Image files → pictures prepared for the networks, in threads or processes of their own.

Knows no network: only the rules by which pictures are prepared travel to a process, and the
pictures come back. What is wrong with one image is that image's failure, whoever decodes it.
"""

import hashlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from clare_cache.errors import ExtractError, ImageError
from clare_cache.files import read_bytes_at
from clare_cache.images import decode, find_view, prepare_picture
from clare_cache.types import Failure, ImageId, Pixels

DecodeIn = Literal["threads", "processes"]
DECODE_IN: tuple[DecodeIn, ...] = ("threads", "processes")

Prepare = Callable[[Pixels], Pixels]
"""One decoded picture → the picture that a network looks at. Of a file, it can be pickled."""

Prepared = Mapping[str, list[NDArray[np.generic]] | Failure]
"""View → the picture prepared for each network that looks at this view, in their order."""


@dataclass(frozen=True)
class Item:
    """An image to be looked at: its row in the store and where its bytes may lie."""

    row: int
    image_id: ImageId
    paths: tuple[str, ...]


class Look(Protocol):
    """How an image becomes what the networks are shown. `prepare` has the networks of each view."""

    def __call__(
        self, item: Item, prepare: Mapping[str, Sequence[Prepare]]
    ) -> Prepared | Failure: ...


@dataclass(frozen=True)
class Pictures:
    """Image files below `root`: read, checked and decoded once for all views and networks."""

    root: Path

    def __call__(self, item: Item, prepare: Mapping[str, Sequence[Prepare]]) -> Prepared | Failure:
        try:
            data = _read(item, self.root)
            pixels = decode(data)
        except ImageError as error:
            return Failure(item.image_id, item.paths[0], error.stage, error.reason)
        return {view: _show(pixels, data, item, view, wanted) for view, wanted in prepare.items()}


Looked = list[tuple[Item, Prepared | Failure, float]]
"""Images, what became of each, and the seconds that it took."""


def look_ahead(
    pool: Executor, look: Look, items: Sequence[Item], prepare: Mapping[str, Sequence[Prepare]]
) -> Callable[[], Looked]:
    """Begins to look at these images; calling the result waits for all of them."""
    started = [_submit(pool, look, item, prepare) for item in items]

    def collect() -> Looked:
        found = []
        for item, future in zip(items, started, strict=True):
            try:
                found.append((item, *future.result()))
            except BrokenProcessPool:
                found.append((item, *_look_alone(look, item, prepare)))
        return found

    return collect


def _submit(
    pool: Executor, look: Look, item: Item, prepare: Mapping[str, Sequence[Prepare]]
) -> Future[tuple[Prepared | Failure, float]]:
    try:
        return pool.submit(_timed, look, item, prepare)
    except BrokenProcessPool as error:
        refused: Future[tuple[Prepared | Failure, float]] = Future()
        refused.set_exception(error)
        return refused


@contextmanager
def open_pool(kind: DecodeIn, workers: int) -> Iterator[Executor]:
    """Threads that end with the block, or processes that are kept for the next one."""
    if kind == "threads":
        with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="decode") as pool:
            yield pool
        return
    processes = _kept.get(workers)
    if processes is None or not _is_whole(processes):
        processes = _kept[workers] = _start(workers)
    yield processes


_kept: dict[int, ProcessPoolExecutor] = {}


def close_processes() -> None:
    """Ends the processes that decoded for this one, if there are any."""
    while _kept:
        _kept.popitem()[1].shutdown(cancel_futures=True)


def _is_whole(processes: ProcessPoolExecutor) -> bool:
    """Whether none of them has died since."""
    try:
        processes.submit(os.getpid).result()
    except BrokenProcessPool:
        return False
    return True


def _start(workers: int) -> ProcessPoolExecutor:
    if multiprocessing.current_process().daemon:
        raise ExtractError(
            "extract: --decode-in processes expects workers that may start processes, found one "
            "that may not. Start it as DASK_DISTRIBUTED__WORKER__DAEMON=False dask worker …, or "
            "decode in threads."
        )
    # Started afresh: a fork of a process with CUDA and threads cannot be trusted.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_live_and_die_with_parent)


def _live_and_die_with_parent() -> None:
    """Ctrl-C is for the parent, who ends this process; if it is killed instead, so is this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def end_with_parent() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _look_alone(
    look: Look, item: Item, prepare: Mapping[str, Sequence[Prepare]]
) -> tuple[Prepared | Failure, float]:
    """One image in a process of its own, after a process died over one of several."""
    with _start(1) as alone:
        try:
            return alone.submit(_timed, look, item, prepare).result()
        except BrokenProcessPool:
            reason = "the process that decoded it was killed: out of memory, or a decoder crashed"
            return Failure(item.image_id, item.paths[0], "decode", reason), 0.0


def _timed(
    look: Look, item: Item, prepare: Mapping[str, Sequence[Prepare]]
) -> tuple[Prepared | Failure, float]:
    began = time.perf_counter()
    return look(item, prepare), time.perf_counter() - began


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


def _show(
    pixels: Pixels, data: bytes, item: Item, view: str, wanted: Sequence[Prepare]
) -> list[NDArray[np.generic]] | Failure:
    """The decoded picture in one view, prepared for each network; or why it has none."""
    if not wanted:
        return []
    try:
        seen = find_view(view)(pixels, item.image_id)
        return [prepare_picture(prepare, seen, data) for prepare in wanted]
    except ImageError as error:
        return Failure(item.image_id, item.paths[0], error.stage, error.reason)
