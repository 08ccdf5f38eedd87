"""Memory while blocks are done: bounded by batch, prefetch and block, not by the number of images.

`benchmarks/memory.py` measures the whole process; here is what Python and numpy allocate.
"""

import gc
import tracemalloc
import weakref

import numpy as np

from clare_cache.extraction import InProcess, extract_features
from clare_cache.images import Preparation
from clare_cache.types import ArraySpec
from tests.fake_backbone import write_images


class Repeating:
    """16 KiB a row, and no memory of what it was shown."""

    name, source, largest_batch = "repeating", "none", 16
    arrays = (ArraySpec("grid", (4, 32, 32), ("copy", "row", "column"), "float32", "a picture"),)
    preprocess = Preparation("squash", 32)

    def declared(self, array):
        return {"array": array}

    def upload(self, batch):
        return batch

    def take_seconds(self):
        return {}

    def __call__(self, batch, image_ids, wanted):
        return {"grid": np.repeat(batch[:, None, :, :, 0].astype(np.float32), 4, axis=1)}


class Traced(InProcess):
    """Notes what is allocated after every block; the next one is in memory then."""

    def run(self, work, blocks, *, on_images):
        self.allocated = []
        tracemalloc.start()
        try:
            for report in super().run(work, blocks, on_images=on_images):
                gc.collect()
                self.allocated.append(tracemalloc.get_traced_memory()[0])
                yield report
        finally:
            tracemalloc.stop()


def test_blocks_leave_nothing_behind(tmp_path):
    executor = Traced()
    extract_features(
        tmp_path / "store",
        write_images(tmp_path / "images", 640),
        root=tmp_path / "images",
        backbones=[Repeating()],
        features=["grid"],
        block_rows=32,
        batch_size=8,
        executor=executor,
    )
    one_block = 32 * 16 * 1024
    assert len(executor.allocated) == 20
    assert executor.allocated[1] > one_block
    # 544 images lie between the two: 100 bytes for each would be seen.
    assert executor.allocated[-2] - executor.allocated[1] < 50_000


class Images(dict):
    """A dict that can be watched."""


def test_the_list_of_images_is_let_go_before_the_first_block(tmp_path):
    watched = []

    def make_images():
        images = Images(write_images(tmp_path / "images", 4))
        watched.append(weakref.ref(images))
        return images

    class Looking(InProcess):
        def run(self, work, blocks, *, on_images):
            gc.collect()
            watched.append(watched[0]())
            return super().run(work, blocks, on_images=on_images)

    report = extract_features(
        tmp_path / "store",
        make_images(),
        root=tmp_path / "images",
        backbones=[Repeating()],
        features=["grid"],
        executor=Looking(),
    )
    assert watched[1] is None
    assert report.n_decoded == 4
