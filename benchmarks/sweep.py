"""Sweeps beside single trainings, and a step from the cache beside the same step from pixels.

Stores hold made-up rows at the papers' shapes, for a stated fraction of their images; all timings
include reading. The limit is a shuffled epoch of a memory-mapped file of the same bytes, timed in
the same run: what of it a training reads tells whether reading or computing sets its pace.
Wall-clock seconds stand beside processor seconds, which other work on the machine
disturbs less. Operations are those of torch's own counter (matrix products of one step).
"""

import argparse
import itertools
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from clare_cache.data import FeatureData, full_shuffle, load
from clare_cache.heads import build_head
from clare_cache.heads.protocol import TextTower
from clare_cache.manifest import Manifest
from clare_cache.store import ArrayEntry, BlockData, create_store, open_store
from clare_cache.train.config import OptimiserConfig
from clare_cache.train.loop import Member, time_steps, train_members
from clare_cache.types import ArraySpec, ImageId

RINE_IMAGES, CLARE_IMAGES = 144_000, 42_000
BLOCK_CLS = ArraySpec("clip_block_cls", (24, 1024), ("block", "channel"), "float16", "made up")
CLARE_ARRAYS = (
    ArraySpec("error_map", (4, 32, 32), ("channel", "row", "column"), "float32", "made up"),
    ArraySpec("clip_patch_tokens", (256, 1024), ("patch", "channel"), "float16", "made up"),
    ArraySpec("clip_embedding", (768,), ("channel",), "float16", "made up"),
)
BATCH = 128
"""Of RINE, as published."""
VALIDATION_SHARE = 16
"""One validation image for so many training images: this is about training."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=["rine", "clare", "pixels"],
                        help="rine, clare, pixels; default: all")  # fmt: skip
    parser.add_argument("--fraction", type=float, default=1 / 64, help="of the papers' images")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rine-batch", type=int, default=BATCH)
    parser.add_argument("--clare-batch", type=int, default=16)
    parser.add_argument("--singles", action="store_true", help="also train RINE's 48 one by one")
    parser.add_argument("--sd", default="random:sd21")
    parser.add_argument("--clip", default="random:ViT-L-14")
    parser.add_argument("--pixels-batch", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="for the stores; default: a temporary one")
    given = parser.parse_args()
    print(f"{given.device}, {torch.get_num_threads()} threads, torch {torch.__version__}, float32")
    folder = given.folder or Path(tempfile.mkdtemp(prefix="clare-cache-sweep-"))
    try:
        for part in given.parts:
            {"rine": rine, "clare": clare, "pixels": pixels}[part](given, folder)
            print(f"peak memory so far: {_peak(given.device)}\n", flush=True)
    finally:
        if given.folder is None:
            shutil.rmtree(folder)


def rine(given: argparse.Namespace, folder: Path) -> None:
    """The 48-point grid of the paper against the largest of its members, and 48 trainings."""
    train, validation, limit = _data(folder / "rine", [BLOCK_CLS], RINE_IMAGES, given)
    grid = list(itertools.product((0.1, 0.2, 0.4, 0.8), (1, 2, 4), (128, 256, 512, 1024)))
    largest = [(0.2, 4, 1024)]
    _title("RINE", train, RINE_IMAGES, given.rine_batch, limit)
    operations = {
        name: _operations(_rine_members(points), {"clip_block_cls": (24, 1024)}, given.rine_batch)
        for name, points in (("grid", grid), ("largest", largest))
    }
    alone = _train(_rine_members(largest), train, validation, given.rine_batch, given.device)
    together = _train(_rine_members(grid), train, validation, given.rine_batch, given.device)
    again = _train(_rine_members(largest), train, validation, given.rine_batch, given.device)
    alone = min(alone, again, key=lambda spent: spent.processor)
    _show("largest member alone (q 4, d' 1024)", alone, train, limit)
    _show("48 members in one pass", together, train, limit)
    _ratio("48 members / largest alone", together, alone, "target 14 on CPU, 5 on GPU")
    by_operations = operations["grid"] / operations["largest"]
    grid_gflop, largest_gflop = (operations[name] / 1e9 for name in ("grid", "largest"))
    print(f"  by operations {by_operations:.2f} ({grid_gflop:,.0f} and {largest_gflop:,.0f} GFLOP)")
    if given.singles:
        spent = [
            _train(_rine_members([point]), train, validation, given.rine_batch, given.device)
            for point in grid
        ]
        singles = Spent(sum(s.wall for s in spent), sum(s.processor for s in spent))
        _show("48 trainings, one after the other", singles, train, limit, epochs=len(grid))
        _ratio("48 trainings / 48 members in one pass", singles, together, "")


def clare(given: argparse.Namespace, folder: Path) -> None:
    """Sixteen members over learning rates and weight decays, with each kind of prompts."""
    train, validation, limit = _data(folder / "clare", CLARE_ARRAYS, CLARE_IMAGES, given)
    _title("CLaRE", train, CLARE_IMAGES, given.clare_batch, limit)
    text = _text_tower(given.device)
    settings = [
        OptimiserConfig(optimiser="sgd", lr=lr, weight_decay=decay)
        for lr, decay in itertools.product((5e-4, 1e-3, 2e-3, 4e-3), (0, 1e-4, 5e-4, 1e-3))
    ]
    for prompts in ("coop", "cocoop"):
        one, sixteen = (
            _train(
                _clare_members(prompts, chosen, text), train, validation, given.clare_batch,
                given.device,
            )
            for chosen in (settings[:1], settings)
        )  # fmt: skip
        _show(f"{prompts}: one member", one, train, limit)
        _show(f"{prompts}: 16 members in one pass", sixteen, train, limit)
        _ratio(f"{prompts}: 16 members / one", sixteen, one, "")


def pixels(given: argparse.Namespace, folder: Path) -> None:
    """One training step from cached features, and from pictures with plain prompts."""
    from clare_cache.backbones import load_backbones
    from tests.plain_heads import plain_logits

    n = given.pixels_batch
    backbones = load_backbones(
        sd=given.sd, clip=given.clip, features=[s.name for s in CLARE_ARRAYS],
        device=given.device,
    )  # fmt: skip
    text = _text_tower(given.device)
    pictures = np.random.default_rng(0).integers(0, 256, (n, 256, 256, 3), dtype=np.uint8)
    ids = [ImageId(f"{number:064x}") for number in range(n)]
    wanted = [spec.name for spec in CLARE_ARRAYS]
    print(f"CLaRE, a training step of {given.clare_batch} images, seconds an image: from pictures "
          f"({given.clip} and {given.sd} look at each once, {n} at a time; two padded prompts of "
          "77 tokens) and from the cache")  # fmt: skip
    began = time.perf_counter()
    rows: dict[str, torch.Tensor] = {}
    for backbone in backbones:
        batch = np.stack([backbone.preprocess(picture) for picture in pictures])
        asked = [spec.name for spec in backbone.arrays if spec.name in wanted]
        made = backbone(batch, ids, asked)
        rows |= {k: torch.as_tensor(np.asarray(v), device=given.device) for k, v in made.items()}
    looking = (time.perf_counter() - began) / n
    del backbones
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in rows.items()}
    features = {
        name: torch.rand(given.clare_batch, *shape, device=given.device)
        for name, shape in shapes.items()
    }
    labels = torch.arange(given.clare_batch, device=given.device) % 2
    print(f"  looking at a picture: {looking:.2f} s")
    for prompts, target in (("cocoop", 60), ("coop", 1000)):
        head = build_head("clare", shapes=shapes, text=text, prompts=prompts).to(given.device)
        head.train()
        # The published code forms both prompts of a batch's images with CoCoOp, of a batch with
        # CoOp: as here.
        began = time.perf_counter()
        F.cross_entropy(plain_logits(head, features), labels).backward()
        plain = (time.perf_counter() - began) / given.clare_batch
        timing = time_steps(
            [Member(prompts, head, OptimiserConfig(optimiser="sgd", lr=2e-3))],
            shapes, batch_size=given.clare_batch, device=given.device,
        )  # fmt: skip
        cached = timing.seconds / given.clare_batch
        print(f"  {prompts}: {looking + plain:.3f} s from pictures ({plain:.3f} of it the plain "
              f"head), {cached:.5f} s from the cache: {(looking + plain) / cached:,.0f}× "
              f"(target {target}×)")  # fmt: skip


@dataclass(frozen=True)
class Spent:
    wall: float
    processor: float


def _train(
    members: Sequence[Member], train: FeatureData, validation: FeatureData, batch: int, device: str
) -> Spent:
    """One epoch, reading and validation included."""
    began, at = time.process_time(), time.perf_counter()
    _, lost = train_members(members, train, validation, epochs=1, batch_size=batch, device=device)
    if lost:
        raise SystemExit(f"members burst: {lost}")
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return Spent(time.perf_counter() - at, time.process_time() - began)


def _show(what: str, spent: Spent, train: FeatureData, limit: float, *, epochs: int = 1) -> None:
    rate = epochs * _nbytes(train) / spent.wall
    print(f"  {what:42} {spent.wall:9.2f} s, {spent.processor:9.2f} s of processor, "
          f"{rate / 1e6:8.1f} MB/s read ({rate / limit:.3%} of the limit), "
          f"peak memory {_peak(train.residence.device.type)}", flush=True)  # fmt: skip


def _nbytes(train: FeatureData) -> int:
    """Of the training images' arrays."""
    return len(train) * sum(
        int(np.prod(shape)) * (4 if name == "error_map" else 2)
        for name, shape in train.shapes.items()
    )


def _limit(raw: Sequence[np.memmap], n: int, batch: int) -> float:
    """Bytes a second of a shuffled epoch out of memory-mapped files: the best of three, warm."""
    outs = [np.empty((batch, *file.shape[1:]), file.dtype) for file in raw]
    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        for rows in full_shuffle(n, np.random.default_rng(0), batch):
            for file, out in zip(raw, outs, strict=True):
                np.take(file, rows, axis=0, out=out[: len(rows)], mode="clip")
        seconds.append(time.perf_counter() - began)
    return n * sum(file[0].nbytes for file in raw) / min(seconds[1:])


def _ratio(what: str, spent: Spent, other: Spent, note: str) -> None:
    wall, processor = spent.wall / other.wall, spent.processor / other.processor
    print(f"  {what:42} {wall:9.2f}×, {processor:9.2f}× by processor time  {note}", flush=True)


def _title(what: str, train: FeatureData, n_paper: int, batch: int, limit: float) -> None:
    n = len(train)
    print(
        f"{what}, {n:,} of {n_paper:,} images (factor {n_paper / n:.0f}), batch {batch}, ", end=""
    )
    print(train.residence)
    began = time.perf_counter()
    for _ in train.epoch(np.random.default_rng(0), batch):
        pass
    rate = _nbytes(train) / (time.perf_counter() - began)
    print(f"  limit {limit / 1e9:.1f} GB/s, a memory-mapped file of the same bytes; an epoch that "
          f"only reads has {rate / 1e9:.1f} GB/s, {rate / limit:.0%}", flush=True)  # fmt: skip


def _operations(members: Sequence[Member], shapes: dict[str, Any], batch: int) -> int:
    """Of one step, forward and backward. Two steps are run, one of them to warm up."""
    with FlopCounterMode(display=False) as counter:
        time_steps(members, shapes, batch_size=batch, n_steps=1)
    return counter.get_total_flops() // 2


def _rine_members(points: Sequence[tuple[float, int, int]]) -> list[Member]:
    return [
        Member(
            f"rine-{xi}-{depth}-{width}",
            build_head("rine", depth=depth, width=width, contrastive_weight=xi, seed=1),
            OptimiserConfig(lr=1e-3),
        )
        for xi, depth, width in points
    ]


def _clare_members(
    prompts: str, settings: Sequence[OptimiserConfig], text: TextTower
) -> list[Member]:
    return [
        Member(f"{prompts}-{n}", build_head("clare", text=text, prompts=prompts, seed=1), config)
        for n, config in enumerate(settings)
    ]


def _text_tower(device: str) -> TextTower:
    from benchmarks.heads import CLIP_CONFIG
    from clare_cache.backbones.clip_models import build_clip
    from clare_cache.backbones.text import ClipTextTower

    return ClipTextTower(build_clip(CLIP_CONFIG), {"weights": "random"}, device=device)


def _data(
    folder: Path, specs: Sequence[ArraySpec], n_paper: int, given: argparse.Namespace
) -> tuple[FeatureData, FeatureData, float]:
    """Images to train on, images to validate on, and the limit of reading the former."""
    batch = given.rine_batch if specs == [BLOCK_CLS] else given.clare_batch
    n_train = max(round(n_paper * given.fraction), 2 * max(batch, 8))
    n = n_train + max(n_train // VALIDATION_SHARE, 16)
    ids = [ImageId(f"{number:064x}") for number in range(n)]
    writer = create_store(folder, block_rows=256)
    writer.declare([ArrayEntry("clean", spec, 0, {"weights": "made up"}) for spec in specs])
    writer.add_images(ids)
    generator = np.random.default_rng(0)
    raw = [
        np.memmap(folder / f"{spec.name}.raw", spec.dtype, "w+", shape=(n, *spec.shape))
        for spec in specs
    ]
    for first in range(0, n, 256):
        rows = np.arange(first, min(first + 256, n))
        for spec, file in zip(specs, raw, strict=True):
            values = generator.standard_normal((len(rows), *spec.shape), dtype=np.float32)
            file[rows] = np.abs(values)
            block = BlockData(view="clean", array=spec.name, block=first // 256, rows=rows,
                              values=np.abs(values).astype(spec.dtype), failed={})  # fmt: skip
            writer.write_block(block, versions={})
    table = Manifest.from_rows(
        pd.DataFrame({"image_id": ids, "path": [f"{i}.png" for i in ids],
                      "label": np.arange(n) % 2, "group": ids})
    )  # fmt: skip
    store, needs = open_store(folder), [spec.name for spec in specs]
    train, validation = (
        load(store, Manifest.from_rows(table.rows.iloc[part]), needs=needs, device=given.device)
        for part in (slice(0, n_train), slice(n_train, n))
    )
    return train, validation, _limit(raw, n_train, batch)


def _peak(device: str) -> str:
    if device.startswith("cuda"):
        return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB on the GPU"
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return f"{peak / 2**30:.1f} of {psutil.virtual_memory().total / 2**30:.0f} GiB"


if __name__ == "__main__":
    main()
