"""Small pictures, each a function of its name, written where a data set would have them."""

import io
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

SUFFIX_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}


def pixels_of(name: str, *, width: int = 40, height: int = 32) -> np.ndarray:
    """Noise over a slope, (height, width, 3) uint8, another for each name."""
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    slope = np.linspace(0, 120, width)[None, :, None]
    return (slope + generator.integers(0, 130, (height, width, 3))).astype(np.uint8)


def encode(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    """The pixels as a file of Pillow's format `kind`."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def picture(name: str, *, width: int = 40, height: int = 32, **options: object) -> bytes:
    """A file whose format is that of the name's suffix."""
    kind = SUFFIX_FORMATS[Path(name).suffix.lower()]
    return encode(pixels_of(name, width=width, height=height), kind, **options)


def put(root: Path, *paths: str) -> None:
    """Write a picture at each relative path."""
    for path in paths:
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(picture(path))


def put_text(root: Path, path: str, text: str) -> None:
    """Write a text file, folders included."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text, encoding="utf-8")
