"""Pictures for the demo, made on the spot: crops of photographs, and stand-ins for generators.

The stand-ins are no generators. They leave the two traces that detectors of generated images are
known to feed on: the periodic pattern of strided transposed convolutions (Odena et al. 2016,
"Deconvolution and checkerboard artifacts") and the missing high frequencies of decoders
(Durall et al. 2020, "Watch your up-convolution"). Arrays in, arrays out; no files.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from clare_cache.seeds import generator_for
from clare_cache.types import Pixels

CROP_PX = 192
COLUMNS, ROWS = 3, 2
"""A photograph is cut into regions of which no two share a pixel; a region is a group."""


@dataclass(frozen=True)
class Crop:
    """One picture of the demo: where it was cut, by what it was made, and its pixels."""

    photograph: str
    region: str
    generator: str
    number: int
    pixels: Pixels


def transposed_convolution(pixels: Pixels) -> Pixels:
    """Halve, then enlarge by a stride-2 transposed convolution with a 3-tap kernel.

    The taps overlap unevenly (3 is no multiple of 2): even positions receive 0.97 of the signal,
    odd ones 1.03, the checkerboard of the literature.
    """
    tap, centre = 0.515, 0.97
    out = _halve(pixels.astype(np.float64))
    for axis in (0, 1):
        following = np.concatenate(
            [np.take(out, range(1, out.shape[axis]), axis), np.take(out, [-1], axis)], axis
        )
        pairs = np.stack([centre * out, tap * (out + following)], axis=axis + 1)
        shape = list(out.shape)
        shape[axis] *= 2
        out = pairs.reshape(shape)
    return _to_bytes(out)


def smoothing_decoder(pixels: Pixels) -> Pixels:
    """Halve, then enlarge by linear interpolation: no pattern, but no high frequencies either."""
    out = _halve(pixels.astype(np.float64))
    for axis in (0, 1):
        last = out.shape[axis] - 1
        before = np.take(out, np.maximum(np.arange(last + 1) - 1, 0), axis)
        after = np.take(out, np.minimum(np.arange(last + 1) + 1, last), axis)
        pairs = np.stack([0.75 * out + 0.25 * before, 0.75 * out + 0.25 * after], axis=axis + 1)
        shape = list(out.shape)
        shape[axis] *= 2
        out = pairs.reshape(shape)
    return _to_bytes(out)


STAND_INS: dict[str, Callable[[Pixels], Pixels]] = {
    "transposed-conv": transposed_convolution,
    "smooth-decoder": smoothing_decoder,
}


def cut_crops(
    photograph: Pixels, name: str, generators: tuple[str, ...], *, per_region: int, seed: int
) -> Iterator[Crop]:
    """`per_region` crops of every region for "real" and for each named stand-in.

    Crops lie at random offsets inside their region, turned and mirrored at random. Photographs
    of at least 3·192 × 2·192 px.
    """
    height, width = photograph.shape[0] // ROWS, photograph.shape[1] // COLUMNS
    places = (height - CROP_PX + 1, width - CROP_PX + 1, 4, 2)
    for generator in ("real", *generators):
        for region in range(ROWS * COLUMNS):
            row, column = divmod(region, COLUMNS)
            rng = generator_for(seed, f"{name}/{region}/{generator}", "crops")
            # Without replacement: no two crops of a kind are the same picture.
            chosen = rng.choice(int(np.prod(places)), size=per_region, replace=False)
            for number, place in enumerate(chosen):
                down, right, turns, mirrored = np.unravel_index(int(place), places)
                top, left = row * height + int(down), column * width + int(right)
                crop = photograph[top : top + CROP_PX, left : left + CROP_PX]
                crop = np.rot90(crop, int(turns))
                crop = np.ascontiguousarray(crop[:, ::-1] if mirrored else crop)
                if generator != "real":
                    crop = STAND_INS[generator](crop)
                yield Crop(name, f"{name}-{region}", generator, number, crop)


def _halve(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over 2×2 pixels."""
    height, width, channels = image.shape
    return image.reshape(height // 2, 2, width // 2, 2, channels).mean(axis=(1, 3))


def _to_bytes(image: NDArray[np.float64]) -> Pixels:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
