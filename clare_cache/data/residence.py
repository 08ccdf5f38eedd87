"""Where arrays are kept while heads train: decided from what fits, and said in a sentence."""

from dataclasses import dataclass
from typing import Literal

import psutil
import torch

RESIDENT_SHARE = 0.5
"""Arrays are kept on a GPU or in RAM when they take less than this share of what is free there:
heads need the rest, and a second data set may follow the first."""

POOL_NBYTES = 2 * 2**30
"""Streamed images wait in a pool of this size, whatever the machine: it decides their order."""


@dataclass(frozen=True)
class Residence:
    """`gpu`, `ram` or `streamed`; `why` tells people. `pool_rows` are the images that a streamed
    epoch mixes at a time. `pinned` memory travels to a GPU without another copy."""

    kind: Literal["gpu", "ram", "streamed"]
    why: str
    device: torch.device
    pool_rows: int = 0
    pinned: bool = False

    def __str__(self) -> str:
        return self.why


def choose_residence(
    *, row_nbytes: int, n_rows: int, device: torch.device, resident: bool | None
) -> Residence:
    """On the GPU that trains if it fits, else in RAM, else streamed.

    `resident` True or False decides between RAM and streaming, whatever fits.
    """
    nbytes = row_nbytes * n_rows
    size = _as_size(nbytes)
    on_gpu = device.type == "cuda"
    if on_gpu and resident is None:
        free = torch.cuda.mem_get_info(device)[0]
        if nbytes < RESIDENT_SHARE * free:
            return Residence("gpu", f"{size} resident on {device}, {_as_size(free)} free", device)
    available = psutil.virtual_memory().available
    if resident or (resident is None and nbytes < RESIDENT_SHARE * available):
        why = f"{size} resident in RAM, {_as_size(available)} free"
        return Residence("ram", why, device, pinned=on_gpu)
    pool_rows = max(1, POOL_NBYTES // max(row_nbytes, 1))
    why = (
        f"{size} streamed through a pool of {min(pool_rows, n_rows):,} images, "
        f"{_as_size(available)} RAM free"
    )
    return Residence("streamed", why, device, pool_rows=pool_rows, pinned=on_gpu)


def _as_size(nbytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} TB"
