"""Pixels → a file's bytes, and through them to pixels again. Writes no files itself."""

import io

import numpy as np
from PIL import Image

from clare_cache.types import Pixels


def encode_png(pixels: Pixels) -> bytes:
    """A PNG that decodes to exactly these pixels."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    """A baseline JPEG, `quality` 1..100, chroma at half size (4:2:0)."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return buffer.getvalue()


def recompress(pixels: Pixels, quality: int) -> Pixels:
    """Through a JPEG of this quality, chroma at half size."""
    with Image.open(io.BytesIO(encode_jpeg(pixels, quality))) as image:
        return np.array(image)


def recompress_swapped(pixels: Pixels, quality: int) -> Pixels:
    """The same with red and blue swapped before and swapped back after: what comes of handing
    OpenCV's channel order to Pillow."""
    swapped = recompress(np.ascontiguousarray(pixels[..., ::-1]), quality)
    return np.ascontiguousarray(swapped[..., ::-1])


def thumbnail(pixels: Pixels, size_px: int) -> Pixels:
    """The picture with its longer side at most size_px; aspect ratio kept, never enlarged."""
    image = Image.fromarray(pixels)
    image.thumbnail((size_px, size_px))
    return np.array(image)
