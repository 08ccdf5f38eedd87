"""What stage one asks of a frozen network. Implementations: `error_map`, `clip`."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clare_cache.types import ArraySpec, ImageId, Pixels

PictureBatch = NDArray[np.generic] | Any
"""Preprocessed pictures (B, h, w, 3): an array or, uploaded, a tensor. Slices are taken of it."""


class Backbone(Protocol):
    """A frozen value: network, preprocessing, declared outputs and identity.

    `arrays` are the cached arrays it can make, in a fixed order. `declared(array)` is the JSON-able
    mapping of all inputs that decide that array's values (weights digest, preprocessing, seed,
    precision …) and nothing else: two backbones with equal declarations are interchangeable.
    `source` is the spelling (`--sd`, `--clip`) that loads these weights again; it never enters a
    fingerprint. `take_seconds()` is the time spent in each of its networks since it was last asked,
    by the network's name. `largest_batch` is how many pictures at once may bring speed on its
    device.
    """

    name: str
    source: str
    arrays: tuple[ArraySpec, ...]
    largest_batch: int

    def declared(self, array: str) -> Mapping[str, Any]: ...

    def preprocess(self, pixels: Pixels) -> Pixels:
        """One decoded picture (H, W, 3) → the fixed-size uint8 picture the network looks at.

        As an attribute it can be pickled alone (`images.Preparation`), so that other processes
        prepare pictures without the network. May raise ImageError."""
        ...

    def upload(self, batch: NDArray[np.generic]) -> PictureBatch:
        """The same pictures on the device, copied while it works on others; called from another
        thread. Where the device is the CPU, `batch` itself."""
        ...

    def take_seconds(self) -> Mapping[str, float]: ...

    def __call__(
        self, batch: PictureBatch, image_ids: Sequence[ImageId], wanted: Sequence[str]
    ) -> dict[str, NDArray[np.generic]]:
        """(B, h, w, 3) preprocessed pictures (of `ErrorMapFromLatent`: latents), uploaded or not →
        the wanted arrays, each (B, *shape), dtype as declared. Row i depends on picture i and id i
        alone, up to the rounding of batched arithmetic. Values may be non-finite: the caller
        refuses those rows. Raises MemoryError when the batch does not fit into the device's memory.
        """
        ...
