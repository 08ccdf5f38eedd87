"""Where the rows of a data set are when a batch is made: in tensors, or still in the store."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clare_cache.data.buffers import Buffers
from clare_cache.data.orders import Positions, batches_of, full_shuffle, pooled_shuffle
from clare_cache.data.packed import unpack
from clare_cache.store import ArrayEntry, ArrayHandle

Features = dict[str, Tensor]
Item = TypeVar("Item")

BATCHES_AHEAD = 2
"""Batches that are made while the heads look at the one before."""


class RowSource(Protocol):
    """Features of images by position; what is asked for is copied, never handed out itself."""

    def batch(self, positions: Positions) -> Features:
        """The images at these positions, in this order."""

    def epoch(
        self, generator: np.random.Generator, batch_size: int
    ) -> Iterator[tuple[Positions, Features]]:
        """Every image once, shuffled."""

    def once(self, batch_size: int) -> Iterator[tuple[Positions, Features]]:
        """Every image once, in the order that is read fastest."""


class ResidentRows:
    """Rows in tensors, in RAM or on a GPU. `pinned` batches travel to it without another copy."""

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        entries: Mapping[str, ArrayEntry],
        *,
        n: int,
        pinned: bool = False,
    ) -> None:
        self._tensors = dict(tensors)
        self._entries = entries
        self._n = n
        self._pinned = pinned
        self._buffers = Buffers(pinned=pinned)

    def batch(self, positions: Positions) -> Features:
        chosen = np.ascontiguousarray(positions, dtype=np.int64)
        return {
            name: unpack(self._entries[name], self._take(tensor, chosen))
            for name, tensor in self._tensors.items()
        }

    def _take(self, tensor: Tensor, chosen: Positions) -> Tensor:
        if tensor.device.type != "cpu":
            return tensor[torch.from_numpy(chosen).to(tensor.device, non_blocking=True)]
        out = self._buffers.empty(len(chosen), tensor.shape[1:], tensor.dtype)
        # One thread copies as fast as memory allows, and waits for no other.
        np.take(tensor.numpy(), chosen, axis=0, out=out.numpy(), mode="clip")
        return out

    def epoch(
        self, generator: np.random.Generator, batch_size: int
    ) -> Iterator[tuple[Positions, Features]]:
        made = self._made(full_shuffle(self._n, generator, batch_size))
        return ahead(made) if self._pinned else made

    def once(self, batch_size: int) -> Iterator[tuple[Positions, Features]]:
        made = self._made(batches_of(np.arange(self._n), batch_size))
        return ahead(made) if self._pinned else made

    def _made(self, batches: Iterator[Positions]) -> Iterator[tuple[Positions, Features]]:
        return ((positions, self.batch(positions)) for positions in batches)


class StreamedRows:
    """Rows in the store, read when needed, a few batches ahead, in a thread of their own.

    Arrays whose chunk files can be mapped are copied straight into batches: the operating
    system's cache is their pool. Of others, whole chunks are decoded into a pool in memory.
    `check` is shown what was read with the positions of its images, and raises for lost rows.
    """

    def __init__(
        self,
        handles: Mapping[str, ArrayHandle],
        store_rows: NDArray[np.int64],
        *,
        pool_rows: int,
        pinned: bool,
        check: Callable[[str, Positions, NDArray[Any]], None],
    ) -> None:
        self._handles = handles
        self._store_rows = store_rows
        self._pool_rows = pool_rows
        self._buffers = Buffers(pinned=pinned)
        self._check = check

    def batch(self, positions: Positions) -> Features:
        return {name: self._read(name, positions) for name in self._handles}

    def epoch(
        self, generator: np.random.Generator, batch_size: int
    ) -> Iterator[tuple[Positions, Features]]:
        return ahead(self._through_pool(generator, batch_size))

    def once(self, batch_size: int) -> Iterator[tuple[Positions, Features]]:
        order = np.argsort(self._store_rows, kind="stable")
        return ahead((part, self.batch(part)) for part in batches_of(order, batch_size))

    def _through_pool(
        self, generator: np.random.Generator, batch_size: int
    ) -> Iterator[tuple[Positions, Features]]:
        pools: dict[str, NDArray[Any]] = {}
        decoded = [name for name, handle in self._handles.items() if not handle.is_mapped]
        for step in pooled_shuffle(
            self._store_rows // self.unit_rows,
            generator,
            batch_size=batch_size,
            pool_rows=self._pool_rows,
        ):
            entering = self._store_rows[step.positions_in]
            for handle in self._handles.values():
                handle.prepare(entering)
            for name in decoded:
                values = self._handles[name].read_stored(entering)
                self._check(name, step.positions_in, values)
                if name not in pools:
                    pools[name] = np.empty((step.n_slots, *values.shape[1:]), values.dtype)
                pools[name][step.slots_in] = values
            features = {}
            for name, handle in self._handles.items():
                if name in pools:
                    out = self._empty(handle, len(step.slots_out))
                    np.take(pools[name], step.slots_out, axis=0, out=out.numpy(), mode="clip")
                    features[name] = unpack(handle.entry, out)
                else:
                    features[name] = self._read(name, step.positions_out)
            yield step.positions_out, features

    @property
    def unit_rows(self) -> int:
        """Rows that are read together: the longest chunk among those that must be decoded whole,
        else that of the largest rows."""
        handles = list(self._handles.values())
        decoded = [handle.entry.chunk_rows for handle in handles if not handle.is_mapped]
        largest = max(handles, key=lambda handle: handle.entry.stored.row_nbytes, default=None)
        return max(decoded, default=largest.entry.chunk_rows if largest else 1)

    def _read(self, name: str, positions: Positions) -> Tensor:
        out = self._empty(self._handles[name], len(positions))
        values = self._handles[name].read_stored(self._store_rows[positions], out.numpy())
        self._check(name, positions, values)
        return unpack(self._handles[name].entry, out)

    def _empty(self, handle: ArrayHandle, n: int) -> Tensor:
        stored = handle.entry.stored
        return self._buffers.empty(n, stored.shape, getattr(torch, stored.dtype))


def ahead(items: Iterator[Item], depth: int = BATCHES_AHEAD) -> Iterator[Item]:
    """The same items, made by another thread, `depth` ahead; what it raises is raised here."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches ahead") as thread:
        made = deque(thread.submit(next, items, None) for _ in range(depth))
        while (item := made.popleft().result()) is not None:
            made.append(thread.submit(next, items, None))
            yield item
