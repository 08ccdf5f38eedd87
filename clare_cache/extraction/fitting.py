"""As many pictures at once as fit into memory and bring speed. Knows no network by name."""

import time
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from clare_cache.backbones.protocol import Backbone, PictureBatch
from clare_cache.errors import ExtractError
from clare_cache.types import ImageId

SMALLEST_BATCH = 16
"""Where `choose_batch_size` begins: the default elsewhere."""

WORTHWHILE = 1.05
"""A doubled batch must be this much faster an image."""

EXAMPLE_PX = 512

_at_once: WeakKeyDictionary[Backbone, int] = WeakKeyDictionary()
"""Backbones that once ran out of memory, with the number of pictures they are shown since."""


def look_at(
    backbone: Backbone,
    pictures: PictureBatch,
    image_ids: Sequence[ImageId],
    wanted: Sequence[str],
    *,
    notes: list[str],
) -> dict[str, NDArray[np.generic]]:
    """What the backbone makes of these pictures, shown in parts if they do not fit into memory.

    Half as many at once after each failure, down to one, also in later calls; every step is told
    in `notes`. Raises ExtractError when one picture alone does not fit.
    """
    at_once, start = _at_once.get(backbone, len(pictures)), 0
    parts: list[dict[str, NDArray[np.generic]]] = []
    while start < len(pictures):
        part = slice(start, start + at_once)
        outputs = _outputs(backbone, pictures[part], image_ids[part], wanted)
        if outputs is not None:
            parts.append(outputs)
            start += at_once
            continue
        tried = len(pictures[part])
        if tried == 1:
            raise ExtractError(
                f"extract: {backbone.name} does not fit into memory, not even for one image. "
                "Free the device's memory, choose half precision with --dtype, or --device cpu."
            )
        at_once = _at_once[backbone] = -(-tried // 2)
        notes.append(
            f"{backbone.name}: {tried} images at once do not fit into memory, {at_once} from now on"
        )
    if len(parts) == 1:
        return parts[0]
    return {array: np.concatenate([part[array] for part in parts]) for array in parts[0]}


def _outputs(
    backbone: Backbone,
    pictures: PictureBatch,
    image_ids: Sequence[ImageId],
    wanted: Sequence[str],
) -> dict[str, NDArray[np.generic]] | None:
    """None when they do not fit. What the failed call held is let go by leaving this function."""
    try:
        return backbone(pictures, image_ids, wanted)
    except MemoryError:
        return None


def choose_batch_size(backbones: Sequence[Backbone], wanted: Sequence[str]) -> int:
    """The batch from which on a larger one brings less than 5 % or does not fit, by trial.

    Twice as many each time, up to what the backbones call their largest useful batch; on a CPU
    nothing is tried, for larger batches bring nothing there.
    """
    best, best_rate = SMALLEST_BATCH, 0.0
    size, limit = SMALLEST_BATCH, min((b.largest_batch for b in backbones), default=0)
    while limit > SMALLEST_BATCH and size <= limit:
        rate = _rate(backbones, wanted, size)
        if rate is None or rate < WORTHWHILE * best_rate:
            break
        best, best_rate = size, rate
        size *= 2
    return best


def _rate(backbones: Sequence[Backbone], wanted: Sequence[str], size: int) -> float | None:
    """Images per second of all backbones together, after one look to warm up."""
    seconds = 0.0
    example = np.random.default_rng(0).integers(0, 256, (EXAMPLE_PX, EXAMPLE_PX, 3), np.uint8)
    ids = [ImageId(f"{n:064x}") for n in range(size)]
    for backbone in backbones:
        pictures = np.stack([backbone.preprocess(example)] * size)
        for _ in range(2):
            began = time.perf_counter()
            if _outputs(backbone, pictures, ids, wanted) is None:
                return None
            spent = time.perf_counter() - began
        seconds += spent
        backbone.take_seconds()
    return size / seconds
