"""Which rows hold numbers alone: NaN is what was never written, infinity what overflowed."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALL_NBYTES = 2**20
"""Up to here a mask of all values costs nothing, and a loop over rows does."""

_EXPONENT: dict[str, tuple[Any, Any]] = {
    "float16": (np.uint16, np.uint16(0x7C00)),
    "float32": (np.uint32, np.uint32(0x7F800000)),
}


def are_finite(values: NDArray[Any]) -> NDArray[np.bool_]:
    """(n,) whether all of a row is finite; told by the exponent's bits, which costs least."""
    rows = np.ascontiguousarray(values.reshape(len(values), math.prod(values.shape[1:])))
    if rows.dtype.name not in _EXPONENT:
        return np.array([bool(np.isfinite(row).all()) for row in rows], dtype=bool)
    kind, exponent = _EXPONENT[rows.dtype.name]
    if rows.nbytes < SMALL_NBYTES:
        return ((rows.view(kind) & exponent) < exponent).all(axis=1)
    # Row by row: a mask of all values would take half as much memory again.
    return np.array(
        [bool((row & exponent).max(initial=0) < exponent) for row in rows.view(kind)], dtype=bool
    )
