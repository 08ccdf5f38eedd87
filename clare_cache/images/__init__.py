"""Bytes → RGB pixels, pixels → the size a network wants, pixels → bytes.

The only importer of Pillow. Knows no paths, labels, networks or stores: everything in and out is
bytes or a uint8 array (height, width, 3).
"""

from clare_cache.images.boxes import can_follow, place_boxes
from clare_cache.images.decode import (
    MAX_PIXELS,
    MIN_SIDE_PX,
    ImageInfo,
    decode,
    decoder_declared,
    decoder_versions,
    probe,
)
from clare_cache.images.encode import encode_jpeg, encode_png, thumbnail
from clare_cache.images.geometry import (
    GEOMETRIES,
    Preparation,
    center_crop,
    prepare_picture,
    resize_and_crop,
    squash,
)
from clare_cache.images.traits import Traits, read_traits
from clare_cache.images.views import View, find_view, view_spellings

__all__ = [
    "GEOMETRIES",
    "MAX_PIXELS",
    "MIN_SIDE_PX",
    "ImageInfo",
    "Preparation",
    "Traits",
    "View",
    "can_follow",
    "center_crop",
    "decode",
    "decoder_declared",
    "decoder_versions",
    "encode_jpeg",
    "encode_png",
    "find_view",
    "place_boxes",
    "prepare_picture",
    "probe",
    "read_traits",
    "resize_and_crop",
    "squash",
    "thumbnail",
    "view_spellings",
]
