"""What looking after a store costs: MB/s of `verify` beside reading the same files, of `merge`
beside copying them.

Patch tokens of ViT-L/14 in half precision, made up.

    python -m benchmarks.verify [--images 1024]
"""

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from clare_cache.store import ArrayEntry, BlockData, create_store, verify
from clare_cache.types import ArraySpec
from clare_cache.workflow.merge import merge

TOKENS = ArraySpec("clip_patch_tokens", (256, 1024), ("patch", "channel"), "float16", "made up")
BLOCK_ROWS = 256
REPEATS = 3


def make(folder: Path, first: int, n_images: int) -> None:
    """A store of `n_images` whose ids begin at `first`."""
    writer = create_store(folder, block_rows=BLOCK_ROWS)
    writer.add_images([f"{number:064x}" for number in range(first, first + n_images)])
    writer.declare([ArrayEntry("clean", TOKENS, 0, {"weights": "made up"})])
    random = np.random.default_rng(first)
    values = random.standard_normal((BLOCK_ROWS, *TOKENS.shape), np.float32).astype("float16")
    for block in range(n_images // BLOCK_ROWS):
        rows = np.arange(block * BLOCK_ROWS, (block + 1) * BLOCK_ROWS)
        writer.write_block(BlockData("clean", TOKENS.name, block, rows, values), versions={})


def seconds_of(act: Callable[[], object]) -> float:
    """Median of a few calls, after one that is not counted."""
    act()
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def read(folder: Path) -> int:
    """Bytes below a folder, by reading them."""
    return sum(len(path.read_bytes()) for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1024, help="a multiple of 512")
    n_images = parser.parse_args().images
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(2):
            make(folder / f"{number}", number * n_images, n_images // 2)
        size = read(folder / "0")
        reading = seconds_of(lambda: read(folder / "0"))
        verifying = seconds_of(lambda: verify(folder / "0"))
        print(
            f"{size / 1e6:,.0f} MB: verify {size / verifying / 1e6:,.0f} MB/s, reading the files "
            f"{size / reading / 1e6:,.0f} MB/s: {verifying / reading:.1f} times as long"
        )

        def merge_anew() -> None:
            shutil.rmtree(folder / "out", ignore_errors=True)
            merge(folder / "out", [folder / "0", folder / "1"])

        def copy_anew() -> None:
            for number in range(2):
                shutil.rmtree(folder / f"copy-{number}", ignore_errors=True)
                shutil.copytree(folder / f"{number}", folder / f"copy-{number}")

        merging, copying = seconds_of(merge_anew), seconds_of(copy_anew)
        print(
            f"merge of two: {2 * size / merging / 1e6:,.0f} MB/s, copying the files "
            f"{2 * size / copying / 1e6:,.0f} MB/s without flushing: {merging / copying:.1f} times "
            "as long"
        )


if __name__ == "__main__":
    main()
