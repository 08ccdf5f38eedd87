"""Names for ids, shapes and small records that several layers share. No I/O, no torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NewType

import numpy as np
from numpy.typing import NDArray

ImageId = NewType("ImageId", str)
"""SHA-256 of a file's bytes, 64 lower-case hexadecimal digits."""

Pixels = NDArray[np.uint8]
"""A decoded picture: (height, width, 3), RGB, 0..255."""

REAL, FAKE = 0, 1
"""The label convention everywhere: real 0, generated 1."""

CLEAN = "clean"
"""The view that is the unperturbed picture."""


@dataclass(frozen=True)
class ArraySpec:
    """What one cached array holds per image.

    `shape` and `axes` describe one row (the image axis is not part of them); `dtype` is a numpy
    dtype name, as stored.
    """

    name: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    dtype: str
    meaning: str

    @property
    def row_nbytes(self) -> int:
        """Bytes one image costs in this array."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Failure:
    """One line of the ledger: an image that could not be used, at which stage, and why."""

    image_id: ImageId
    path: str
    stage: str
    reason: str


@dataclass(frozen=True)
class Progress:
    """How far a long piece of work is: `done` of `total` `unit`s."""

    what: str
    done: int
    total: int
    unit: str
    note: str = ""


OnProgress = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """The callback for those who do not watch."""
