"""Memory of batches, used again once nobody looks at it: first touching new pages costs more than
copying into old ones.
"""

import math
import weakref
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Buffers:
    """Hands out uninitialised tensors (n, *row shape). Pinned ones, torch keeps by itself."""

    def __init__(self, *, pinned: bool = False) -> None:
        self._pinned = pinned
        self._free: defaultdict[object, list[NDArray[np.uint8]]] = defaultdict(list)

    def empty(self, n: int, row_shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor that is nobody else's, until it and all views of it are gone."""
        if self._pinned:
            return torch.empty((n, *row_shape), dtype=dtype, pin_memory=True)
        nbytes = n * math.prod(row_shape) * dtype.itemsize
        free = self._free[nbytes]
        memory = free.pop() if free else np.empty(max(nbytes, 1), np.uint8)
        lent = memory[:nbytes]
        # Every tensor over this memory holds `lent`, so that its end is the end of all of them.
        weakref.finalize(lent, free.append, memory)
        return torch.from_numpy(lent).view(dtype).reshape(n, *row_shape)
