"""Peak resident memory of an extraction, at some images and at ten times as many.

The networks are a stub (arithmetic on pixels, rows of an error map's size), so that what is seen is
the pipeline's own: manifest, plan, decoding, blocks, records. Their libraries are loaded, as in any
extraction; no weights are. Every image has bytes of its own.

`--plan` measures what the planning process keeps while others do the blocks, without images.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
from numpy.typing import NDArray

from clare_cache.extraction import InProcess, extract_features
from clare_cache.images import Preparation, encode_png
from clare_cache.manifest import Manifest
from clare_cache.types import ArraySpec, ImageId
from clare_cache.workflow.features import paths_by_image

SIDE_PX = 32
FOLDER_IMAGES = 1000


class Stub:
    """Rows of an error map's size from the pixels of a picture, without a network."""

    name, source, largest_batch = "stub", "no weights", 16
    arrays = (
        ArraySpec("stub", (4, SIDE_PX, SIDE_PX), ("copy", "row", "column"), "float32", "red"),
    )
    preprocess = Preparation("squash", SIDE_PX)

    def declared(self, array: str) -> Mapping[str, Any]:
        return {"quantity": "red"}

    def upload(self, batch: NDArray[np.generic]) -> NDArray[np.generic]:
        return batch

    def take_seconds(self) -> Mapping[str, float]:
        return {}

    def __call__(
        self, batch: NDArray[np.generic], image_ids: Sequence[ImageId], wanted: Sequence[str]
    ) -> dict[str, NDArray[np.generic]]:
        red = batch[:, None, :, :, 0].astype(np.float32)
        return {"stub": np.repeat(red, 4, axis=1)}


def write_images(root: Path, n_images: int) -> Manifest:
    """PNG files of noise in folders of a thousand, and their manifest."""
    import hashlib

    rows = []
    for number in range(n_images):
        noise = np.random.default_rng(number).integers(0, 256, (SIDE_PX, SIDE_PX, 3), np.uint8)
        data = encode_png(noise)
        path = f"{number // FOLDER_IMAGES:05d}/{number:08d}.png"
        if number % FOLDER_IMAGES == 0:
            (root / path).parent.mkdir(parents=True)
        (root / path).write_bytes(data)
        rows.append({"image_id": hashlib.sha256(data).hexdigest(), "path": path, "label": 0})
    return Manifest.from_rows(pd.DataFrame(rows))


def extract_once(manifest: Path, root: Path, store: Path, *, block_rows: int) -> int:
    """Peak resident bytes of this process after an extraction of all images."""
    import diffusers  # noqa: F401
    import open_clip  # noqa: F401
    import torch  # noqa: F401

    images = paths_by_image(Manifest.read(manifest))
    report = extract_features(
        store, images, root=root, backbones=[Stub()], features=["stub"], block_rows=block_rows
    )
    if report.n_failed or report.n_decoded != report.n_images:
        raise SystemExit(f"expected every image in the store, found {report}")
    # Linux counts kibibytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(n_images: int, *, block_rows: int, folder: Path) -> int:
    """The same in a process of its own."""
    root = folder / f"images-{n_images}"
    manifest = write_images(root, n_images).write(folder / f"{n_images}.parquet")
    command = [sys.executable, "-m", "benchmarks.memory", "--child", str(manifest), str(root)]
    command += [str(folder / f"store-{n_images}"), "--block-rows", str(block_rows)]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(found.stdout)


class Stopped(Exception):
    """The plan is made; nobody does the blocks."""


class KeptByPlan(InProcess):
    """Notes the resident memory when blocks are about to be done, and stops there."""

    def run(self, work: Any, blocks: Sequence[int], *, on_images: Any = None) -> Any:
        self.nbytes = psutil.Process().memory_info().rss
        raise Stopped


def plan_once(manifest: Path, store: Path) -> int:
    """Resident bytes of this process when the blocks of a first call are planned."""
    rows = Manifest.read(manifest)
    executor = KeptByPlan()
    with suppress(Stopped):
        # Retrying looks for no image before the first block: there are none.
        extract_features(
            store,
            paths_by_image(rows),
            root=store.parent,
            backbones=[Stub()],
            features=["stub"],
            retry_failed=True,
            executor=executor,
        )
    return executor.nbytes


def measure_plan(n_images: int, folder: Path) -> int:
    """The same in a process of its own, of made-up images in a hundred videos."""
    numbers = range(n_images)
    rows = {
        "image_id": [f"{number * 7919:064x}" for number in numbers],
        "path": [f"train/fake/{number % 100:02d}/{number:08d}.png" for number in numbers],
        "label": [number % 2 for number in numbers],
        "group": [f"video-{number % 100}" for number in numbers],
    }
    manifest = Manifest.from_rows(pd.DataFrame(rows)).write(folder / f"{n_images}.parquet")
    command = [sys.executable, "-m", "benchmarks.memory", "--plan-child", str(manifest)]
    command.append(str(folder / f"store-{n_images}"))
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(arguments: Sequence[str] | None = None) -> float:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--block-rows", type=int, default=256)
    parser.add_argument("--child", nargs=3, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--plan", action="store_true", help="of the planning process alone")
    parser.add_argument("--plan-child", nargs=2, type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args(arguments)
    if told.plan_child:
        print(plan_once(*told.plan_child))
        return 0.0
    if told.child:
        print(extract_once(*told.child, block_rows=told.block_rows))
        return 0.0
    with tempfile.TemporaryDirectory() as name:
        peaks = {
            n: measure_plan(n, Path(name))
            if told.plan
            else measure(n, block_rows=told.block_rows, folder=Path(name))
            for n in (told.images, told.images * told.times)
        }
    (few, less), (many, more) = peaks.items()
    for n, peak in peaks.items():
        print(f"{n:8d} images: {peak / 2**20:7.1f} MiB")
    print(
        f"{more / less:.3f} times, {(more - less) / (many - few):.0f} bytes for each further image"
    )
    return more / less


if __name__ == "__main__":
    main()
