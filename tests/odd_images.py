"""Makes the files that break naive readers, and says what each must decode to.

`write_odd_images(folder)` writes one file per entry and returns name → OddImage. Reused by the
tests of decoding and of extraction through the fixture `odd_images`.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 48, 32
RED, GREEN, BLUE, GREY = (200, 30, 40), (20, 180, 60), (30, 60, 210), (90, 90, 90)
ORIENTATION = 0x0112


class OddImage(NamedTuple):
    """What a file must become: `pixels` within `tolerance` grey levels, or the `reason` why not.

    A `reason` that ends in `…` is the beginning of what is said.
    """

    pixels: np.ndarray | None = None
    tolerance: int = 0
    reason: str | None = None


def quadrants(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A picture whose four quarters differ, so that any turn or mirroring shows."""
    picture = np.empty((height, width, 3), np.uint8)
    top, left = height // 2, width // 2
    picture[:top, :left], picture[:top, left:] = RED, GREEN
    picture[top:, :left], picture[top:, left:] = BLUE, GREY
    return picture


def grey16() -> np.ndarray:
    """(HEIGHT, WIDTH) uint16, from black to white."""
    return np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)


def encoded(image: Image.Image, format_name: str, **options: Any) -> bytes:
    """The bytes that Pillow writes."""
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def write_odd_images(folder: Path) -> dict[str, OddImage]:
    """Write every odd file into `folder`; returns file name → what it must decode to."""
    folder.mkdir(parents=True, exist_ok=True)
    expected = {}
    for name, (data, odd) in _odd_files().items():
        (folder / name).write_bytes(data)
        expected[name] = odd
    return expected


def _odd_files() -> dict[str, tuple[bytes, OddImage]]:
    return _pictures() | _damaged() | _refused()


def _pictures() -> dict[str, tuple[bytes, OddImage]]:
    drawn = quadrants()
    image = Image.fromarray(drawn)
    jpeg = {"quality": 95, "subsampling": "4:4:4"}
    as_is, near = OddImage(drawn), OddImage(drawn, tolerance=6)
    high_byte = OddImage(np.repeat((grey16() >> 8).astype(np.uint8)[..., None], 3, axis=2))
    alpha = np.linspace(0, 255, HEIGHT * WIDTH).astype(np.uint8).reshape(HEIGHT, WIDTH, 1)
    red = np.broadcast_to(np.uint8(RED[0]), (HEIGHT, WIDTH, 1))
    sideways = Image.Exif()
    sideways[ORIENTATION] = 6
    lying = image.transpose(Image.Transpose.ROTATE_90)
    return {
        "plain.png": (encoded(image, "PNG"), as_is),
        "plain.jpg": (encoded(image, "JPEG", **jpeg), near),
        "plain.bmp": (encoded(image, "BMP"), as_is),
        "plain.webp": (encoded(image, "WEBP", lossless=True), as_is),
        "one-frame.gif": (encoded(image, "GIF"), as_is),
        "cmyk.jpg": (encoded(image.convert("CMYK"), "JPEG", **jpeg), near),
        "cmyk.tiff": (encoded(image.convert("CMYK"), "TIFF"), as_is),
        "cmyk-profile.jpg": (
            encoded(image.convert("CMYK"), "JPEG", icc_profile=cmyk_profile(), **jpeg),
            OddImage(np.full_like(drawn, 119), tolerance=2),
        ),
        "cmyk-broken-profile.jpg": (
            encoded(image.convert("CMYK"), "JPEG", icc_profile=b"no profile", **jpeg),
            near,
        ),
        "grey16.png": (encoded(Image.fromarray(grey16()), "PNG"), high_byte),
        "grey16.tiff": (encoded(Image.fromarray(grey16()), "TIFF"), high_byte),
        "grey16-white-is-zero.tiff": (
            encoded(Image.fromarray(65535 - grey16()), "TIFF", tiffinfo={262: 0}),
            high_byte,
        ),
        "grey-alpha.png": (
            encoded(Image.fromarray(np.concatenate([red, alpha], axis=2), "LA"), "PNG"),
            OddImage(np.repeat(red, 3, axis=2)),
        ),
        "rgba.png": (
            encoded(Image.fromarray(np.concatenate([drawn, alpha], axis=2)), "PNG"),
            as_is,
        ),
        "palette-transparency.png": (_palette_png(), as_is),
        "one-bit.png": (
            encoded(Image.fromarray(drawn[..., 0] > 100), "PNG"),
            OddImage(np.where(drawn[..., :1] > 100, 255, 0).repeat(3, axis=2)),
        ),
        "exif-rotated.jpg": (encoded(lying, "JPEG", exif=sideways, **jpeg), near),
        "exif-rotated.png": (encoded(lying, "PNG", exif=sideways), as_is),
        "exif-rotated.tiff": (encoded(lying, "TIFF", tiffinfo={ORIENTATION: 6}), as_is),
        "exif-broken.jpg": (
            encoded(image, "JPEG", exif=b"Exif\0\0no such header", **jpeg),
            near,
        ),
        "phone.mpo.jpg": (
            encoded(
                image, "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16))], **jpeg
            ),
            near,
        ),
        "jpeg-named.png": (encoded(image, "JPEG", **jpeg), near),
    }


def _damaged() -> dict[str, tuple[bytes, OddImage]]:
    noise = np.random.default_rng(11).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    png = encoded(Image.fromarray(noise), "PNG")
    jpeg = encoded(Image.fromarray(noise), "JPEG")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    truncated = OddImage(reason="damaged or truncated: image file is truncated…")
    unknown = OddImage(
        reason="no picture found: expected one of PNG, JPEG, WEBP, BMP, TIFF, GIF, AVIF, "
        "or damaged at its start"
    )
    return {
        "zero-bytes.png": (b"", OddImage(reason="the file is empty (0 bytes)")),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], truncated),
        "truncated.png": (png[: len(png) // 2], truncated),
        "truncated-header.jpg": (
            jpeg[:12],
            OddImage(reason="damaged or truncated: Truncated File Read"),
        ),
        "corrupted.png": (bytes(flipped), OddImage(reason="damaged or truncated: …")),
        "corrupted-header.jpg": (b"\0\0\0\0" + jpeg[4:], unknown),
        "text.jpg": (b"<html>not found</html>", unknown),
        "vector.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n", unknown),
    }


def _refused() -> dict[str, tuple[bytes, OddImage]]:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in (RED, GREEN, BLUE)]
    many = {"save_all": True, "append_images": frames[1:]}
    moving = OddImage(reason="holds 3 frames; save the frame to be judged as its own file")
    shape = (HEIGHT, WIDTH)
    no_white = "32-bit {} samples have no known white; convert to 8 or 16 bit"
    return {
        "animated.gif": (encoded(frames[0], "GIF", **many), moving),
        "animated.png": (encoded(frames[0], "PNG", **many), moving),
        "animated.webp": (encoded(frames[0], "WEBP", lossless=True, **many), moving),
        "pages.tiff": (encoded(frames[0], "TIFF", **many), moving),
        "float.tiff": (
            encoded(Image.fromarray(np.ones(shape, np.float32)), "TIFF"),
            OddImage(reason=no_white.format("float")),
        ),
        "int32.tiff": (
            encoded(Image.fromarray(np.full(shape, 70_000, np.int32)), "TIFF"),
            OddImage(reason=no_white.format("integer")),
        ),
        "one-pixel.png": (
            encoded(Image.new("RGB", (1, 1)), "PNG"),
            OddImage(reason="1x1 px: a side is below 8 px"),
        ),
        "line.png": (
            encoded(Image.new("RGB", (640, 7)), "PNG"),
            OddImage(reason="640x7 px: a side is below 8 px"),
        ),
        "bomb.png": (huge_png(20_000, 10_000), OddImage(reason="more than 178956970 pixels")),
    }


def huge_png(width: int, height: int) -> bytes:
    """A few bytes whose header announces width x height pixels; there are none."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def _palette_png() -> bytes:
    """`quadrants` as four palette entries, the first two see-through, given as bytes."""
    colours = np.array([RED, GREEN, BLUE, GREY], np.uint8)
    indices = (quadrants()[:, :, None, :] == colours).all(axis=3).argmax(axis=2)
    image = Image.fromarray(indices.astype(np.uint8)).convert("P")
    image.putdata(indices.ravel().tolist())
    image.putpalette(colours.ravel().tolist())
    return encoded(image, "PNG", transparency=b"\x00\x80")


def cmyk_profile() -> bytes:
    """A minimal ICC profile: without black ink any mixture is L*=50 (sRGB 119), with it black."""
    identity = bytes(range(256))
    lab = bytes([128, 128, 128, 0, 128, 128])  # (L*, a*, b*) at K=0, then at K=1, in 8 bits
    matrix = struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix
    table += identity * 4 + lab * 2**3 + identity * 3
    table += bytes(-len(table) % 4)
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    tags, body, offset = b"", b"", 128 + 4 + 2 * 12
    for name, data in ((b"A2B0", table), (b"wtpt", white)):
        tags += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    header = struct.pack(">I4sI", offset + len(body), b"lcms", 0x02400000) + b"prtrCMYKLab "
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + struct.pack(">I", 2) + tags + body
