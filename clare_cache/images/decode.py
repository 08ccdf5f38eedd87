"""A file's bytes → the picture in it, or one clear reason why not.

One rule for every picture: what a viewer would show, as 8-bit RGB, without its transparency.
Where Pillow would guess, clip or fill in, this module refuses. It never resizes and never sees a
path.
"""

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError, features

from clare_cache.errors import ImageError
from clare_cache.types import Pixels

MIN_SIDE_PX = 8
"""Smallest side of a usable picture: one cell of a latent grid."""

MAX_PIXELS = 178_956_970
"""Most pixels of a usable picture: where Pillow, too, suspects a decompression bomb."""

MAX_ASPECT_RATIO = 64
"""Longest side of a usable picture over its shortest: resizing by the shorter side must not turn a
thin strip into a picture that fills the memory."""

# Named, so that no file is handed to an interpreter (EPS would start Ghostscript) or read as a
# scientific array without a known white.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "AVIF")

# What Pillow has been seen to raise on damaged bytes; fuzzed in the tests. MemoryError is not
# among them: it is the machine's fault, not the picture's.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
)

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = frozenset({5, 6, 7, 8})
# Only a PNG that holds one of these can have an orientation.
_PNG_ORIENTATION_KEYS = (b"eXIf", b"Raw profile type exif", b"XML:com.adobe.xmp")

_TIFF_BITS_PER_SAMPLE, _TIFF_PHOTOMETRIC, _TIFF_WHITE_IS_ZERO = 258, 262, 0


@dataclass(frozen=True)
class ImageInfo:
    """What a picture's header says: upright size in pixels, and Pillow's name of the format."""

    width: int
    height: int
    format: str


def decode(data: bytes) -> Pixels:
    """The picture in a file's bytes: (height, width, 3), RGB, upright, writable.

    EXIF orientation is applied. Alpha is dropped, not blended: transparent pixels show the colour
    stored under them, as in `convert("RGB")`, which all published detectors call. CMYK goes
    through the embedded ICC profile when that is usable, else through Pillow's arithmetic; other
    profiles are ignored. 16-bit samples lose their low byte. Of a phone's multi-picture JPEG
    (MPO) the primary picture is taken. One kind of damage passes: flipped bits inside a complete
    JPEG decode to wrong blocks, because libjpeg repairs them without a word.

    Raises ImageError (stage `decode`) for an empty, damaged, truncated, animated or multi-page
    file, an unknown format, 32-bit samples, a side below MIN_SIDE_PX, more than MAX_PIXELS,
    sides further apart than MAX_ASPECT_RATIO.
    """
    with _opened(data) as image:
        image.load()
        turn = _TURNS.get(_orientation(image, data))
        rgb = _to_rgb(image)
        return np.array(rgb if turn is None else rgb.transpose(turn))


def probe(data: bytes) -> ImageInfo:
    """Size and format from the header alone; pixels stay packed.

    Raises ImageError for whatever `decode` refuses by the header.
    """
    with _opened(data) as image:
        width, height = image.size
        if _orientation(image, data) in _SIDEWAYS:
            width, height = height, width
        return ImageInfo(width=width, height=height, format=str(image.format))


def decoder_declared() -> dict[str, Any]:
    """The declared inputs of decoding, for fingerprints. A change of rule raises `rule`."""
    return {
        "rule": 1,
        "exif": "applied",
        "alpha": "dropped",
        "cmyk": "by icc profile, else by pillow",
        "sixteen_bit": "high byte",
        "frames": "one only",
    }


def decoder_versions() -> dict[str, str]:
    """Versions of the libraries that turn bytes into pixels, for provenance."""
    found = {
        "pillow": PIL.__version__,
        "libjpeg_turbo": features.version("libjpeg_turbo"),
        "libwebp": features.version("webp"),
    }
    return {name: version or "absent" for name, version in found.items()}


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """An opened, not yet loaded, picture; whatever goes wrong inside becomes an ImageError."""
    if not data:
        raise ImageError("decode", "the file is empty (0 bytes)")
    with _strict_pillow:
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                _refuse_by_header(image)
                yield image
        except UnidentifiedImageError as error:
            known = ", ".join(_FORMATS)
            raise ImageError(
                "decode", f"no picture found: expected one of {known}, or damaged at its start"
            ) from error
        except Image.DecompressionBombError as error:
            raise ImageError("decode", f"more than {MAX_PIXELS} pixels") from error
        except _DAMAGED as error:
            raise ImageError("decode", f"damaged or truncated: {_phrase(error)}") from error


def _refuse_by_header(image: Image.Image) -> None:
    width, height = image.size
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError("decode", f"{width}x{height} px: a side is below {MIN_SIDE_PX} px")
    if width * height > MAX_PIXELS:
        raise ImageError("decode", f"more than {MAX_PIXELS} pixels")
    if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
        ratio = f"one side is over {MAX_ASPECT_RATIO} times the other"
        raise ImageError("decode", f"{width}x{height} px: {ratio}")
    if image.mode in {"I", "F"}:
        kind = "integer" if image.mode == "I" else "float"
        raise ImageError(
            "decode", f"32-bit {kind} samples have no known white; convert to 8 or 16 bit"
        )
    # The further pictures of an MPO are a depth map, a gain map or the other eye, not a sequence.
    n_frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if n_frames > 1:
        raise ImageError(
            "decode", f"holds {n_frames} frames; save the frame to be judged as its own file"
        )


def _orientation(image: Image.Image, data: bytes) -> int:
    """EXIF orientation 1..8 still to be applied; unreadable EXIF asks for nothing."""
    if image.format == "TIFF":
        return 1  # Pillow turns TIFF by itself, in `size` and in `load`
    if image.format == "PNG" and not any(key in data for key in _PNG_ORIENTATION_KEYS):
        return 1  # spares `getexif` from unpacking all pixels in search of a late chunk
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except (SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error):
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray(_high_byte(image)).convert("RGB")
    if image.mode == "CMYK":
        return _from_cmyk(image)
    if image.mode in {"P", "PA", "RGBa"}:
        # By way of RGBA: a palette with per-entry alpha warns when it goes straight to RGB, and
        # premultiplied colours are to be divided by their alpha first.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def _high_byte(image: Image.Image) -> np.ndarray:
    """(height, width) uint8 grey. Pillow's own conversion clips at 255: a white picture."""
    grey = np.asarray(image)
    if image.format != "TIFF":
        return (grey >> 8).astype(np.uint8)
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    high = (grey >> (tags[_TIFF_BITS_PER_SAMPLE][0] - 8)).astype(np.uint8)
    return 255 - high if tags.get(_TIFF_PHOTOMETRIC) == _TIFF_WHITE_IS_ZERO else high


def _from_cmyk(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            converted = ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                outputMode="RGB",
            )
        except (ImageCms.PyCMSError, OSError):
            converted = None  # damaged, or not a CMYK profile: the same as none
        if converted is not None:
            return converted
    return image.convert("RGB")


def _phrase(error: BaseException) -> str:
    return str(error) or type(error).__name__


class _StrictPillow:
    """While any thread is inside: Pillow's warnings are off, truncated files are errors.

    Both are settings of the whole process, and `warnings.catch_warnings` alone restores the wrong
    filters when threads leave in another order than they entered; hence the count.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()
        self._truncated_is_fine = False

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self._truncated_is_fine = ImageFile.LOAD_TRUNCATED_IMAGES
                ImageFile.LOAD_TRUNCATED_IMAGES = False
            self._inside += 1

    def __exit__(self, *exc_info: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = self._truncated_is_fine
                self._filters.__exit__(None, None, None)


_strict_pillow = _StrictPillow()
