"""Decoding in processes of their own: the same bytes, the same failures, and no orphans."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from clare_cache.extraction import extract_features
from clare_cache.extraction.decoding import (
    Item,
    Pictures,
    close_processes,
    look_ahead,
    open_pool,
)
from clare_cache.images import Preparation
from clare_cache.types import Failure
from tests.fake_backbone import FakeBackbone, bytes_below, make_image, write_images

SQUASH = Preparation("squash", 8)


class PicklableFake(FakeBackbone):
    """Prepares pictures as a network does, by a rule that travels."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.preprocess = SQUASH


@dataclass(frozen=True)
class Killing:
    """Dies over one image, as a decoder that crashes does."""

    look: Pictures
    victim: str

    def __call__(self, item, prepare):
        if item.paths[0] == self.victim:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.look(item, prepare)


@pytest.fixture
def processes():
    with open_pool("processes", 2) as pool:
        yield pool
    close_processes()


def items_of(images):
    return [Item(n, image_id, paths) for n, (image_id, paths) in enumerate(images.items())]


def test_the_store_is_the_one_that_threads_make(tmp_path):
    images = write_images(tmp_path / "images", 9)
    (tmp_path / "images/003.png").unlink()
    (tmp_path / "images/005.png").write_bytes(make_image(5)[1][:40])
    reports = {}
    for kind in ("threads", "processes"):
        reports[kind] = extract_features(
            tmp_path / kind,
            images,
            root=tmp_path / "images",
            backbones=[PicklableFake()],
            features=["mean", "grid"],
            views=["clean", "noise-s10"],
            block_rows=4,
            batch_size=3,
            decode_in=kind,
        )
    assert reports["processes"].failures == reports["threads"].failures
    assert len(reports["threads"].failures) == 8
    for folder in ("features.zarr", "ledger"):
        assert bytes_below(tmp_path / "processes" / folder) == bytes_below(
            tmp_path / "threads" / folder
        )


def test_an_image_that_kills_its_process_is_a_failure_and_others_are_not(tmp_path, processes):
    items = items_of(write_images(tmp_path, 4))
    look = Killing(Pictures(tmp_path), items[1].paths[0])
    # The next batch is already handed out when the first one's process dies.
    first = look_ahead(processes, look, items[:2], {"clean": [SQUASH]})
    second = look_ahead(processes, look, items[2:], {"clean": [SQUASH]})
    found = [*first(), *second()]
    assert [item for item, _, _ in found] == items
    outcomes = [outcome for _, outcome, _ in found]
    assert outcomes[1] == Failure(
        items[1].image_id,
        "001.png",
        "decode",
        "the process that decoded it was killed: out of memory, or a decoder crashed",
    )
    for n in (0, 2, 3):
        expected = Pictures(tmp_path)(items[n], {"clean": [SQUASH]})
        np.testing.assert_array_equal(outcomes[n]["clean"][0], expected["clean"][0])
    # Broken processes refuse what comes later in the block, and are replaced for the next one.
    late = look_ahead(processes, Pictures(tmp_path), items[3:], {"clean": [SQUASH]})()
    assert [type(outcome) for _, outcome, _ in late] == [dict]
    with open_pool("processes", 2) as fresh:
        assert fresh is not processes
        assert fresh.submit(len, "abc").result() == 3


CHILD = """
import time
from clare_cache.extraction.decoding import open_pool
if __name__ == "__main__":
    with open_pool("processes", 2) as pool:
        for _ in range(4):
            pool.submit(time.sleep, 0.3)
        print("working", flush=True)
        time.sleep(600)
"""


def test_processes_end_with_the_one_they_work_for(tmp_path):
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    root = Path(__file__).parents[2]
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert parent.stdout.readline() == b"working\n"
    deadline = time.monotonic() + 60
    while len(workers := psutil.Process(parent.pid).children(recursive=True)) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    parent.kill()
    parent.wait(timeout=30)
    parent.stdout.close()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
