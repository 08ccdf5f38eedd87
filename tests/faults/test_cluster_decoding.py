"""Decoding in processes that the workers of a cluster start."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from distributed import LocalCluster

from clare_cache.errors import ExtractError
from clare_cache.extraction import extract_features
from clare_cache.extraction.clusters import open_executor
from clare_cache.images import Preparation
from tests.fake_backbone import FakeBackbone
from tests.faults.killed_runs import assert_same_store, write_damaged_images


@dataclass(frozen=True)
class Signing:
    """Prepares pictures, and leaves a file named by the process that did."""

    folder: Path

    def __call__(self, pixels):
        (self.folder / str(os.getpid())).touch()
        return Preparation("squash", 8)(pixels)


@dataclass(frozen=True)
class SigningSource:
    """Backbones that travel, whose pictures are signed."""

    folder: Path

    def load(self):
        backbone = FakeBackbone()
        backbone.preprocess = Signing(self.folder)
        return [backbone]


@pytest.fixture
def asked(tmp_path):
    (tmp_path / "signed").mkdir()
    return {
        "images": write_damaged_images(tmp_path / "images", 24),
        "root": tmp_path / "images",
        "backbones": SigningSource(tmp_path / "signed"),
        "features": ["mean", "grid"],
        "block_rows": 2,
    }


def take_signatures(folder):
    found = {int(path.name) for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    return found


def test_workers_decode_in_processes_of_their_own_and_end_them(tmp_path, asked):
    extract_features(tmp_path / "whole", **asked)
    assert take_signatures(tmp_path / "signed") == {os.getpid()}
    killed = []
    with open_executor(cluster="local:2") as executor:
        executor.client.wait_for_workers(2)
        workers = set(executor.client.run(os.getpid).values())

        def kill_one(progress):
            if not killed:
                killed.append(min(workers))
                os.kill(min(workers), signal.SIGKILL)

        extract_features(
            tmp_path / "store",
            **asked,
            decode_in="processes",
            executor=executor,
            on_progress=kill_one,
        )
        decoders = take_signatures(tmp_path / "signed")
        assert decoders
        assert not decoders & (workers | {os.getpid()})
        _, alive = psutil.wait_procs(
            [psutil.Process(pid) for pid in decoders if psutil.pid_exists(pid)], timeout=30
        )
        assert not alive
        assert workers - set(killed) <= set(executor.client.run(os.getpid).values())
    assert_same_store(tmp_path / "store", tmp_path / "whole")


def test_workers_that_may_start_no_processes_are_told_so(tmp_path, asked):
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0"
        ) as cluster,
        open_executor(dask=cluster.scheduler_address) as executor,
        pytest.raises(ExtractError) as caught,
    ):
        extract_features(tmp_path / "store", **asked, decode_in="processes", executor=executor)
    assert str(caught.value) == (
        "extract: --decode-in processes expects workers that may start processes, found one that "
        "may not. Start it as DASK_DISTRIBUTED__WORKER__DAEMON=False dask worker …, or decode in "
        "threads."
    )
