"""Geometry equals torchvision's to the pixel; encoding gives back what went in."""

import io

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from clare_cache.images import (
    GEOMETRIES,
    Preparation,
    center_crop,
    decode,
    encode_jpeg,
    encode_png,
    prepare_picture,
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


def test_opencv_squash_is_opencvs():
    pixels = (np.arange(9 * 7 * 3) * 37 % 256).astype(np.uint8).reshape(9, 7, 3)
    # cv2.resize(pixels, (4, 4), interpolation=cv2.INTER_CUBIC), OpenCV 5.0
    red = [[37, 218, 190, 109], [57, 255, 211, 130], [96, 13, 234, 151], [117, 34, 166, 178]]
    green = [[91, 8, 230, 146], [112, 28, 255, 166], [133, 52, 24, 205], [154, 73, 45, 167]]
    found = GEOMETRIES["opencv-squash"](pixels, 4)
    np.testing.assert_array_equal(found[..., 0], red)
    np.testing.assert_array_equal(found[..., 1], green)


def test_reflected_borders_do_not_repeat_the_edge():
    pixels = np.arange(5, dtype=np.uint8)[None, :, None].repeat(9, 0).repeat(3, 2)
    found = GEOMETRIES["center-crop-reflected"](pixels, 8)
    assert found[0, :, 0].tolist() == [1, 0, 1, 2, 3, 4, 3, 2]
    # An odd surplus is cut at the end: albumentations rounds down, torchvision to even.
    rows = np.arange(11, dtype=np.uint8)[:, None, None].repeat(8, 1).repeat(3, 2)
    assert GEOMETRIES["center-crop-reflected"](rows, 8)[:, 0, 0].tolist() == [*range(1, 9)]
    assert center_crop(rows, 8)[:, 0, 0].tolist() == [*range(2, 10)]


def test_a_png_goes_through_a_jpeg_of_swapped_channels_where_that_is_asked():
    pixels = noise(40, 30)
    as_clare = Preparation("opencv-squash", 16, png_through_jpeg=True)
    plain = Preparation("opencv-squash", 16)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., ::-1].copy()).save(buffer, "JPEG", quality=95, subsampling="4:2:0")
    through = np.array(Image.open(buffer))[..., ::-1]
    png, jpeg = encode_png(pixels), encode_jpeg(pixels, 95)
    expected = GEOMETRIES["opencv-squash"](through, 16)
    np.testing.assert_array_equal(prepare_picture(as_clare, pixels, png), expected)
    for prepare, data in ((as_clare, jpeg), (plain, png), (plain, jpeg)):
        np.testing.assert_array_equal(prepare_picture(prepare, pixels, data), plain(pixels))
    assert not np.array_equal(expected, plain(pixels))


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
