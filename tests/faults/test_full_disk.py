"""A full disk stops a run with one sentence, and costs nothing that was committed."""

import errno
import resource
import subprocess
from pathlib import Path

import pytest

from clare_cache.errors import ExtractError
from clare_cache.extraction import attempts
from clare_cache.store import open_store, verify
from tests.fake_backbone import bytes_below
from tests.faults.killed_runs import (
    assert_same_store,
    extract_into,
    start,
    write_damaged_images,
)

SIZES_KIB = (4, 16, 32, 48, 64, 80)
"""Of the disk: from one that holds no more than the lock to one that almost suffices."""


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full") / "images"
    return write_damaged_images(folder, 14), folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory, asked):
    store = tmp_path_factory.mktemp("whole") / "store"
    extract_into(store, *asked)
    return store


class SmallDisk:
    """A mounted file system of a few KiB; where none may be mounted, a limit of a file's size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mounted = self._mount("-t", "tmpfs", "-o", "size=4k", "tmpfs")

    def _mount(self, *arguments: str) -> bool:
        command = ["mount", *arguments, str(self.folder)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        except FileNotFoundError:
            return False
        return done.returncode == 0

    def resize(self, kib: int) -> None:
        if self.mounted:
            assert self._mount("-o", f"remount,size={kib}k")

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path):
    (tmp_path / "disk").mkdir()
    disk = SmallDisk(tmp_path / "disk")
    yield disk
    disk.close()


def extract_on_full_disk(told: Path, limit: int | None, store: Path, images, root: Path) -> None:
    """Extract, and write down what the system refused."""
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    attempts.PAUSES = (0.0, 0.0)  # nobody makes room meanwhile
    try:
        extract_into(store, images, root)
    except (OSError, ExtractError) as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        refused = error if isinstance(error, OSError) else error.__cause__
        told.write_text(str(refused.errno))


def test_a_full_disk_costs_nothing_that_was_committed(tmp_path, disk, asked, whole):
    told, refused = tmp_path / "told", 0
    for number, kib in enumerate(SIZES_KIB):
        disk.resize(kib)
        store = disk.folder / f"{number}"
        limit = None if disk.mounted else 24 * kib
        running = start(extract_on_full_disk, told, limit, store, *asked)
        running.join()
        assert running.exitcode == 0
        if told.exists():
            assert int(told.read_text()) in (errno.ENOSPC, errno.EFBIG)
            told.unlink()
            refused += 1
        committed = {}
        if (store / "store.json").exists():
            found = open_store(store)
            committed = {key: set(found[key].records) for key in found}
            assert [f for f in verify(found) if f.kind != "orphan file"] == []
        disk.resize(10_000)
        report = extract_into(store, *asked)
        fewest = min(map(len, committed.values()), default=0)
        assert report.n_settled_before >= min(4 * fewest, 14)
        assert_same_store(store, whole)
        for name in bytes_below(store):
            (store / name).unlink()
    assert refused >= 4


def test_a_file_that_may_not_grow_is_told_as_it_is(tmp_path, asked, whole):
    told, store = tmp_path / "told", tmp_path / "store"
    running = start(extract_on_full_disk, told, 100, store, *asked)
    running.join()
    assert (running.exitcode, told.read_text()) == (0, str(errno.EFBIG))
    extract_into(store, *asked)
    assert_same_store(store, whole)
