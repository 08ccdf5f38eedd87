"""What a file gives away without its picture: container, compression, metadata, dimensions.

Read from the header; pixels stay packed. None of it shows what the picture shows, so none of it
should tell a real image from a generated one.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from clare_cache.images.decode import _opened, probe

_NO_METADATA = frozenset(
    {"exif", "icc_profile", "dpi", "jfif", "jfif_version", "jfif_unit", "jfif_density", "adobe"}
    | {"adobe_transform", "progressive", "progression", "gamma", "srgb", "chromaticity"}
    | {"aspect", "interlace", "transparency", "compression", "background", "loop", "timestamp"}
    | {"resolution", "duration", "version", "extension", "bbox"}
)


@dataclass(frozen=True)
class Traits:
    """One file, from the outside. What the format has not is None or empty.

    `jpeg_tables` names the quantisation tables, `jpeg_quality` is the quality (1 to 100) of the
    Independent JPEG Group whose luminance table is nearest; `profile` names the colour profile;
    `n_texts` counts other metadata (comments, XMP, prompts that generators write).
    """

    format: str
    mode: str
    width: int
    height: int
    nbytes: int
    jpeg_quality: int | None
    jpeg_tables: str
    subsampling: str
    progressive: bool
    has_exif: bool
    has_dpi: bool
    profile: str
    n_texts: int

    @property
    def bytes_per_pixel(self) -> float:
        """Size of the file over that of the picture."""
        return self.nbytes / (self.width * self.height)


def read_traits(data: bytes) -> Traits:
    """The traits of a file's bytes. Raises ImageError for what `probe` refuses."""
    info = probe(data)
    with _opened(data) as image:
        tables = getattr(image, "quantization", None) or {}
        profile = image.info.get("icc_profile")
        return Traits(
            format=info.format,
            mode=image.mode,
            width=info.width,
            height=info.height,
            nbytes=len(data),
            jpeg_quality=_quality(tables[min(tables)]) if tables else None,
            jpeg_tables=_name(repr(sorted(tables.items())).encode()) if tables else "",
            subsampling=_subsampling(image) if tables else "",
            progressive=bool(image.info.get("progressive")),
            has_exif=bool(image.info.get("exif")),
            has_dpi="dpi" in image.info,
            profile=_name(profile) if profile else "",
            n_texts=len([key for key in image.info if key not in _NO_METADATA]),
        )


def _subsampling(image: Image.Image) -> str:
    """From the sampling factors of the first two components, as JPEG's frame header has them."""
    layers = getattr(image, "layer", [])
    if len(layers) < 3:
        return "grey"
    factors = (*layers[0][1:3], *layers[1][1:3], *layers[2][1:3])
    known = {
        (1, 1, 1, 1, 1, 1): "4:4:4",
        (2, 1, 1, 1, 1, 1): "4:2:2",
        (2, 2, 1, 1, 1, 1): "4:2:0",
    }
    return known.get(factors, "other")


def _quality(table: list[int]) -> int:
    """The quality whose luminance table is nearest in the mean of its entries."""
    return int(np.argmin(np.abs(_MEANS - np.mean(table)))) + 1


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:8]


def _means() -> np.ndarray:
    """Mean luminance step of each quality, 1 to 100, by the Independent JPEG Group's rule."""
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    steps = (_LUMINANCE[None, :] * scale[:, None] + 50) // 100
    return np.clip(steps, 1, 255).mean(axis=1)


# ITU-T T.81, table K.1.
_LUMINANCE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
).ravel()
_MEANS = _means()
