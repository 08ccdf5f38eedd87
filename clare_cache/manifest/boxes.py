"""Boxes in a picture, as a cell of a manifest holds them: JSON text, in pixels."""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_BOXES = 16
"""Boxes of one picture; heads get as many places for each."""

EXPECTED = (
    f"at most {MAX_BOXES} boxes [x0, y0, x1, y1] in pixels with x0 < x1 and y0 < y1, such as "
    "[[4, 8, 60.5, 64]]"
)


def as_cell(value: Any) -> Any:
    """A list of boxes (Parquet gives nested arrays) as JSON text; anything else as it is."""
    if isinstance(value, np.ndarray | list | tuple):
        return json.dumps(_plain(value))
    return value


def read_boxes(cell: str) -> NDArray[np.float64]:
    """(n, 4) left, top, right, bottom in pixels. Raises ValueError for anything else."""
    boxes = np.array(json.loads(cell), np.float64)
    if boxes.size == 0:
        return np.empty((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4 or len(boxes) > MAX_BOXES:
        raise ValueError(EXPECTED)
    if not np.isfinite(boxes).all() or (boxes[:, :2] >= boxes[:, 2:]).any():
        raise ValueError(EXPECTED)
    return boxes


def is_faulty(cell: Any) -> bool:
    """Whether a cell that is not missing holds no boxes."""
    try:
        read_boxes(cell)
    except (ValueError, TypeError):
        return True
    return False


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value
