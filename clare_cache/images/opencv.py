"""OpenCV's arithmetic without OpenCV, for pictures that its users prepared with it."""

import numpy as np
from numpy.typing import NDArray

from clare_cache.types import Pixels


def opencv_bicubic(pixels: Pixels, *, width: int, height: int) -> Pixels:
    """OpenCV's cubic resize: a = −0.75, no antialias, borders repeated.

    Equal to `cv2.resize` but for a grey level in one of 100,000 values, where OpenCV's
    fixed-point sums round otherwise.
    """
    resized = pixels.astype(np.float64)
    for axis, size in ((0, height), (1, width)):
        n = resized.shape[axis]
        position = (np.arange(size) + 0.5) * n / size - 0.5
        base = np.floor(position).astype(int)
        taps = []
        for k in range(-1, 3):
            weight = _cubic(position - (base + k))
            shape = [1, 1, 1]
            shape[axis] = size
            taken = np.take(resized, np.clip(base + k, 0, n - 1), axis=axis)
            taps.append(taken * weight.reshape(shape))
        resized = np.sum(taps, axis=0)
    return np.clip(np.rint(resized), 0, 255).astype(np.uint8)


def _cubic(distance: NDArray[np.float64], a: float = -0.75) -> NDArray[np.float64]:
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))
