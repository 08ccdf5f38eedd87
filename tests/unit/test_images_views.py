"""Views: named, repeatable, each doing what its source does."""

import hashlib
import io

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from clare_cache.errors import ImageError
from clare_cache.images import find_view, view_spellings
from clare_cache.images.opencv import opencv_bicubic
from clare_cache.types import CLEAN

NAMES = [
    "clean",
    "jpeg-q50",
    "blur-s1.5",
    "resize-x0.5",
    "crop-f0.8",
    "noise-s10",
    "flip",
    "share-3",
    "aug-007",
    "tencrop-4",
    "rine-code-blur",
    "rine-code-crop",
    "rine-code-jpeg",
    "rine-code-noise",
    "rine-code-combined",
    "rine-paper-combined",
]
IDS = [hashlib.sha256(bytes([n])).hexdigest() for n in range(60)]


@pytest.fixture(scope="module")
def pixels():
    """300 × 260 px, smooth with some detail."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (20, 18, 3))
    image = np.kron(coarse, np.ones((15, 15, 1)))[:300, :260]
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def through_jpeg(pixels, quality):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return np.array(Image.open(buffer))


def perturbed_id(name, pixels):
    """The first image id whose draw perturbs."""
    view = find_view(name)
    return next(i for i in IDS if view(pixels, i).shape[:2] == (256, 256))


@pytest.mark.parametrize("name", NAMES)
def test_a_view_is_the_same_every_time_and_leaves_the_picture_alone(name, pixels):
    before = pixels.copy()
    once, again = (find_view(name)(pixels, IDS[3]) for _ in range(2))
    assert np.array_equal(once, again)
    assert once.dtype == np.uint8
    assert once.flags.c_contiguous
    assert once.shape[2] == 3
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("name", ["noise-s10", "aug-007", "rine-code-noise"])
def test_chance_is_a_function_of_the_image_and_the_view(name, pixels):
    view = find_view(name)
    made = [view(pixels, i).tobytes() for i in IDS[:12]]
    assert len(set(made)) > 4
    other = find_view(name.replace("007", "008").replace("10", "11").replace("code", "paper"))
    assert [other(pixels, i).tobytes() for i in IDS[:12]] != made


def test_plain_views_do_what_they_say(pixels):
    assert find_view("clean")(pixels, IDS[0]) is pixels
    assert np.array_equal(find_view("flip")(pixels, IDS[0]), pixels[:, ::-1])
    assert np.array_equal(find_view("jpeg-q50")(pixels, IDS[0]), through_jpeg(pixels, 50))
    assert np.array_equal(
        find_view("blur-s2")(pixels, IDS[0])[..., 1], gaussian_filter(pixels[..., 1], 2)
    )
    assert find_view("resize-x0.5")(pixels, IDS[0]).shape == (150, 130, 3)
    assert np.array_equal(find_view("crop-f0.8")(pixels, IDS[0]), pixels[30:270, 26:234])
    noise = find_view("noise-s10")(pixels, IDS[0]).astype(float) - pixels
    inner = (pixels > 60) & (pixels < 190)
    assert noise[inner].std() == pytest.approx(10, rel=0.05)


def test_ten_crops_are_the_corners_the_centre_and_their_mirrors(pixels):
    crops = [find_view(f"tencrop-{n}")(pixels, IDS[0]) for n in range(10)]
    places = [(0, 0), (0, 36), (76, 0), (76, 36), (38, 18)]
    for crop, (top, left) in zip(crops[:5], places, strict=True):
        assert np.array_equal(crop, pixels[top : top + 224, left : left + 224])
    for crop, mirror in zip(crops[:5], crops[5:], strict=True):
        assert np.array_equal(mirror, crop[:, ::-1])
    with pytest.raises(ImageError, match="100x100 px: ten crops need 224 px on each side"):
        find_view("tencrop-0")(pixels[:100, :100], IDS[0])


def test_half_of_the_images_are_perturbed_by_rine_s_set(pixels):
    for name in ("rine-code-blur", "rine-paper-noise"):
        view = find_view(name)
        shares = [view(pixels, i).shape[:2] == (256, 256) for i in IDS]
        assert 0.3 < np.mean(shares) < 0.7
        assert all(view(pixels, i) is pixels for i, s in zip(IDS, shares, strict=True) if not s)


def squashed(pixels):
    return np.array(Image.fromarray(pixels).resize((256, 256), Image.Resampling.BILINEAR))


def test_rine_s_code_compresses_at_95_with_swapped_channels(pixels):
    name = "rine-code-jpeg"
    expected = squashed(through_jpeg(pixels[..., ::-1].copy(), 95)[..., ::-1].copy())
    assert np.array_equal(find_view(name)(pixels, perturbed_id(name, pixels)), expected)
    name = "rine-paper-jpeg"
    worse = find_view(name)(pixels, perturbed_id(name, pixels)).astype(int)
    expected, plain = expected.astype(int), squashed(pixels).astype(int)
    assert np.abs(worse - plain).mean() > 1.5 * np.abs(expected - plain).mean()


def test_rine_s_code_blurs_more_than_its_paper(pixels):
    def detail(name):
        view = find_view(name)
        made = [view(pixels, i) for i in IDS]
        return np.mean([np.diff(p.astype(float), axis=0).std() for p in made if p.shape[0] == 256])

    assert (
        detail("rine-code-blur")
        < detail("rine-paper-blur")
        < np.diff(squashed(pixels).astype(float), axis=0).std()
    )


def test_too_small_pictures_cannot_be_cropped():
    tiny = np.zeros((8, 8, 3), np.uint8)
    found = set()
    for i in IDS:
        try:
            find_view("rine-code-crop")(tiny, i)
        except ImageError as error:
            found.add(error.stage)
    assert found == {"view"}


def test_the_cubic_resize_keeps_flat_pictures_and_its_own_size():
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (13, 17, 3), dtype=np.uint8)
    assert np.array_equal(opencv_bicubic(noise, width=17, height=13), noise)
    flat = np.full((9, 9, 3), 77, np.uint8)
    assert (opencv_bicubic(flat, width=20, height=5) == 77).all()
    # By hand: halfway between two pixels the four taps weigh -3/32, 19/32, 19/32, -3/32.
    row = np.zeros((1, 4, 3), np.uint8)
    row[0, 1] = 64
    assert opencv_bicubic(row, width=8, height=1)[0, 3, 0] == round(
        64 * ((-0.75 + 2) * 0.25 - (-0.75 + 3)) * 0.0625 + 64
    )


@pytest.mark.parametrize("name", ["", "jpeg", "jpeg-q", "aug-7", "Clean", "x/y"])
def test_unknown_views_are_refused_with_the_spellings(name):
    with pytest.raises(ImageError) as caught:
        find_view(name)
    assert caught.value.stage == "view"
    assert caught.value.reason == f"{name}: expected one of {', '.join(view_spellings())}"


@pytest.mark.parametrize(
    ("name", "range_of_it"),
    [
        ("jpeg-q0", "jpeg-qQ, JPEG of quality Q, 1 to 100"),
        ("jpeg-q500", "jpeg-qQ, JPEG of quality Q, 1 to 100"),
        ("jpeg-q5000", "jpeg-qQ, JPEG of quality Q, 1 to 100"),
        ("matched-jpeg-q0", "matched-jpeg-qQ, 256 px square, JPEG of quality Q, 1 to 100"),
        ("blur-s0", "blur-sS, Gaussian blur of S pixels, above 0"),
        ("resize-x0", "resize-xF, both sides times F, above 0"),
        ("crop-f1.5", "crop-fF, the central share F of both sides, above 0, at most 1"),
    ],
)
def test_a_number_out_of_range_is_told_its_range(name, range_of_it):
    with pytest.raises(ImageError) as caught:
        find_view(name)
    assert caught.value.reason == f"{name}: expected {range_of_it}"


def test_only_the_clean_view_declares_nothing():
    assert find_view(CLEAN).declared() == {}
    for name in NAMES[1:]:
        assert find_view(name).declared() == {"view": {"name": name, "rule": 1}}
