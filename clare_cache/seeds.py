"""Randomness as a function of identity: (base seed, name, role) decides every draw.

Nothing here depends on the worker, the batch, the order or the device, so a cached tensor can be
made again, alone, anywhere. There is no global seeding in this package.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray


def seed_for(base: int, name: str, role: str) -> int:
    """A 128-bit seed for one draw, e.g. `seed_for(0, image_id, "noise/3")`."""
    digest = hashlib.sha256(f"{base}\x00{name}\x00{role}".encode()).digest()
    return int.from_bytes(digest[:16], "little")


def generator_for(base: int, name: str, role: str) -> np.random.Generator:
    """The numpy generator of one draw: Philox, counter-based, keyed by `seed_for`."""
    return np.random.Generator(np.random.Philox(key=seed_for(base, name, role)))


def standard_normal(base: int, name: str, role: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Float32 samples of N(0, 1) of the given shape, drawn on the CPU whatever the device."""
    return generator_for(base, name, role).standard_normal(shape, dtype=np.float32)
