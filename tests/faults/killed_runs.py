"""Extractions in processes of their own, to be killed: at a random moment, or before a chosen step.

A fork server that has imported everything makes a run cost what the extraction costs. A kill leaves
the files as they are at that moment, flushed or not (only a power cut does more), so the runs do
not wait for the disk.
"""

import multiprocessing
import os
import shutil
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from clare_cache.extraction import extract_features
from clare_cache.files import read_json, sweep
from clare_cache.store import open_store, verify
from tests.fake_backbone import FakeBackbone, bytes_below, make_image, write_images

BLOCK_ROWS, BATCH_SIZE = 4, 2
FEATURES = ("mean", "grid")
PRELOADED = (
    "clare_cache.extraction",
    "pandas",  # pyarrow imports it with the first table
    "distributed",
    "pyarrow.compute",
    "tests.faults.killed_runs",
)


class FakeSource:
    """Backbones that every process makes for itself; one image has a value that is not finite."""

    def load(self) -> Sequence[FakeBackbone]:
        return [FakeBackbone(poison={make_image(1)[0]: ["grid"]})]


def write_damaged_images(folder: Path, n_images: int) -> dict[Any, tuple[str, ...]]:
    """Images of which one is absent and one is no picture: the ledger is killed at, too."""
    images = write_images(folder, n_images)
    (folder / "003.png").unlink()
    (folder / "004.png").write_bytes(b"no picture")
    return images


def extract_into(store: Path, images: Mapping[Any, tuple[str, ...]], root: Path, **options: Any):
    """What every run of these tests asks for."""
    return extract_features(
        store,
        images,
        root=root,
        backbones=FakeSource(),
        features=FEATURES,
        batch_size=BATCH_SIZE,
        block_rows=BLOCK_ROWS,
        **options,
    )


def start(function: Callable[..., None], *arguments: Any, **options: Any) -> BaseProcess:
    """A process that runs `function`, out of the fork server."""
    process = server().Process(target=_quietly, args=(function, arguments, options))
    process.start()
    return process


@cache
def server() -> Any:
    """The fork server, as a multiprocessing context."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    return context


def _quietly(function: Callable[..., None], arguments: Sequence[Any], options: Any) -> None:
    os.fsync = lambda descriptor: None
    function(*arguments, **options)


def kill_after(process: BaseProcess, seconds: float) -> bool:
    """Kill -9 after so long; whether it was still at work."""
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode == -9


def copy_before_every_step(store: Path, copies: Path, extract: Callable[[], Any]) -> None:
    """Extract, and keep a copy of the store as it is before every change to its files.

    For a process of its own: what watches it stays until the process ends.
    """
    n_steps = 0
    one_at_a_time, here = threading.Lock(), threading.local()

    def keep() -> None:
        nonlocal n_steps
        with one_at_a_time:
            here.copying = True
            if store.exists():
                _copy(store, copies / f"{n_steps:03d}")
                n_steps += 1
            here.copying = False

    def before(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES or getattr(here, "copying", False):
            return
        if event == "open" and not _writes(arguments):
            return
        if str(arguments[0]).startswith(str(store)):
            keep()

    flush = os.fsync

    def before_flush(descriptor: int) -> None:
        keep()
        flush(descriptor)

    os.fsync = before_flush
    sys.addaudithook(before)
    extract()
    keep()


CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link")
"""Events before which a kill leaves different files than before the one that went before."""


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, _, flags = arguments
    return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


def _copy(store: Path, copy: Path) -> None:
    while True:
        try:
            shutil.copytree(store, copy)
        except shutil.Error:  # another thread, past its own copy, renamed a file meanwhile
            shutil.rmtree(copy)
        else:
            return


def sweep_until(done: Any, store: Path) -> None:
    """Clear away partial files over and over, where runs do so without holding the lock."""
    while not done.wait(0.002):
        for folder in ("commits", "ledger", "requests", "features.zarr"):
            for path in (store / folder).rglob("c/**/*" if folder == "features.zarr" else "*"):
                sweep(path)


def content(store: Path) -> dict[str, Any]:
    """Every file of a store by name: its bytes; of a commit record, all but times and durations."""
    found: dict[str, Any] = dict(bytes_below(store))
    for name in found:
        if name.startswith("commits/"):
            record = read_json(store / name)
            assert record.pop("finished_at")
            assert record.pop("seconds") >= 0
            assert record.pop("checksum") >= 0  # of the times, too
            found[name] = record
    return found


def assert_same_store(found: Path, whole: Path) -> None:
    """Not a file more, not a file less, not a byte different."""
    left, right = content(found), content(whole)
    assert left.keys() ^ right.keys() == set(), sorted(left.keys() ^ right.keys())
    assert [name for name in left if left[name] != right[name]] == []
    assert verify(open_store(found)) == []
