"""Dropout masks: functions of a member's seed and of a place in its training, and nothing else."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clare_cache.seeds import seed_for

MASK_CACHE_BYTES = 2**28
"""Masks of one step that other stacks may meet again are kept up to this size."""

Asked = tuple[int, int, torch.Size, float, Tensor]
"""The arguments of `Masks.draw`."""


class Masks:
    """Dropout masks of one training step: functions of a member's seed and the call's number."""

    def __init__(self, place: str) -> None:
        self._place = place
        self._kept: dict[tuple[Any, ...], Tensor] = {}
        self._nbytes = 0

    def draw(self, seed: int, number: int, shape: torch.Size, p: float, like: Tensor) -> Tensor:
        """0 with probability `p`, else 1 / (1 − p), on the device of `like` and in its dtype."""
        key = (seed, number, shape, p, like.device, like.dtype)
        if key in self._kept:
            return self._kept[key]
        generator = torch.Generator(device=like.device)
        generator.manual_seed(seed_for(seed, "train", f"dropout/{self._place}/{number}") % 2**63)
        mask = torch.empty(shape, dtype=like.dtype, device=like.device)
        mask.bernoulli_(1 - p, generator=generator).div_(1 - p)
        self._nbytes += mask.nbytes
        if self._nbytes <= MASK_CACHE_BYTES:
            self._kept[key] = mask
        return mask


class NotedMasks(Masks):
    """The masks of a step; `asked` tells in order which were drawn."""

    def __init__(self, masks: Masks) -> None:
        self._masks = masks
        self.asked: list[Asked] = []

    def draw(self, seed: int, number: int, shape: torch.Size, p: float, like: Tensor) -> Tensor:
        # Within vmap `like` is a tensor that must not be kept.
        kept = torch.empty(0, dtype=like.dtype, device=like.device)
        self.asked.append((seed, number, shape, p, kept))
        return self._masks.draw(seed, number, shape, p, kept)


class HandedMasks(Masks):
    """Masks that were drawn before, handed over in their order."""

    def __init__(self, drawn: Sequence[Tensor]) -> None:
        self._drawn = iter(drawn)

    def draw(self, seed: int, number: int, shape: torch.Size, p: float, like: Tensor) -> Tensor:
        return next(self._drawn)
