"""A small store of made-up CLIP features, and manifests: stage two's input without stage one."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from clare_cache.manifest import Manifest
from clare_cache.store import ArrayEntry, BlockData, Store, create_store, open_store
from clare_cache.types import ArraySpec, Failure, ImageId

EMBEDDING = ArraySpec("clip_embedding", (6,), ("joint_channel",), "float16", "made up")
BLOCK_CLS = ArraySpec("clip_block_cls", (3, 5), ("block", "channel"), "float16", "made up")
SPECS = {spec.name: spec for spec in (EMBEDDING, BLOCK_CLS)}
BLOCK_ROWS = 16


def image_id(number: int) -> ImageId:
    return ImageId(f"{number:064x}")


def feature_rows(name: str, numbers: Collection[int]) -> np.ndarray:
    """(n, *row shape) float16: noise, and for odd numbers (fake) a shift in the first channel."""
    rows = []
    for number in numbers:
        row = np.random.default_rng([number, len(name)]).standard_normal(SPECS[name].shape)
        row[..., 0] += number % 2
        rows.append(row)
    return np.array(rows, "float16").reshape(-1, *SPECS[name].shape)


def make_manifest(numbers: Collection[int]) -> Manifest:
    """One row per number, repeats allowed: odd ones are fake; three in a row are one group."""
    return Manifest.from_rows(
        pd.DataFrame(
            {
                "image_id": [image_id(n) for n in numbers],
                "path": [f"{position}/{n}.png" for position, n in enumerate(numbers)],
                "label": [n % 2 for n in numbers],
                "generator": ["gan" if n % 2 else "real" for n in numbers],
                "group": [f"group {n // 3}" for n in numbers],
            }
        )
    )


def make_store(
    path: Path, numbers: Collection[int], *, failed: Collection[int] = (), names: str | None = None
) -> Store:
    """A store of both arrays (or the named one) for these images; `failed` ones have no embedding
    but a line in the ledger."""
    writer = create_store(path, block_rows=BLOCK_ROWS)
    specs = [spec for spec in SPECS.values() if names in (None, spec.name)]
    writer.declare([ArrayEntry("clean", spec, 0, {"weights": spec.name}) for spec in specs])
    writer.add_images(image_id(n) for n in numbers)
    rows = dict(zip(numbers, writer.store.rows_of([image_id(n) for n in numbers]), strict=True))
    for spec in specs:
        bad = set(failed) if spec is EMBEDDING else set()
        for block in sorted({row // BLOCK_ROWS for row in rows.values()}):
            inside = [n for n, row in rows.items() if row // BLOCK_ROWS == block]
            good = [n for n in inside if n not in bad]
            data = BlockData(
                view="clean",
                array=spec.name,
                block=int(block),
                rows=np.array([rows[n] for n in good], np.int64),
                values=feature_rows(spec.name, good),
                failed={
                    int(rows[n]): Failure(image_id(n), f"{n}.png", "decode", f"no picture {n}")
                    for n in inside
                    if n in bad
                },
            )
            writer.write_block(data, versions={})
    return open_store(path)
