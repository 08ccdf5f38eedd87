"""What a file gives away is read from its header, whatever made it."""

import io

import numpy as np
import pytest
from PIL import Image

from clare_cache.errors import ImageError
from clare_cache.images import decode, find_view, read_traits
from clare_cache.images.views import MATCHED_PX
from tests.miniatures.pictures import encode, pixels_of

PIXELS = pixels_of("traits", width=48, height=40)


@pytest.mark.parametrize("quality", [10, 30, 50, 75, 90, 95, 100])
def test_the_quality_of_a_jpeg_is_read_from_its_tables(quality: int):
    traits = read_traits(encode(PIXELS, "JPEG", quality=quality))
    assert (traits.format, traits.jpeg_quality) == ("JPEG", quality)
    assert traits.jpeg_tables != read_traits(encode(PIXELS, "JPEG", quality=60)).jpeg_tables


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_chroma_subsampling(subsampling: str):
    data = encode(PIXELS, "JPEG", subsampling=subsampling)
    assert read_traits(data).subsampling == subsampling
    grey = io.BytesIO()
    Image.fromarray(PIXELS[..., 0]).save(grey, "JPEG")
    assert read_traits(grey.getvalue()).subsampling == "grey"


def test_a_png_has_no_tables():
    traits = read_traits(encode(PIXELS, "PNG"))
    assert traits.jpeg_quality is None
    assert (traits.jpeg_tables, traits.subsampling, traits.profile) == ("", "", "")
    assert (traits.width, traits.height, traits.mode) == (48, 40, "RGB")
    assert traits.bytes_per_pixel == pytest.approx(traits.nbytes / (48 * 40))


def test_metadata_and_profiles():
    from PIL import ImageCms
    from PIL.PngImagePlugin import PngInfo

    exif = Image.Exif()
    exif[271] = "maker"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    camera = read_traits(encode(PIXELS, "JPEG", exif=exif, icc_profile=profile, dpi=(72, 72)))
    assert camera.has_exif
    assert camera.has_dpi
    assert len(camera.profile) == 8
    prompt = PngInfo()
    prompt.add_text("parameters", "a photo of a cat, steps: 20")
    assert read_traits(encode(PIXELS, "PNG", pnginfo=prompt)).n_texts == 1
    assert read_traits(encode(PIXELS, "JPEG", progressive=True)).progressive


def test_what_is_no_picture_is_refused():
    with pytest.raises(ImageError):
        read_traits(b"no picture")


@pytest.mark.parametrize(("width", "height"), [(512, 300), (100, 420), (256, 256)])
def test_the_matched_view_makes_every_file_alike(width: int, height: int):
    view = find_view("matched-jpeg-q90")
    seen = view(pixels_of("matched", width=width, height=height), "ab" * 32)
    assert seen.shape == (MATCHED_PX, MATCHED_PX, 3)
    again = decode(encode(seen, "PNG"))
    np.testing.assert_array_equal(seen, again)
    assert view.declared() == {"view": {"name": "matched-jpeg-q90", "rule": 1}}


@pytest.mark.parametrize("name", ["matched-jpeg-q0", "matched-jpeg-q101", "matched-jpeg"])
def test_matched_views_that_are_none(name: str):
    with pytest.raises(ImageError, match="matched-jpeg-qQ"):
        find_view(name)
