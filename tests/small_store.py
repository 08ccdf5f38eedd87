"""A store of ten rows in blocks of four, and blocks to write into it."""

import numpy as np

from clare_cache.store import ArrayEntry, BlockData, create_store
from clare_cache.types import ArraySpec, Failure

BLOCK_ROWS = 4
VECTOR = ArraySpec("vector", (3,), ("number",), "float32", "three numbers")
GRID = ArraySpec("grid", (2, 4, 4), ("channel", "row", "column"), "float16", "two planes")


def image_ids(*numbers):
    """Ids whose order is that of the numbers."""
    return [f"{number:064x}" for number in numbers]


def entry(spec=VECTOR, view="clean", **declared):
    return ArrayEntry(view, spec, 0, declared or {"weights": "w", "size_px": 8}, "some weights")


def make_store(path, n_images=10, specs=(VECTOR, GRID)):
    store = create_store(path, block_rows=BLOCK_ROWS)
    store.declare([entry(spec) for spec in specs])
    store.add_images(image_ids(*range(n_images)))
    return store


def values_of(spec, rows):
    """Distinct numbers that float16 holds exactly; row r of any array is the same everywhere."""
    one = np.arange(np.prod(spec.shape), dtype=spec.dtype).reshape(spec.shape)
    return np.stack([one + 32 * row for row in rows]) if rows else np.empty((0, *spec.shape))


def failure(row, reason="no picture"):
    return Failure(f"{row:064x}", f"{row}.png", "decode", reason)


def block(spec, rows, *, failed=(), number=None):
    rows = list(rows)
    return BlockData(
        view="clean",
        array=spec.name,
        block=(rows or list(failed))[0] // BLOCK_ROWS if number is None else number,
        rows=np.array(rows, np.int64),
        values=values_of(spec, rows),
        failed={row: failure(row) for row in failed},
        seconds=1.23456,
    )


def write_all(store, spec=VECTOR, n_images=10):
    for start in range(0, n_images, BLOCK_ROWS):
        store.write_block(
            block(spec, range(start, min(start + BLOCK_ROWS, n_images))), versions={"zarr": "3"}
        )
