"""Geometry equals torchvision's to the pixel; encoding gives back what went in."""

import io

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from clare_cache.images import (
    GEOMETRIES,
    center_crop,
    decode,
    encode_jpeg,
    encode_png,
    probe,
    resize_and_crop,
    squash,
    thumbnail,
)

SIZES = [(224, 224), (225, 231), (300, 224), (97, 301), (33, 20), (8, 500), (223, 640), (1000, 999)]


def noise(height: int, width: int) -> np.ndarray:
    generator = np.random.default_rng([height, width])
    return generator.integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_center_crop_is_torchvisions(height, width):
    pixels = noise(height, width)
    expected = np.array(transforms.CenterCrop(224)(Image.fromarray(pixels)))
    np.testing.assert_array_equal(center_crop(pixels, 224), expected)


@pytest.mark.parametrize("crop_px", [31, 32, 45])
def test_center_crop_rounds_odd_offsets_as_torchvision_does(crop_px):
    for height, width in [(32, 33), (34, 35), (45, 44), (31, 30)]:
        pixels = noise(height, width)
        expected = np.array(transforms.CenterCrop(crop_px)(Image.fromarray(pixels)))
        np.testing.assert_array_equal(center_crop(pixels, crop_px), expected)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_resize_and_crop_is_clips_preprocessing(height, width):
    pixels = noise(height, width)
    clip = transforms.Compose(
        [
            transforms.Resize(224, InterpolationMode.BICUBIC, antialias=True),
            transforms.CenterCrop(224),
        ]
    )
    expected = np.array(clip(Image.fromarray(pixels)))
    np.testing.assert_array_equal(resize_and_crop(pixels, 224), expected)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_squash_is_pillows_default_resize(height, width):
    pixels = noise(height, width)
    expected = np.array(Image.fromarray(pixels).resize((256, 256)))
    np.testing.assert_array_equal(squash(pixels, 256), expected)


@pytest.mark.parametrize("name", GEOMETRIES)
def test_every_geometry_gives_a_writable_square_and_leaves_its_input(name):
    pixels = noise(40, 90)
    before = pixels.copy()
    square = GEOMETRIES[name](pixels, 64)
    assert square.shape == (64, 64, 3)
    assert square.dtype == np.uint8
    assert square.flags.writeable
    assert square.flags.c_contiguous
    np.testing.assert_array_equal(pixels, before)


def test_a_crop_of_the_same_size_does_not_share_memory():
    pixels = noise(64, 64)
    assert not np.shares_memory(center_crop(pixels, 64), pixels)


def test_png_gives_back_the_pixels():
    pixels = noise(31, 17)
    np.testing.assert_array_equal(decode(encode_png(pixels)), pixels)


def test_jpeg_quality_and_chroma():
    pixels = noise(64, 48)
    fine, coarse = encode_jpeg(pixels, 95), encode_jpeg(pixels, 30)
    assert len(coarse) < len(fine)
    assert probe(fine).format == "JPEG"
    layers = Image.open(io.BytesIO(fine)).layer
    assert [layer[1:3] for layer in layers] == [(2, 2), (1, 1), (1, 1)]


@pytest.mark.parametrize(
    ("shape", "expected"), [((100, 50), (20, 10)), ((50, 100), (10, 20)), ((12, 9), (12, 9))]
)
def test_a_thumbnail_fits_and_is_never_enlarged(shape, expected):
    assert thumbnail(noise(*shape), 20).shape == (*expected, 3)
