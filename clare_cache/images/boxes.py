"""Boxes → where they are after a view and the geometry before a network. Coordinates only.

Follows `views` and `geometry` exactly, and refuses the views that chance decides.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clare_cache.errors import ImageError
from clare_cache.images.views import CORNERS, CROP_PX, MATCHED_PX, SHARED_PX

Boxes = NDArray[np.float64]
STILL = ("clean", "jpeg", "blur", "noise")


@dataclass(frozen=True)
class Placed:
    """Boxes (n, 4), left, top, right, bottom, in a picture of this many pixels."""

    boxes: Boxes
    width: int
    height: int

    def scaled(self, width: int, height: int) -> "Placed":
        factor = np.array([width / self.width, height / self.height] * 2)
        return Placed(self.boxes * factor, width, height)

    def cut(self, left: float, top: float, width: int, height: int) -> "Placed":
        return Placed(self.boxes - [left, top, left, top], width, height)

    def mirrored(self) -> "Placed":
        left, top, right, bottom = self.boxes.T
        boxes = np.stack([self.width - right, top, self.width - left, bottom], axis=1)
        return Placed(boxes, self.width, self.height)


def place_boxes(
    boxes: Boxes, *, width: int, height: int, view: str, geometry: str, size_px: int
) -> Boxes:
    """(n, 4) boxes of a picture in pixels → (m, 4) fractions 0..1 of what the network sees of it
    in this view, cut at the border; a box of which nothing is left is dropped.

    Raises ImageError (stage `view`) for views whose moves depend on chance.
    """
    seen = _SQUARES[geometry](_follow(Placed(boxes, width, height), view), size_px)
    found = np.clip(seen.boxes / size_px, 0, 1)
    return found[(found[:, 0] < found[:, 2]) & (found[:, 1] < found[:, 3])]


def can_follow(view: str) -> bool:
    """Whether `place_boxes` knows where this view moves a picture."""
    kind, _, _ = view.partition("-")
    return kind in STILL or kind in _MOVES


def _follow(placed: Placed, view: str) -> Placed:
    kind, _, value = view.partition("-")
    if kind in STILL:
        return placed
    if kind not in _MOVES:
        raise ImageError(
            "view", f"{view}: boxes cannot follow it, chance decides where it moves a picture"
        )
    return _MOVES[kind](placed, value)


def _resize(placed: Placed, value: str) -> Placed:
    factor = float(value.removeprefix("x"))
    return _rescaled(placed, factor)


def _rescaled(placed: Placed, factor: float) -> Placed:
    width, height = (max(round(side * factor), 1) for side in (placed.width, placed.height))
    return placed.scaled(width, height)


def _crop(placed: Placed, value: str) -> Placed:
    share = float(value.removeprefix("f"))
    width, height = (max(round(side * share), 1) for side in (placed.width, placed.height))
    return placed.cut((placed.width - width) // 2, (placed.height - height) // 2, width, height)


def _share(placed: Placed, value: str) -> Placed:
    for longest in SHARED_PX[: int(value)]:
        if (side := max(placed.width, placed.height)) > longest:
            placed = _rescaled(placed, longest / side)
    return placed


def _tencrop(placed: Placed, value: str) -> Placed:
    right, bottom = placed.width - CROP_PX, placed.height - CROP_PX
    corners = [(0, 0), (right, 0), (0, bottom), (right, bottom)]
    left, top = [*corners, (round(right / 2), round(bottom / 2))][int(value) % CORNERS]
    cut = placed.cut(left, top, CROP_PX, CROP_PX)
    return cut.mirrored() if int(value) >= CORNERS else cut


def _match(placed: Placed, value: str) -> Placed:
    factor = MATCHED_PX / min(placed.width, placed.height)
    sides = (max(round(side * factor), MATCHED_PX) for side in (placed.width, placed.height))
    placed = placed.scaled(*sides)
    left, top = (placed.width - MATCHED_PX) // 2, (placed.height - MATCHED_PX) // 2
    return placed.cut(left, top, MATCHED_PX, MATCHED_PX)


_MOVES: dict[str, Callable[[Placed, str], Placed]] = {
    "flip": lambda placed, value: placed.mirrored(),
    "resize": _resize,
    "crop": _crop,
    "share": _share,
    "tencrop": _tencrop,
    "matched": _match,
}


def _squash(placed: Placed, size_px: int) -> Placed:
    return placed.scaled(size_px, size_px)


def _resize_and_crop(placed: Placed, size_px: int) -> Placed:
    shorter = min(placed.width, placed.height)
    width, height = (int(size_px * side / shorter) for side in (placed.width, placed.height))
    return _center_crop(placed.scaled(width, height), size_px)


def _center_crop(placed: Placed, size_px: int) -> Placed:
    left, top = (_offset(side, size_px) for side in (placed.width, placed.height))
    return placed.cut(left, top, size_px, size_px)


def _offset(side: int, size_px: int) -> int:
    """Where the centre begins; negative where a border was added."""
    return round((side - size_px) / 2) if side >= size_px else -((size_px - side) // 2)


def _center_crop_reflected(placed: Placed, size_px: int) -> Placed:
    left, top = (
        (side - size_px) // 2 if side >= size_px else -((size_px - side) // 2)
        for side in (placed.width, placed.height)
    )
    return placed.cut(left, top, size_px, size_px)


_SQUARES: dict[str, Callable[[Placed, int], Placed]] = {
    "squash": _squash,
    "resize-crop": _resize_and_crop,
    "center-crop": _center_crop,
    "center-crop-reflected": _center_crop_reflected,
    "opencv-squash": _squash,
}
