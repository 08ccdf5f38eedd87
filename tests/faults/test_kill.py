"""kill -9 at any moment, as often as you like: the store ends as that of an undisturbed run."""

import os
import random
import time
from functools import partial

import pytest

from tests.fake_backbone import bytes_below
from tests.faults.killed_runs import (
    assert_same_store,
    copy_before_every_step,
    extract_into,
    kill_after,
    server,
    start,
    sweep_until,
    write_damaged_images,
)

SHARDS = {"one process": [None], "array job": [(0, 2), (1, 2)]}
N_KILLS = {"one process": 50, "array job": 40}
"""With the ten of a dask cluster's, in test_kill_dask.py, one hundred."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kill")


@pytest.fixture(scope="module")
def asked(folder):
    """The images and their folder."""
    return write_damaged_images(folder / "images", 14), folder / "images"


@pytest.fixture(scope="module")
def whole(folder, asked):
    """The store of a run that nobody disturbs."""
    extract_into(folder / "whole", *asked)
    return folder / "whole"


@pytest.fixture(scope="module")
def duration(folder, asked):
    """Seconds of an undisturbed run, its process included; the second of two, which is warm."""
    for n in range(2):
        began = time.monotonic()
        process = start(extract_into, folder / f"timed-{n}", *asked)
        process.join()
        assert process.exitcode == 0
    return time.monotonic() - began


def run_and_kill(store, asked, *, shards, generator, duration):
    """Start every shard and kill each at a random moment; how many were hit."""
    running = [start(extract_into, store, *asked, shard=shard) for shard in shards]
    hit = [kill_after(process, generator.uniform(0, duration)) for process in running]
    assert all(process.exitcode in (0, -9) for process in running)
    return sum(hit)


@pytest.mark.parametrize("kind", SHARDS)
def test_killed_at_random_moments(tmp_path, asked, whole, duration, kind):
    generator = random.Random(kind)
    n_kills = n_stores = 0
    while n_kills < N_KILLS[kind]:
        store = tmp_path / f"{n_stores}"
        n_stores += 1
        # A few kills to a store: each run goes on where the one before was hit.
        for _ in range(3):
            n_kills += run_and_kill(
                store, asked, shards=SHARDS[kind], generator=generator, duration=duration
            )
        for shard in SHARDS[kind]:
            extract_into(store, *asked, shard=shard)
        assert_same_store(store, whole)


def test_killed_before_every_step_to_the_disk(tmp_path, monkeypatch):
    root, copies = tmp_path / "images", tmp_path / "copies"
    images = write_damaged_images(root, 6)
    extract_into(tmp_path / "whole", images, root)
    copies.mkdir()
    watched = start(
        copy_before_every_step,
        tmp_path / "torn",
        copies,
        partial(extract_into, tmp_path / "torn", images, root),
    )
    watched.join()
    assert watched.exitcode == 0

    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    distinct = {}
    for copy in sorted(copies.iterdir()):
        names = tuple(sorted(path.relative_to(copy) for path in copy.rglob("*")))
        distinct.setdefault((names, *bytes_below(copy).values()), copy)
    assert len(distinct) > 50
    for copy in distinct.values():
        extract_into(copy, images, root)
        assert_same_store(copy, tmp_path / "whole")


def test_two_runs_on_one_store_at_once(tmp_path, asked, whole):
    """They may do the same blocks: who looks later finds them done, or writes the same bytes."""
    for n in range(8):
        store = tmp_path / f"{n}"
        running = [start(extract_into, store, *asked) for _ in range(2)]
        for process in running:
            process.join()
        assert [process.exitcode for process in running] == [0, 0]
        assert_same_store(store, whole)


def test_one_of_two_runs_is_killed_and_the_other_does_not_mind(tmp_path, asked, whole, duration):
    generator = random.Random(2)
    for n in range(8):
        store = tmp_path / f"{n}"
        killed, other = (start(extract_into, store, *asked) for _ in range(2))
        kill_after(killed, generator.uniform(0, duration))
        other.join()
        assert other.exitcode == 0
        extract_into(store, *asked)
        assert_same_store(store, whole)


def test_a_run_does_not_mind_that_another_clears_away_its_partial_files(tmp_path, asked, whole):
    done = server().Event()
    for n in range(3):
        sweeper = start(sweep_until, done, tmp_path / f"{n}")
        running = start(extract_into, tmp_path / f"{n}", *asked)
        running.join()
        done.set()
        sweeper.join()
        done.clear()
        assert (running.exitcode, sweeper.exitcode) == (0, 0)
        assert_same_store(tmp_path / f"{n}", whole)
