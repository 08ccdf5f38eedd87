"""Images with their error maps, as data URLs that need no other file."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from clare_cache.images import encode_png, thumbnail
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
        None if values is None else as_url(colours((values - low) / span, bytes=True)[..., :3])
        for values in flat
    ]
    stops = (colours(np.linspace(0, 1, 9), bytes=True)[:, :3]).tolist()
    gradient = ", ".join(f"rgb({r} {g} {b})" for r, g, b in stops)
    images = tuple(as_url(thumbnail(p.pixels, THUMBNAIL_PX)) for p in pictures)
    return Strip(images, tuple(maps), low, high, gradient)


def as_url(pixels: Pixels) -> str:
    """The pixels (height, width, 3) as a `data:image/png` URL."""
    return "data:image/png;base64," + base64.b64encode(encode_png(pixels)).decode("ascii")


def _channel_mean(error_map: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(error_map, dtype=np.float64).mean(axis=0)
