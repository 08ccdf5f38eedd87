"""Images with their error maps, as data URLs that need no other file."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clare_cache.types import FAKE, Pixels

THUMBNAIL_PX = 192
COLOUR_MAP = "magma"
CLIPPED_SHARE = 0.005


@dataclass(frozen=True)
class Picture:
    """An image to show: its pixels, its error map (4, h, w) if there is one, and its scores.

    `label` is 0 real or 1 fake; `scores` maps the name of a run
    (`label_runs`) to its probability of fake.
    """

    caption: str
    label: int
    pixels: Pixels
    error_map: NDArray[np.floating] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_fake(self) -> bool:
        return self.label == FAKE


@dataclass(frozen=True)
class Strip:
    """Pictures as data URLs; `low` and `high` are the values at the ends of the colour scale."""

    images: tuple[str, ...]
    error_maps: tuple[str | None, ...]
    low: float
    high: float
    gradient: str


def draw_strip(pictures: Sequence[Picture]) -> Strip:
    """All pictures on one colour scale: from the smallest value to the 99.5th percentile.

    An error map is shown as its mean over the latent channels.
    """
    from matplotlib import colormaps

    flat = [None if p.error_map is None else _channel_mean(p.error_map) for p in pictures]
    drawn = [values.ravel() for values in flat if values is not None]
    low, high = 0.0, 1.0
    if drawn:
        low, high = np.quantile(np.concatenate(drawn), [0.0, 1 - CLIPPED_SHARE]).tolist()
    span = (high - low) or 1.0
    colours = colormaps[COLOUR_MAP]
    maps = [
        None if values is None else encode_png(colours((values - low) / span, bytes=True)[..., :3])
        for values in flat
    ]
    stops = (colours(np.linspace(0, 1, 9), bytes=True)[:, :3]).tolist()
    gradient = ", ".join(f"rgb({r} {g} {b})" for r, g, b in stops)
    images = tuple(encode_png(shrink(p.pixels)) for p in pictures)
    return Strip(images, tuple(maps), low, high, gradient)


def shrink(pixels: Pixels, size_px: int = THUMBNAIL_PX) -> Pixels:
    """The picture at most about `size_px` wide and high, by averaging whole blocks of pixels."""
    height, width = pixels.shape[:2]
    block = -(-max(height, width) // size_px)
    # A picture thinner than one block keeps its single row or column.
    rows, columns = min(block, height), min(block, width)
    kept = pixels[: height // rows * rows, : width // columns * columns]
    tall, wide = kept.shape[0] // rows, kept.shape[1] // columns
    blocks = kept.reshape(tall, rows, wide, columns, 3)
    return np.asarray(np.rint(blocks.mean(axis=(1, 3))), dtype=np.uint8)


def encode_png(pixels: Pixels) -> str:
    """The pixels (height, width, 3) as a `data:image/png` URL."""
    from matplotlib.image import imsave

    file = io.BytesIO()
    # None keeps matplotlib's version out of the file; its stubs only know text.
    unsigned: Any = {"Software": None}
    imsave(file, np.ascontiguousarray(pixels), format="png", metadata=unsigned)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _channel_mean(error_map: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(error_map, dtype=np.float64).mean(axis=0)
