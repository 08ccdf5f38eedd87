"""A worker process is killed in the middle: its blocks are done by others, to the same bytes."""

import os
import signal
import time

import dask
import pytest
from distributed import Client

from clare_cache.errors import ExtractError
from clare_cache.extraction import BlockReport, OnDask, extract_features
from clare_cache.store import open_store, verify
from tests.fake_backbone import FakeBackbone, bytes_below, write_images

N_IMAGES = 40


class SlowSource:
    """Backbones that take their time, so that the kill falls into a block."""

    def load(self):
        time.sleep(0.05)
        return [FakeBackbone()]


def test_blocks_of_a_worker_that_dies_are_done_by_another(tmp_path):
    images = write_images(tmp_path / "images", N_IMAGES)
    asked = {
        "root": tmp_path / "images",
        "backbones": SlowSource(),
        "features": ["mean", "grid"],
        "block_rows": 2,
    }
    extract_features(tmp_path / "plain", images, **asked)
    killed = []
    with Client(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
    ) as client:
        victim = next(iter(client.run(os.getpid).values()))

        def kill(progress):
            if not killed and progress.done >= 4:
                killed.append(victim)
                os.kill(victim, signal.SIGKILL)

        report = extract_features(
            tmp_path / "torn", images, executor=OnDask(client), on_progress=kill, **asked
        )
        survivors = set(client.run(os.getpid).values())
    assert killed
    assert victim not in survivors
    assert report.n_failed == 0
    store = open_store(tmp_path / "torn")
    assert store["clean/mean"].present.sum() == N_IMAGES
    assert verify(store) == []
    assert bytes_below(tmp_path / "torn/features.zarr") == bytes_below(
        tmp_path / "plain/features.zarr"
    )


class Deadly:
    """Does a block, but for one that takes its worker with it."""

    def __call__(self, block, on_images=None):
        if block == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return BlockReport(block=block, n_images=1, n_decoded=1, seconds={})


@pytest.mark.slow
def test_a_block_that_kills_every_worker_stops_the_run_with_that_reason():
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        Client(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
        ) as client,
        pytest.raises(ExtractError, match=r"block 3 failed 3 times, last with KilledWorker: "),
    ):
        list(OnDask(client).run(Deadly(), range(12)))
