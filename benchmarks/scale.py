"""Ten million images on a thousand workers, on paper: what the plan, a worker and a scheduler cost.

Every figure is measured here, with a stub for the networks, at a size that takes minutes; what is
carried over to the full size says by which factor. Run `python -m benchmarks.scale --help`.
"""

import argparse
import importlib
import logging
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clare_cache.extraction import BlockReport, InProcess, OnDask, extract_features
from clare_cache.extraction.status import read_status
from clare_cache.extraction.versions import present_versions
from clare_cache.extraction.work import ignore_images
from clare_cache.store import StoreWriter, open_store
from clare_cache.store.schema import BLOCK_ROWS, CommitRecord, chunk_rows_for
from clare_cache.store.seal import sealed
from clare_cache.types import ArraySpec, ImageId

FULL_IMAGES, FULL_WORKERS = 10_000_000, 1_000
IMAGES_PER_SECOND = 60.0
"""Of one worker: what the scheduler must keep up with. Halve it, and its load is halved."""

REAL_ARRAYS = (
    ArraySpec("error_map", (4, 32, 32), ("c", "row", "column"), "float32", ""),
    ArraySpec("clip_patch_tokens", (256, 1024), ("patch", "channel"), "float16", ""),
    ArraySpec("clip_block_cls", (24, 1024), ("block", "channel"), "float16", ""),
    ArraySpec("clip_embedding", (768,), ("joint_channel",), "float16", ""),
)
STUBS = tuple(ArraySpec(f"stub_{n}", (2,), ("number",), "float32", "a stub") for n in range(4))


class StubBackbone:
    """Four arrays of two numbers an image; nothing is computed."""

    name = "stub"
    source = "stub"
    arrays = STUBS

    def declared(self, array: str) -> dict[str, Any]:
        return {"array": array}

    def preprocess(self, pixels: Any) -> Any:
        return pixels[:1, :1]

    def __call__(
        self, batch: Any, image_ids: Sequence[str], wanted: Sequence[str]
    ) -> dict[str, Any]:
        return {name: np.zeros((len(batch), 2), np.float32) for name in wanted}


class Planned(InProcess):
    """Does no block: what is measured is all that comes before."""

    def run(self, work: Any, blocks: Sequence[int], *, on_images: Any) -> Iterator[BlockReport]:
        print_fact("blocks to do", len(blocks))
        yield from ()


@dataclass(frozen=True, eq=False)
class StubWork:
    """Travels like the real work of a block, and sleeps as long as it is told."""

    seconds: float
    store: str = "/somewhere/on/a/shared/file/system/store"
    request: str = "requests/0123456789abcdef.parquet"
    features: tuple[str, ...] = tuple(spec.name for spec in REAL_ARRAYS)

    def __call__(self, block: int, on_images: Any = ignore_images) -> BlockReport:
        time.sleep(self.seconds)
        seconds = {"decode": 1.234567, "error_map": 2.345678, "clip": 0.456789, "write": 0.123456}
        return BlockReport(block=block, n_images=256, n_decoded=256, seconds=seconds)


def print_fact(what: str, value: Any, unit: str = "") -> None:
    number = f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
    print(f"  {what:52} {number:>16} {unit}", flush=True)


# ------------------------------------------------------------------ files, by arithmetic


def print_files() -> None:
    print(f"Files of {FULL_IMAGES:,} images, four arrays, one view, by --block-rows:")
    for block_rows in (256, 1024, 4096):
        blocks = -(-FULL_IMAGES // block_rows)
        chunks = sum(-(-FULL_IMAGES // chunk_rows_for(spec, block_rows)) for spec in REAL_ARRAYS)
        print(
            f"  {block_rows:5}: {chunks:>9,} chunks, {blocks * len(REAL_ARRAYS):>8,} commit "
            f"records, {blocks:>6,} in each of {len(REAL_ARRAYS)} folders"
        )


# ------------------------------------------------------------------ plan, resume, status


def measure(name: str, function: Callable[..., None], *arguments: Any) -> None:
    """Print the seconds and the memory that a call takes in a process of its own."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_measured, args=(sender, function, arguments))
    process.start()
    seconds, cpu_seconds, gib = receiver.recv()
    process.join()
    print_fact(name, seconds, f"s ({cpu_seconds:.2f} s of CPU)")
    print_fact("  memory that it added", gib, "GiB")


def _measured(sender: Any, function: Callable[..., None], arguments: Sequence[Any]) -> None:
    images = make_images(arguments[1]) if function is plan else None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began, cpu_began = time.perf_counter(), time.process_time()
    function(*arguments, *([images] if images is not None else []))
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    sender.send((seconds, cpu_seconds, added / 2**20))


def make_images(n_images: int) -> dict[ImageId, tuple[str, ...]]:
    """What a manifest of so many images gives: ids like digests, and a path each."""
    digits = np.random.default_rng(0).integers(0, 256, (n_images, 32), dtype=np.uint8)
    ids = digits.tobytes().hex()
    return {
        ImageId(ids[64 * n : 64 * n + 64]): (f"train/part-{n % 1000:03d}/image-{n:08d}.jpg",)
        for n in range(n_images)
    }


def plan(
    store: str, n_images: int, shard: tuple[int, int] | None, images: Mapping[ImageId, Any]
) -> None:
    extract_features(
        store,
        images,
        root="/",
        backbones=[StubBackbone()],
        features=[spec.name for spec in STUBS],
        retry_failed=True,  # so that no image is looked for below the root
        shard=shard,
        executor=Planned(),
    )


def commit_half(store: str) -> None:
    """Records of every other block, written as the store writes them."""
    writer = StoreWriter(store)
    n_blocks = -(-writer.store.n_rows // writer.description.block_rows)
    for spec in STUBS:
        entry = writer.store[f"clean/{spec.name}"].entry
        folder = Path(store) / "commits/clean" / spec.name
        folder.mkdir(parents=True, exist_ok=True)
        for block in range(0, n_blocks, 2):
            first, stop = writer.rows_of_block(block)
            record = CommitRecord(
                view="clean",
                array=spec.name,
                block=block,
                fingerprint=entry.fingerprint,
                rows=tuple(range(first, stop)),
                failed=(),
                checksums={"c/0/0": 1234567890},
                ledger=None,
                seconds=4.2,
                versions=present_versions(),
                finished_at=f"2026-01-01T{block // 3600 % 24:02d}:{block // 60 % 60:02d}:00+00:00",
            )
            (folder / f"{block}.json").write_bytes(sealed(record.to_json()))


def show_status(store: str) -> None:
    assert len(read_status(open_store(store))) == len(STUBS)


def print_plan(n_images: int) -> None:
    factor = FULL_IMAGES / n_images
    print(f"Plan of {n_images:,} images; times and memory of the full size are {factor:.0f} times:")
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/store"
        measure("first call: index, arrays, request, plan", plan, store, n_images, None)
        commit_half(store)
        n_records = sum(1 for _ in Path(store, "commits").rglob("*.json"))
        print_fact("commit records, half of the blocks", n_records)
        measure("resume: one run or one scheduler's client", plan, store, n_images, None)
        measure(
            f"resume: one of {FULL_WORKERS:,} array tasks", plan, store, n_images, (0, FULL_WORKERS)
        )
        measure("store status", show_status, store)
        print_worker(store, n_images)


# ------------------------------------------------------------------ a worker's block


def print_worker(store: str, n_images: int) -> None:
    """What a block costs a worker beside its networks: opening the store, finding its images."""
    from clare_cache.extraction.request import read_request

    name = next(Path(store, "requests").glob("*.parquet")).name
    opened, began = [0], time.perf_counter()

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and str(arguments[0]).startswith(store):
            opened[0] += 1

    sys.addaudithook(count)
    rounds = 5
    for number in range(rounds):
        writer = StoreWriter(store)
        first, stop = writer.rows_of_block(number)
        paths = read_request(writer.place, f"requests/{name}", first=first, stop=stop)
        writer.store.ids_of_rows(sorted(paths))
        for spec in STUBS:
            writer.record("clean", spec.name, number)
    seconds = (time.perf_counter() - began) / rounds
    print_fact("worker: to find the images of a block", 1000 * seconds, "ms")
    print_fact("worker: files opened for it", opened[0] / rounds)
    size = (
        Path(store, "requests", name).stat().st_size + Path(store, "index.parquet").stat().st_size
    )
    print_fact(f"index and request at {n_images:,} images", size / 2**20, "MiB")


# ------------------------------------------------------------------ scheduler


def print_scheduler(n_workers: int, n_blocks: int) -> None:
    """CPU time and messages of scheduler and client for a block; the workers are other processes.

    CPU time, because it does not depend on what else this machine does.
    """
    from distributed import Client, LocalCluster
    from distributed.comm import tcp

    needed = FULL_WORKERS * IMAGES_PER_SECOND / BLOCK_ROWS
    print(f"Scheduler and client in one process, {n_workers} workers, {n_blocks:,} blocks:")
    counted = {"messages": 0, "bytes": 0}
    read, write = tcp.from_frames, tcp.to_frames

    async def counting_read(frames: Any, *arguments: Any, **options: Any) -> Any:
        count(frames)
        return await read(frames, *arguments, **options)

    async def counting_write(*arguments: Any, **options: Any) -> Any:
        frames = await write(*arguments, **options)
        count(frames)
        return frames

    def count(frames: Any) -> None:
        counted["messages"] += 1
        counted["bytes"] += sum(memoryview(frame).nbytes for frame in frames)

    with (
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.ERROR,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(n_workers)
        # By its own name, not as __main__: else its source would travel with every block.
        stub = importlib.import_module("benchmarks.scale").StubWork
        list(OnDask(client).run(stub(0.0), range(50)))  # the workers import
        tcp.from_frames, tcp.to_frames = counting_read, counting_write
        began = time.process_time()
        try:
            done = sum(1 for _ in OnDask(client).run(stub(0.005), range(n_blocks)))
        finally:
            tcp.from_frames, tcp.to_frames = read, write
        seconds = (time.process_time() - began) / n_blocks
    assert done == n_blocks
    print_fact("CPU time a block", 1000 * seconds, "ms")
    print_fact("messages a block, heartbeats included", counted["messages"] / n_blocks)
    print_fact("bytes a block", counted["bytes"] / n_blocks, "B")
    print_fact(f"blocks/s of {FULL_WORKERS:,} workers at full speed", needed)
    print_fact("messages/s then", needed * counted["messages"] / n_blocks)
    print_fact("bytes/s then", needed * counted["bytes"] / n_blocks / 2**20, "MiB/s")
    print_fact("share of one processor core then", needed * seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500_000, help="of the plan")
    parser.add_argument("--workers", type=int, default=4, help="of the scheduler")
    parser.add_argument("--blocks", type=int, default=4_000, help="of the scheduler")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print_files()
    print_plan(options.images)
    print_scheduler(options.workers, options.blocks)


if __name__ == "__main__":
    main()
