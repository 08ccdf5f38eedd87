"""kill -9 of workers and of whole runs on a dask cluster: the store ends as an undisturbed one."""

import os
import random
import signal
import threading
import time

import pytest
from distributed import Client, LocalCluster

from clare_cache.extraction import OnDask
from clare_cache.extraction.clusters import open_executor
from tests.faults.killed_runs import (
    assert_same_store,
    extract_into,
    kill_after,
    start,
    write_damaged_images,
)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kill") / "images"
    return write_damaged_images(folder, 14), folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory, asked):
    store = tmp_path_factory.mktemp("whole") / "store"
    extract_into(store, *asked)
    return store


@pytest.fixture(scope="module")
def client():
    """Two workers, each watched by a process that starts another when it dies."""
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def extract_on(address, store, images, root):
    with open_executor(dask=address) as executor:
        extract_into(store, images, root, executor=executor)


def wait_until_idle(client):
    """A block that a killed run had begun is still done: its worker does not know yet."""
    # A worker that has just been killed does not answer.
    while any(client.run(_n_executing, on_error="ignore").values()):
        time.sleep(0.02)


def _n_executing(dask_worker):
    return len(dask_worker.state.executing)


def wait_for_two(client):
    """The watching process gives up on a worker that is killed while it starts: ask for another."""
    while len(client.nthreads()) < 2:
        client.cluster.scale(2)
        time.sleep(0.1)


@pytest.mark.parametrize("n_kills", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_runs_on_a_running_scheduler_are_killed(tmp_path, asked, whole, client, n_kills):
    address = client.scheduler.address
    for n in range(2):  # the second, for the workers import at the first
        began = time.monotonic()
        undisturbed = start(extract_on, address, tmp_path / f"timed-{n}", *asked)
        undisturbed.join()
        assert undisturbed.exitcode == 0
    duration = time.monotonic() - began
    generator, n_hit, n_stores = random.Random(6), 0, 0
    while n_hit < n_kills:
        store, n_stores = tmp_path / f"{n_stores}", n_stores + 1
        for _ in range(3):
            running = start(extract_on, address, store, *asked)
            n_hit += kill_after(running, generator.uniform(0, duration))
            assert running.exitcode in (0, -signal.SIGKILL)
        extract_into(store, *asked, executor=OnDask(client))
        wait_until_idle(client)
        assert_same_store(store, whole)


@pytest.mark.parametrize("n_kills", [4, pytest.param(50, marks=pytest.mark.slow)])
def test_workers_are_killed_and_the_run_goes_on(tmp_path, asked, whole, client, n_kills):
    generator = random.Random(4)
    for n in range(n_kills):
        wait_for_two(client)
        victim = generator.choice(sorted(client.run(os.getpid, on_error="ignore").values()))
        killer = threading.Timer(generator.uniform(0, 0.3), os.kill, (victim, signal.SIGKILL))
        killer.start()
        extract_into(tmp_path / f"{n}", *asked, executor=OnDask(client))
        killer.join()
        wait_until_idle(client)
        assert_same_store(tmp_path / f"{n}", whole)
