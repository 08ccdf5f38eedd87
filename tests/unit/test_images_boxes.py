"""Boxes go where the pixels go: a painted box is found again after each view and geometry."""

import numpy as np
import pytest

from clare_cache.errors import ImageError
from clare_cache.images import GEOMETRIES, can_follow, find_view, place_boxes, view_spellings

BOX = np.array([[66.0, 80.0, 150.0, 176.0]])
IMAGE_ID = "0" * 64
MOVING = ["clean", "flip", "crop-f0.8", "resize-x0.5", "resize-x1.5", "share-2", "matched-jpeg-q90"]
MOVING += [f"tencrop-{number}" for number in range(10)]


def picture(width: int, height: int) -> np.ndarray:
    """Grey, the box white."""
    pixels = np.full((height, width, 3), 90, np.uint8)
    left, top, right, bottom = BOX[0].astype(int)
    pixels[top:bottom, left:right] = 255
    return pixels


def white_box(pixels: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(pixels[..., 0] > 172)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("view", MOVING)
@pytest.mark.parametrize(("width", "height"), [(256, 256), (301, 240), (240, 333)])
def test_a_painted_box_is_found_where_it_is_said_to_be(geometry, view, width, height):
    shown = find_view(view)(picture(width, height), IMAGE_ID)
    if geometry == "center-crop-reflected" and min(shown.shape[:2]) < 224:
        return  # its borders mirror the box itself
    seen = GEOMETRIES[geometry](shown, 224)
    found = place_boxes(BOX, width=width, height=height, view=view, geometry=geometry, size_px=224)
    assert found.shape == (1, 4)
    assert np.abs(found[0] * 224 - white_box(seen)).max() <= 1


def test_a_wide_picture_shared_is_followed_through_each_reduction():
    found = place_boxes(
        np.array([[0, 0, 700, 200.0]]),
        width=1400, height=400, view="share-3", geometry="squash", size_px=10,
    )  # fmt: skip
    assert found[0] == pytest.approx([0, 0, 0.5, 0.5])


def test_a_small_picture_stands_between_black_borders():
    found = place_boxes(
        np.array([[0, 0, 100, 51.0]]),
        width=100, height=51, view="clean", geometry="center-crop", size_px=200,
    )  # fmt: skip
    assert found[0] == pytest.approx([0.25, 74 / 200, 0.75, 125 / 200])


def test_boxes_are_cut_at_the_border_and_dropped_outside():
    boxes = np.array([[0, 0, 10, 10], [90, 0, 110, 20], [195, 0, 200, 100.0]])
    found = place_boxes(
        boxes, width=200, height=100, view="clean", geometry="center-crop", size_px=100
    )
    assert found.tolist() == [[0.4, 0, 0.6, 0.2]]


def test_only_views_that_chance_decides_are_refused():
    refused = {spelling for spelling in view_spellings() if not can_follow(spelling)}
    assert refused == {"aug-NNN", "rine-code-K, rine-paper-K"}
    with pytest.raises(ImageError, match="aug-001: boxes cannot follow it, chance decides"):
        place_boxes(BOX, width=9, height=9, view="aug-001", geometry="squash", size_px=9)
