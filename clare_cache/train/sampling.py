"""Epochs that show every class, or every generator, equally often."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from clare_cache.train.config import Sampling
from clare_cache.types import FAKE, REAL

Batch = tuple[Mapping[str, Tensor], Tensor]


class BalancedData:
    """Training data whose `epoch` draws as `sampling` says, as many images as there are.

    `class`: half reals, half fakes. `generator`: half reals, the other half in equal parts from
    every generator. Within a part no image comes again before all others of it came. Everything
    but `epoch` is the data's own.
    """

    def __init__(self, data: Any, sampling: Sampling) -> None:
        self._data = data
        generators = data.rows["generator"].tolist() if sampling == "generator" else ()
        self._parts = parts_of(data.labels.numpy(), generators, sampling)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)

    def __len__(self) -> int:
        return len(self._data)

    def epoch(self, generator: np.random.Generator, batch_size: int) -> Iterator[Batch]:
        """As many images as there are in shuffled batches, with their labels."""
        order = balanced_order(self._parts, len(self), generator)
        for start in range(0, len(order), batch_size):
            yield self._data.batch(order[start : start + batch_size])


def parts_of(
    labels: NDArray[np.int64], generators: Sequence[str], sampling: Sampling
) -> list[tuple[float, NDArray[np.int64]]]:
    """Share of an epoch and positions of each part; shares sum to 1."""
    reals, fakes = np.flatnonzero(labels == REAL), np.flatnonzero(labels == FAKE)
    if sampling == "class":
        return [(0.5, reals), (0.5, fakes)]
    names = np.asarray(generators, dtype=object)
    kinds = sorted(set(names[fakes]))
    return [
        (0.5, reals),
        *((0.5 / len(kinds), fakes[names[fakes] == kind]) for kind in kinds),
    ]


def balanced_order(
    parts: Sequence[tuple[float, NDArray[np.int64]]], n: int, generator: np.random.Generator
) -> NDArray[np.int64]:
    """`n` positions, each part with its share of them, shuffled."""
    ends = np.rint(n * np.cumsum([share for share, _ in parts])).astype(int)
    drawn = []
    for (_, positions), size in zip(parts, np.diff(ends, prepend=0), strict=True):
        rounds = -(-size // len(positions))
        again = [generator.permutation(positions) for _ in range(rounds)]
        drawn.append(np.concatenate(again)[:size] if again else positions[:0])
    return generator.permutation(np.concatenate(drawn))
