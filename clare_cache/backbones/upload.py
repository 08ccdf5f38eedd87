"""Batches of pictures on their way into a GPU's memory, beside its work."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Upload:
    """Brings batches to one device, from another thread than the one that has it compute.

    On a GPU by way of pinned memory and a stream of its own, so that neither the host nor the
    kernels in the queue wait for the copy. A CPU is given the very same batch; so is, in the end, a
    GPU whose memory is full: whoever looks at the batch then meets that and divides it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = None

    def __call__(self, batch: NDArray[np.generic]) -> NDArray[np.generic] | Tensor:
        """The same values, on the device when this returns."""
        if self._device.type != "cuda":
            return batch
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)
        try:
            with torch.cuda.stream(self._stream):
                pinned = torch.from_numpy(np.ascontiguousarray(batch)).pin_memory()
                there = pinned.to(self._device, non_blocking=True)
        except torch.OutOfMemoryError:
            return batch
        self._stream.synchronize()  # this thread alone waits
        return there


def on_device(batch: NDArray[np.generic] | Tensor, device: torch.device) -> Tensor:
    """A batch, uploaded or not, as a tensor on the device."""
    if not isinstance(batch, Tensor):
        return torch.from_numpy(np.ascontiguousarray(batch)).to(device)
    if batch.device.type == "cuda":
        # It was allocated for the uploading stream, which may not have its memory back before the
        # computing one is done with it.
        batch.record_stream(torch.cuda.current_stream(device))
    return batch
