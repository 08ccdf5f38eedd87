"""Pixels → the size a network wants. Fixed rules, no randomness, no normalisation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from clare_cache.images.encode import recompress_swapped
from clare_cache.images.opencv import opencv_bicubic
from clare_cache.types import Pixels

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_QUALITY = 95


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


def center_crop_reflected(pixels: Pixels, size_px: int) -> Pixels:
    """(size_px, size_px, 3): the centre, unresized; mirrored borders where the picture is smaller.

    The test-time rule of LaRE²: albumentations' PadIfNeeded (the border pixel is not repeated) and
    CenterCrop, whose offsets are rounded down.
    """
    height, width = pixels.shape[:2]
    missing = max(0, size_px - height), max(0, size_px - width)
    borders = [(m // 2, m - m // 2) for m in missing]
    padded = np.pad(pixels, [*borders, (0, 0)], mode="reflect") if any(missing) else pixels
    top, left = ((side - size_px) // 2 for side in padded.shape[:2])
    return padded[top : top + size_px, left : left + size_px].copy()


def opencv_squash(pixels: Pixels, size_px: int) -> Pixels:
    """(size_px, size_px, 3): OpenCV's bicubic, which has no antialias, aspect ratio not kept.

    CLaRE's loader.
    """
    return opencv_bicubic(pixels, width=size_px, height=size_px)


GEOMETRIES: Mapping[str, Callable[[Pixels, int], Pixels]] = {
    "squash": squash,
    "resize-crop": resize_and_crop,
    "center-crop": center_crop,
    "center-crop-reflected": center_crop_reflected,
    "opencv-squash": opencv_squash,
}
"""The geometries by the name under which features declare them."""


@dataclass(frozen=True)
class Preparation:
    """A decoded picture (H, W, 3) → (size_px, size_px, 3) by the geometry of that name: what a
    network's preprocessing is to another process.

    With `png_through_jpeg` a picture from a PNG file is first compressed as CLaRE's loader does:
    quality 95, half-size chroma, made of swapped channels.
    """

    geometry: str
    size_px: int
    png_through_jpeg: bool = False

    def __call__(self, pixels: Pixels) -> Pixels:
        return GEOMETRIES[self.geometry](pixels, self.size_px)

    def of_png(self, pixels: Pixels) -> Pixels:
        """The same of a picture that a PNG file held."""
        return self(recompress_swapped(pixels, PNG_QUALITY) if self.png_through_jpeg else pixels)


def prepare_picture(prepare: Callable[[Pixels], Pixels], pixels: Pixels, data: bytes) -> Pixels:
    """What a network looks at of the picture that the bytes of a file held."""
    if isinstance(prepare, Preparation) and data.startswith(PNG_SIGNATURE):
        return prepare.of_png(pixels)
    return prepare(pixels)


def _resize(pixels: Pixels, *, width: int, height: int) -> Pixels:
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
