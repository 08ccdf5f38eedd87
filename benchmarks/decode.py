"""Reading, decoding and preparing images in threads and in processes: images per second.

Also beside a thread that keeps Python's lock busy, as one that feeds a GPU with small kernels does.
"""

import argparse
import hashlib
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from clare_cache.extraction.decoding import (
    DECODE_IN,
    DecodeIn,
    Item,
    Pictures,
    close_processes,
    look_ahead,
    open_pool,
)
from clare_cache.images import Preparation, encode_jpeg
from clare_cache.types import ImageId

PREPARE = {"clean": [Preparation("squash", 256), Preparation("center-crop", 224)]}
BATCH = 16


def write_images(folder: Path, n_images: int, side_px: int) -> list[Item]:
    """JPEG files of smooth and noisy parts."""
    items = []
    for number in range(n_images):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
        smooth = np.asarray(coarse.resize((side_px, side_px)), np.int16)
        noisy = np.clip(smooth + rng.integers(-9, 10, smooth.shape), 0, 255).astype(np.uint8)
        data = encode_jpeg(noisy, 92)
        (folder / f"{number}.jpg").write_bytes(data)
        image_id = ImageId(hashlib.sha256(data).hexdigest())
        items.append(Item(number, image_id, (f"{number}.jpg",)))
    return items


@contextmanager
def busy_python(wanted: bool) -> Iterator[None]:
    """A block beside which, if wanted, another thread does nothing but run Python."""
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            pass

    thread = threading.Thread(target=spin, daemon=True)
    if wanted:
        thread.start()
    try:
        yield
    finally:
        stop.set()


def rate(items: Sequence[Item], root: Path, kind: DecodeIn, workers: int, *, busy: bool) -> float:
    with open_pool(kind, workers) as pool, busy_python(busy):
        look_ahead(pool, Pictures(root), items[:BATCH], PREPARE)()
        began = time.perf_counter()
        waiting = [
            look_ahead(pool, Pictures(root), items[start : start + BATCH], PREPARE)
            for start in range(0, len(items), BATCH)
        ]
        for collect in waiting:
            collect()
        return len(items) / (time.perf_counter() - began)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--side-px", type=int, default=512)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    told = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        items = write_images(Path(name), told.images, told.side_px)
        for busy in (False, True):
            print("beside a busy Python thread" if busy else "alone")
            for workers in told.workers:
                rates = {k: rate(items, Path(name), k, workers, busy=busy) for k in DECODE_IN}
                shown = ", ".join(f"{kind} {found:.0f} images/s" for kind, found in rates.items())
                ratio = rates["processes"] / rates["threads"]
                print(f"  {workers} at once: {shown}; ratio {ratio:.2f}", flush=True)
    close_processes()


if __name__ == "__main__":
    main()
