"""How fast features come out of a store, beside a memory-mapped file of the same bytes.

Sequential blocks, a shuffled epoch of batches, and random rows; each way beside the memmap, in
turns, in one run, warm. And how well streamed batches are mixed, beside a full shuffle.

    python -m benchmarks.read [--images 2048] [--folder DIR]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from clare_cache.data import full_shuffle, load
from clare_cache.data.orders import pooled_shuffle
from clare_cache.manifest import Manifest
from clare_cache.store import ArrayEntry, ArrayHandle, BlockData, create_store, open_store
from clare_cache.types import ArraySpec, ImageId

TOKENS = ArraySpec("clip_patch_tokens", (256, 1024), ("patch", "channel"), "float16", "made up")
CLS = ArraySpec("clip_block_cls", (24, 1024), ("block", "channel"), "float16", "made up")
BATCH = 256
REPEATS = 5
TARGETS = {"sequential": 0.8, "shuffled epoch": 0.7, "random rows": 0.5}


def image_ids(n: int) -> list[ImageId]:
    """Ids in random order, as hashes are."""
    numbers = np.random.default_rng(0).permutation(n)
    return [ImageId(f"{number:064x}") for number in numbers]


def manifest_of(ids: list[ImageId]) -> Manifest:
    table = {"image_id": ids, "path": ids, "label": np.arange(len(ids)) % 2, "generator": "any"}
    return Manifest.from_rows(pd.DataFrame(table))


def write(folder: Path, spec: ArraySpec, n: int) -> tuple[ArrayHandle, NDArray[np.float16]]:
    """A store of `n` made-up rows, and a memmap of the same rows in the same order."""
    writer = create_store(folder / "store")
    writer.declare([ArrayEntry("clean", spec, 0, {"weights": "none"})])
    writer.add_images(image_ids(n))
    generator = np.random.default_rng(1)
    raw = np.memmap(folder / "raw", spec.dtype, "w+", shape=(n, *spec.shape))
    block_rows = writer.description.block_rows
    for start in range(0, n, block_rows):
        rows = np.arange(start, min(start + block_rows, n))
        values = generator.standard_normal((len(rows), *spec.shape), np.float32).astype(spec.dtype)
        raw[rows] = values
        writer.write_block(
            BlockData("clean", spec.name, start // block_rows, rows, values), versions={}
        )
    raw.flush()
    handle = open_store(folder / "store")[f"clean/{spec.name}"]
    return handle, np.memmap(folder / "raw", spec.dtype, "r", shape=(n, *spec.shape))


def in_turns(ways: Mapping[str, Callable[[], None]], nbytes: int) -> dict[str, list[float]]:
    """Bytes per second of every way, measured in turns after one round that does not count."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(REPEATS + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if repeat:
                rates[name].append(nbytes / (time.perf_counter() - began))
    return rates


def report(task: str, rates: Mapping[str, list[float]]) -> None:
    """One line a way: rate, and the median of its ratios to the memmap of the same round."""
    limit = rates["memmap"]
    print(f"\n{task}")
    for name, found in rates.items():
        ratio = statistics.median(a / b for a, b in zip(found, limit, strict=True))
        spread = f"{min(found) / 1e9:.2f} to {max(found) / 1e9:.2f}"
        target = ""
        if name == "store" and task in TARGETS:
            target = (
                f"  target {TARGETS[task]:.0%}: {'met' if ratio >= TARGETS[task] else 'MISSED'}"
            )
        rate = statistics.median(found) / 1e9
        print(f"  {name:<22} {rate:6.2f} GB/s ({spread}) {ratio:6.0%} of memmap{target}")


def measure(folder: Path, spec: ArraySpec, n: int) -> None:
    handle, raw = write(folder, spec, n)
    print(f"{spec.name}: {n} rows of {spec.row_nbytes:,} bytes, mapped: {handle.is_mapped}")
    nbytes = n * spec.row_nbytes
    out = np.empty((BATCH, *spec.shape), spec.dtype)
    starts = range(0, n - BATCH + 1, BATCH)

    def by_store() -> None:
        for start in starts:
            handle.read_stored(np.arange(start, start + BATCH), out)

    def by_memmap() -> None:
        for start in starts:
            np.copyto(out, raw[start : start + BATCH])

    def by_zarr() -> None:
        for start in starts:
            handle.array[start : start + BATCH]

    ways = {"memmap": by_memmap, "store": by_store, "plain zarr": by_zarr}
    report("sequential", in_turns(ways, nbytes))

    ids = image_ids(n)
    store = open_store(folder / "store")
    streamed = load(store, manifest_of(ids), needs=[spec.name], resident=False)
    resident = load(store, manifest_of(ids), needs=[spec.name], resident=True)

    def epoch_by_memmap() -> None:
        for batch in full_shuffle(n, np.random.default_rng(0), BATCH):
            np.take(raw, batch, axis=0, out=out[: len(batch)], mode="clip")

    ways = {
        "memmap": epoch_by_memmap,
        "store": lambda: exhaust(streamed.epoch(np.random.default_rng(0), BATCH)),
        "resident in RAM": lambda: exhaust(resident.epoch(np.random.default_rng(0), BATCH)),
    }
    report("shuffled epoch", in_turns(ways, nbytes))

    rows = np.random.default_rng(2).integers(0, n, (len(starts), BATCH))

    def rows_by_store() -> None:
        for some in rows:
            handle.read_stored(some, out)

    def rows_by_memmap() -> None:
        for some in rows:
            np.take(raw, some, axis=0, out=out, mode="clip")

    report("random rows", in_turns({"memmap": rows_by_memmap, "store": rows_by_store}, nbytes))


def exhaust(batches: object) -> None:
    for _ in batches:  # type: ignore[attr-defined]
        pass


def mixing(n: int = 160_000, chunk_rows: int = 16, pool_rows: int = 4096) -> None:
    """Variance of the share of fakes and of a 3% generator in batches, over that of chance."""
    generator = np.random.default_rng(0)
    units = np.arange(n) // chunk_rows
    print(
        f"\nmixing: {n:,} images, chunks of {chunk_rows}, pool of {pool_rows:,}, batches of {BATCH}"
    )
    print("  variance of a batch's share over that of independent draws (1.00)")
    by_set = generator.permutation(units.max() + 1)[units]
    stores = {
        "filled at once (hash order)": (generator.random(n) < 0.5, generator.random(n) < 0.03),
        "one label a chunk (worst)": (by_set % 2 == 0, by_set % 33 == 0),
    }
    for name, values in stores.items():
        for what, value in zip(("fake", "rare generator"), values, strict=True):
            found = {}
            pooled = pooled_shuffle(
                units, np.random.default_rng(1), batch_size=BATCH, pool_rows=pool_rows
            )
            orders = {
                "streamed": (step.positions_out for step in pooled),
                "full shuffle": full_shuffle(n, np.random.default_rng(1), BATCH),
            }
            for order, batches in orders.items():
                shares = [value[batch].mean() for batch in batches if len(batch) == BATCH]
                share = value.mean()
                found[order] = np.var(shares) / (share * (1 - share) / BATCH)
            line = ", ".join(f"{order} {ratio:.2f}" for order, ratio in found.items())
            print(f"  {name:<28} {what:<15} {line}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--folder", type=Path, default=None, help="where to write; default: /tmp")
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} threads; medians of {REPEATS} rounds in turns, warm")
    for spec, factor in ((TOKENS, 1), (CLS, 8)):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            measure(Path(folder), spec, factor * arguments.images)
        print()
    mixing()


if __name__ == "__main__":
    main()
