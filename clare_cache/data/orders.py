"""In which order an epoch sees its images. Pure: numbers in, numbers out; the seed decides all."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


def batches_of(positions: Positions, batch_size: int) -> Iterator[Positions]:
    """Consecutive batches; the last one may be smaller."""
    for start in range(0, len(positions), batch_size):
        yield positions[start : start + batch_size]


def full_shuffle(n: int, generator: np.random.Generator, batch_size: int) -> Iterator[Positions]:
    """Every image once, all orders equally likely."""
    return batches_of(generator.permutation(n), batch_size)


@dataclass(frozen=True)
class PoolStep:
    """One batch drawn from a pool: images that enter it first, then those that leave as a batch.

    `slots_in[i]` is where image `positions_in[i]` is put; `slots_out` are those of the batch.
    """

    positions_in: Positions
    slots_in: NDArray[np.int64]
    positions_out: Positions
    slots_out: NDArray[np.int64]
    n_slots: int


def pooled_shuffle(
    units: NDArray[np.int64],
    generator: np.random.Generator,
    *,
    batch_size: int,
    pool_rows: int,
) -> Iterator[PoolStep]:
    """Every image once, with whole units of the disk read one after the other.

    `units[i]` is the unit (a chunk) that image i lies in. Units enter a pool of `pool_rows` in
    random order; each batch is drawn from all that is in the pool, and then as many units enter
    as have room. Every batch but the last is full, as in `full_shuffle`.
    """
    n = len(units)
    names, counts = np.unique(units, return_counts=True)
    rank = generator.permutation(len(names))
    incoming = np.argsort(rank[np.searchsorted(names, units)], kind="stable")
    sizes = np.empty_like(counts)
    sizes[rank] = counts
    n_slots = pool_size(pool_rows, batch_size=batch_size, largest=int(counts.max(initial=1)), n=n)
    held = np.empty(n_slots, np.int64)
    slots = np.arange(n_slots)
    # `slots[:n_held]` hold images, the rest are free: a step costs what its batch does.
    unit = entered = n_held = 0
    while n_held or entered < n:
        stop = entered
        n_free = n_slots - n_held
        while unit < len(sizes) and stop + sizes[unit] - entered <= n_free:
            stop += int(sizes[unit])
            unit += 1
        positions_in = incoming[entered:stop]
        slots_in = slots[n_held : n_held + len(positions_in)].copy()
        held[slots_in] = positions_in
        entered = stop
        n_held += len(positions_in)
        n_out = min(batch_size, n_held)
        drawn = generator.choice(n_held, n_out, replace=False)
        slots_out = slots[drawn]
        n_held -= n_out
        last = slots[n_held : n_held + n_out]
        stays = np.ones(n_out, bool)
        stays[drawn[drawn >= n_held] - n_held] = False
        slots[drawn[drawn < n_held]] = last[stays]
        last[:] = slots_out
        yield PoolStep(positions_in, slots_in, held[slots_out], slots_out, n_slots)


def pool_size(pool_rows: int, *, batch_size: int, largest: int, n: int) -> int:
    """Slots of a pool: at least a batch and a unit, so that a batch is always full; at most all."""
    return min(max(pool_rows, batch_size + largest), max(n, 1))
