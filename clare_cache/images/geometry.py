"""Pixels → the size a network wants. Fixed rules, no randomness, no normalisation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from clare_cache.types import Pixels


def squash(pixels: Pixels, size_px: int) -> Pixels:
    """(size_px, size_px, 3): bicubic with antialias, aspect ratio not kept, nothing cut off.

    The error-map extraction of LaRE (Luo et al. 2024).
    """
    return _resize(pixels, width=size_px, height=size_px)


def resize_and_crop(pixels: Pixels, size_px: int) -> Pixels:
    """(size_px, size_px, 3): shorter side to size_px, bicubic with antialias, then the centre.

    CLIP's own preprocessing, to the pixel: torchvision's Resize and CenterCrop on a PIL image.
    """
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    resized = _resize(
        pixels,
        width=int(size_px * width / shorter),
        height=int(size_px * height / shorter),
    )
    return center_crop(resized, size_px)


def center_crop(pixels: Pixels, size_px: int) -> Pixels:
    """(size_px, size_px, 3): the centre, unresized; black borders where the picture is smaller.

    Offsets and borders as in torchvision's CenterCrop, the test-time rule of UFD and RINE.
    """
    height, width = pixels.shape[:2]
    missing = max(0, size_px - height), max(0, size_px - width)
    borders = [(m // 2, m - m // 2) for m in missing]
    padded = np.pad(pixels, [*borders, (0, 0)]) if any(missing) else pixels
    height, width = padded.shape[:2]
    top, left = round((height - size_px) / 2), round((width - size_px) / 2)
    return padded[top : top + size_px, left : left + size_px].copy()


GEOMETRIES: Mapping[str, Callable[[Pixels, int], Pixels]] = {
    "squash": squash,
    "resize-crop": resize_and_crop,
    "center-crop": center_crop,
}
"""The geometries by the name under which features declare them."""


@dataclass(frozen=True)
class Preparation:
    """A decoded picture (H, W, 3) → (size_px, size_px, 3) by the geometry of that name: what a
    network's preprocessing is to another process."""

    geometry: str
    size_px: int

    def __call__(self, pixels: Pixels) -> Pixels:
        return GEOMETRIES[self.geometry](pixels, self.size_px)


def _resize(pixels: Pixels, *, width: int, height: int) -> Pixels:
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
