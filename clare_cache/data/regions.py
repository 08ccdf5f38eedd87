"""Boxes of a manifest → the array `region_boxes` of heads that pool regions. Opens no file.

The one array that is not in the store: boxes are about pictures, as labels are, and lie in the
manifest. Where a box lies on the grid of patches follows from what the patch tokens declare.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from clare_cache.errors import ImageError, TrainError, raise_faults
from clare_cache.fingerprint import fingerprint
from clare_cache.images import can_follow, place_boxes
from clare_cache.manifest.boxes import MAX_BOXES, read_boxes

REGIONS = "region_boxes"
PATCHES = "clip_patch_tokens"
"""The array on whose grid boxes are placed."""
SHAPE = (MAX_BOXES, 4)


def stored(needs: Sequence[str]) -> list[str]:
    """The arrays among `needs` that a store holds."""
    return [name for name in needs if name != REGIONS]


def follows(needs: Sequence[str], view: str) -> bool:
    """Whether all that a head needs can be had in this view, if the store has the rest."""
    return REGIONS not in needs or can_follow(view)


def describe_regions(patches: Mapping[str, Any]) -> dict[str, object]:
    """What `region_boxes` are made from, given what the patch tokens declare."""
    declared = {"from": "manifest", **{key: patches[key] for key in ("geometry", "size_px")}}
    return {"fingerprint": fingerprint(declared), "declared": declared}


def region_boxes(rows: pd.DataFrame, *, view: str, patches: Mapping[str, Any]) -> Tensor:
    """(n, 16, 4) float32 fractions of the square picture, rows of NaN after an image's last box.

    Raises TrainError for rows without boxes at all, boxes without a size of the picture, and
    views whose moves depend on chance.
    """
    cells = rows["boxes"]
    has_boxes = cells.notna().to_numpy(bool)
    unsized = rows.loc[has_boxes & rows[["width", "height"]].isna().any(axis=1), "path"]
    faults = []
    if not has_boxes.any():
        faults.append(f"column boxes: expected boxes, found none in {len(rows)} rows")
    if len(unsized):
        faults.append(
            f"columns width and height: expected both beside boxes, found none in {len(unsized)} "
            f"rows, the first is {unsized.iloc[0]}"
        )
    raise_faults(
        TrainError,
        "region pooling: the manifest's boxes cannot be placed",
        faults,
        advice="Name the boxes and sizes of its pictures in the manifest, or set `regions: false`.",
    )
    kept = [cell if has else None for cell, has in zip(cells, has_boxes, strict=True)]
    sizes = rows[["width", "height"]].to_numpy(object)
    return placed_regions(kept, sizes, view=view, patches=patches)


def placed_regions(
    cells: Sequence[str | None], sizes: Any, *, view: str, patches: Mapping[str, Any]
) -> Tensor:
    """As `region_boxes`, of boxes as a manifest's cells and (n, 2) widths and heights in pixels;
    None has no boxes, and its size is not looked at."""
    found = np.full((len(cells), *SHAPE), np.nan, np.float32)
    for number, cell in enumerate(cells):
        if cell is None:
            continue
        try:
            boxes = place_boxes(
                read_boxes(cell),
                width=int(sizes[number][0]),
                height=int(sizes[number][1]),
                view=view,
                geometry=patches["geometry"],
                size_px=patches["size_px"],
            )
        except ImageError as error:
            raise TrainError(
                f"region pooling: {error}. Choose other views with --view, or a head without "
                "regions."
            ) from error
        found[number, : len(boxes)] = boxes
    return torch.from_numpy(found)
