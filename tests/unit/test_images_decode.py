"""Every odd file becomes the picture that was drawn, or a clear reason why not."""

import io
import json
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from clare_cache import images
from clare_cache.errors import ImageError
from clare_cache.images import decode, encode_png, probe


@pytest.fixture(scope="module")
def odd(odd_images, tmp_path_factory):
    """File name → (bytes, what they must become)."""
    folder = tmp_path_factory.mktemp("odd")
    return {name: ((folder / name).read_bytes(), o) for name, o in odd_images(folder).items()}


def encoded(image: Image.Image, format_name: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def test_pictures_decode_to_what_was_drawn(odd):
    pictures = {name: entry for name, entry in odd.items() if entry[1].pixels is not None}
    assert len(pictures) >= 20
    for name, (data, expected) in pictures.items():
        pixels = decode(data)
        assert pixels.dtype == np.uint8, name
        assert pixels.shape == expected.pixels.shape, name
        difference = np.abs(pixels.astype(int) - expected.pixels).max()
        assert difference <= expected.tolerance, name


def test_unusable_files_are_refused_with_the_reason(odd):
    refused = {name: entry for name, entry in odd.items() if entry[1].reason is not None}
    assert len(refused) >= 15
    for name, (data, expected) in refused.items():
        with pytest.raises(ImageError) as caught:
            decode(data)
        assert caught.value.stage == "decode"
        if expected.reason.endswith("…"):
            assert caught.value.reason.startswith(expected.reason[:-1]), name
        else:
            assert caught.value.reason == expected.reason, name


def test_the_probe_agrees_with_decoding_on_size(odd):
    for name, (data, expected) in odd.items():
        if expected.pixels is not None:
            info = probe(data)
            assert (info.height, info.width) == expected.pixels.shape[:2], name


@pytest.mark.parametrize(
    ("name", "format_name"),
    [
        ("jpeg-named.png", "JPEG"),
        ("phone.mpo.jpg", "MPO"),
        ("grey16.tiff", "TIFF"),
        ("one-frame.gif", "GIF"),
        ("plain.webp", "WEBP"),
    ],
)
def test_the_format_is_the_contents_not_the_suffixs(odd, name, format_name):
    assert probe(odd[name][0]).format == format_name


@pytest.mark.parametrize(
    "name",
    [
        "zero-bytes.png",
        "text.jpg",
        "animated.gif",
        "pages.tiff",
        "one-pixel.png",
        "bomb.png",
        "float.tiff",
    ],
)
def test_the_probe_refuses_by_the_header(odd, name):
    data, expected = odd[name]
    with pytest.raises(ImageError) as caught:
        probe(data)
    assert caught.value.reason == expected.reason


@pytest.mark.parametrize("name", ["truncated.png", "exif-rotated.png"])
def test_the_probe_unpacks_no_pixels_of_a_png_without_late_metadata(odd, name, monkeypatch):
    loaded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: loaded.append(image))
    probe(odd[name][0])
    assert loaded == []


@pytest.mark.parametrize("orientation", range(10))
def test_every_orientation_is_applied_as_pillow_does(orientation):
    drawn = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(drawn), "PNG", exif=exif)
    upright = np.array(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(decode(data), upright)
    assert (probe(data).height, probe(data).width) == upright.shape[:2]


def test_twelve_bit_grey_keeps_its_high_byte():
    # Two 12-bit samples make three bytes; 0xABC and 0x123 alternate in an 8 x 8 picture.
    rows = bytes([0xAB, 0xC1, 0x23]) * 4 * 8
    entries = [
        (256, 8),
        (257, 8),
        (258, 12),
        (259, 1),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 8),
        (279, len(rows)),
    ]
    directory = len(entries).to_bytes(2, "little") + b"".join(
        tag.to_bytes(2, "little") + b"\x04\0\x01\0\0\0" + value.to_bytes(4, "little")
        for tag, value in entries
    )
    data = b"II*\0" + (8 + len(rows)).to_bytes(4, "little") + rows + directory + bytes(4)
    pixels = decode(data)
    assert set(pixels[:, ::2].ravel().tolist()) == {0xAB}
    assert set(pixels[:, 1::2].ravel().tolist()) == {0x12}


def test_the_smallest_picture_is_eight_pixels_square():
    assert decode(encoded(Image.new("RGB", (8, 8)), "PNG")).shape == (8, 8, 3)


def test_pixels_are_writable_and_contiguous(odd):
    pixels = decode(odd["plain.png"][0])
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous


def test_a_lenient_process_is_still_strict_here(odd, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ImageError, match="truncated"):
        decode(odd["truncated.jpg"][0])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_a_lifted_pillow_limit_does_not_lift_ours(odd, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(ImageError, match="more than 178956970 pixels"):
        decode(odd["bomb.png"][0])


def test_a_large_picture_below_the_limit_does_not_warn(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert probe(encoded(Image.new("RGB", (12, 12)), "PNG")).width == 12


def test_threads_leave_the_warning_filters_as_they_were(odd):
    filters = list(warnings.filters)
    files = [odd["palette-transparency.png"][0], odd["exif-broken.jpg"][0]] * 40
    with ThreadPoolExecutor(4) as pool:
        sizes = {pixels.shape for pixels in pool.map(decode, files)}
    assert sizes == {(32, 48, 3)}
    assert list(warnings.filters) == filters


def test_damaged_bytes_raise_nothing_but_image_errors(odd):
    rng = np.random.default_rng(3)
    whole = [data for name, (data, _) in sorted(odd.items()) if len(data) > 100]
    outcomes = {"picture": 0, "refused": 0}
    for _ in range(400):
        data = bytearray(whole[rng.integers(len(whole))])
        if rng.random() < 0.3:
            del data[rng.integers(1, len(data)) :]
        for _ in range(3):
            data[rng.integers(min(len(data), 300))] = rng.integers(256)
        try:
            decode(bytes(data))
            outcomes["picture"] += 1
        except ImageError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20


def test_declared_inputs_are_json_and_versions_are_known():
    declared = images.decoder_declared()
    assert declared["rule"] == 1
    assert json.loads(json.dumps(declared)) == declared
    versions = images.decoder_versions()
    assert set(versions) == {"pillow", "libjpeg_turbo", "libwebp"}
    assert versions["pillow"][0].isdigit()


def test_a_thin_strip_is_refused_before_it_fills_the_memory():
    strip = encode_png(np.zeros((8, 513, 3), np.uint8))
    with pytest.raises(ImageError, match="513x8 px: one side is over 64 times the other"):
        decode(strip)
    with pytest.raises(ImageError, match="one side is over 64 times the other"):
        probe(strip)
    assert decode(encode_png(np.zeros((8, 512, 3), np.uint8))).shape == (8, 512, 3)
