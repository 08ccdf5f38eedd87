"""A backbone without a network: arithmetic on pixels, exact whatever the batch.

Satisfies `backbones/protocol.py`. It keeps a record of what it was shown, can be told to give NaN
for chosen images, and can be interrupted like a user's Ctrl-C.
"""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clare_cache.images import encode_png
from clare_cache.types import ArraySpec, ImageId

SIZE_PX = 8

MEAN = ArraySpec("mean", (3,), ("channel",), "float32", "mean of each colour")
GRID = ArraySpec("grid", (2, 4, 4), ("parity", "row", "column"), "float16", "grey, in two halves")
CODE = ArraySpec("code", (4,), ("digit",), "float32", "the id's first digits: a draw by identity")
ARRAYS = (MEAN, GRID, CODE)


class FakeBackbone:
    """Makes `arrays` out of MEAN, GRID and CODE, in their stored dtype.

    * `poison` maps an image id to the arrays that get one NaN for it.
    * `before_call(n)` runs before the n-th call, counted from 0, and may raise.
    * `seen` are the ids of every call, in order; `wanted` the arrays asked for in each call.
    * `most_waiting` is the largest number of prepared, not yet seen pictures, the call's included.
    """

    def __init__(
        self,
        *,
        name: str = "fake",
        arrays: Sequence[ArraySpec] = ARRAYS,
        factor: float = 1.0,
        poison: Mapping[ImageId, Sequence[str]] | None = None,
        before_call: Callable[[int], None] = lambda n: None,
    ) -> None:
        self.name = name
        self.source = f"{name} weights"
        self.arrays = tuple(arrays)
        self.factor = factor
        self.poison = dict(poison or {})
        self.before_call = before_call
        self.seen: list[list[ImageId]] = []
        self.wanted: list[tuple[str, ...]] = []
        self.most_waiting = 0
        self.largest_batch = 16
        self._n_waiting = 0
        self._lock = threading.Lock()

    @property
    def images_seen(self) -> list[ImageId]:
        """Every id that was looked at, repeats included."""
        return [image_id for call in self.seen for image_id in call]

    def declared(self, array: str) -> dict[str, Any]:
        return {"array": array, "factor": self.factor, "size_px": SIZE_PX}

    def preprocess(self, pixels: np.ndarray) -> np.ndarray:
        with self._lock:
            self._n_waiting += 1
        return pixels[:SIZE_PX, :SIZE_PX]

    def upload(self, batch: np.ndarray) -> np.ndarray:
        return batch

    def take_seconds(self) -> dict[str, float]:
        return {"counting": 0.0}

    def __call__(
        self, batch: np.ndarray, image_ids: Sequence[ImageId], wanted: Sequence[str]
    ) -> dict[str, np.ndarray]:
        self.before_call(len(self.seen))
        self.seen.append(list(image_ids))
        self.wanted.append(tuple(wanted))
        with self._lock:
            self.most_waiting = max(self.most_waiting, self._n_waiting)
            self._n_waiting -= len(batch)
        outputs = {}
        for spec in self.arrays:
            if spec.name in wanted:
                rows = [self.row(spec.name, *item) for item in zip(batch, image_ids, strict=True)]
                outputs[spec.name] = np.stack(rows)
        return outputs

    def row(self, array: str, pixels: np.ndarray, image_id: ImageId) -> np.ndarray:
        """One row of one array, from one prepared picture: what the store should hold."""
        if array == "mean":
            # A sum of whole numbers is exact in any order, so the bytes depend on nothing else.
            value = (pixels.sum((0, 1), dtype=np.int64) / 64 * self.factor).astype(np.float32)
        elif array == "grid":
            grey = pixels[:, :, 1].astype(np.float16)
            value = np.stack([grey[::2, ::2], grey[1::2, 1::2]]) * np.float16(self.factor)
        else:
            value = np.frombuffer(bytes.fromhex(image_id[:8]), np.uint8).astype(np.float32)
        if array in self.poison.get(image_id, ()):
            value.flat[0] = np.nan
        return value


def make_image(number: int, *, width: int = 16, height: int = 12) -> tuple[ImageId, bytes]:
    """A small PNG of noise, and its id; the same for the same number."""
    noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
    data = encode_png(noise)
    return ImageId(hashlib.sha256(data).hexdigest()), data


def write_images(folder: Path, n_images: int, *, start: int = 0) -> dict[ImageId, tuple[str, ...]]:
    """Image files `000.png` … in `folder`; the mapping that `extract_features` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    images = {}
    for number in range(start, start + n_images):
        image_id, data = make_image(number)
        name = f"{number:03d}.png"
        (folder / name).write_bytes(data)
        images[image_id] = (name,)
    return images


def bytes_below(folder: Path) -> dict[str, bytes]:
    """Content of every file below a folder by its relative name."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
