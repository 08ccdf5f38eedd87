"""Where the rows of a data set are when a batch is made: in tensors, or still in the store."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clare_cache.data.buffers import Buffers
from clare_cache.data.orders import PoolStep, Positions, batches_of, full_shuffle, pooled_shuffle
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
        return self._made(full_shuffle(self._n, generator, batch_size))

    def once(self, batch_size: int) -> Iterator[tuple[Positions, Features]]:
        return self._made(batches_of(np.arange(self._n), batch_size))

    def _made(self, batches: Iterator[Positions]) -> Iterator[tuple[Positions, Features]]:
        makers = (partial(self._with_positions, positions) for positions in batches)
        return ahead(makers) if self._pinned else (make() for make in makers)

    def _with_positions(self, positions: Positions) -> tuple[Positions, Features]:
        return positions, self.batch(positions)


class StreamedRows:
    """Rows in the store, read when needed.

    Arrays whose chunk files can be mapped are copied straight into batches: the operating
    system's cache is their pool. Of others, whole chunks are decoded into a pool in memory, in a
    thread of their own, a few batches ahead; as is all that goes on to a GPU.
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
        self._pinned = pinned
        self._buffers = Buffers(pinned=pinned)
        self._check = check

    def batch(self, positions: Positions) -> Features:
        return {name: self._read(name, positions) for name in self._handles}

    def epoch(
        self, generator: np.random.Generator, batch_size: int
    ) -> Iterator[tuple[Positions, Features]]:
        steps = pooled_shuffle(
            self._store_rows // self.unit_rows,
            generator,
            batch_size=batch_size,
            pool_rows=self._pool_rows,
        )
        # A file that turns out not to be mappable is read by Zarr, but not through a pool that
        # lacks what has entered before.
        pools: dict[str, NDArray[Any] | None] = {
            name: None for name, handle in self._handles.items() if not handle.is_mapped
        }
        return self._made(partial(self._through_pool, pools, step) for step in steps)

    def once(self, batch_size: int) -> Iterator[tuple[Positions, Features]]:
        order = np.argsort(self._store_rows, kind="stable")
        parts = list(batches_of(order, batch_size))
        return self._made(
            partial(self._in_order, part, following)
            for part, following in zip(parts, [*parts[1:], order[:0]], strict=True)
        )

    def _made(
        self, makers: Iterator[Callable[[], tuple[Positions, Features]]]
    ) -> Iterator[tuple[Positions, Features]]:
        """What a CPU copies out of mapped files, no second thread makes any sooner: the operating
        system reads ahead what was announced, and each hand-over would cost a tenth of a copy."""
        is_copied = all(handle.is_mapped for handle in self._handles.values())
        return (make() for make in makers) if is_copied and not self._pinned else ahead(makers)

    def _in_order(self, part: Positions, following: Positions) -> tuple[Positions, Features]:
        for handle in self._handles.values():
            handle.prepare(self._store_rows[following])
        return part, self.batch(part)

    def _through_pool(
        self, pools: dict[str, NDArray[Any] | None], step: PoolStep
    ) -> tuple[Positions, Features]:
        """One batch. Images of arrays that must be decoded wait in `pools`."""
        entering = self._store_rows[step.positions_in]
        features = {}
        for name, handle in self._handles.items():
            if name not in pools:
                handle.prepare(entering)
                features[name] = self._read(name, step.positions_out)
                continue
            values = handle.read_stored(entering)
            self._check(name, step.positions_in, values)
            pool = pools[name]
            if pool is None:
                pool = pools[name] = np.empty((step.n_slots, *values.shape[1:]), values.dtype)
            pool[step.slots_in] = values
            out = self._empty(handle, len(step.slots_out))
            np.take(pool, step.slots_out, axis=0, out=out.numpy(), mode="clip")
            features[name] = unpack(handle.entry, out)
        return step.positions_out, features

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


def ahead(makers: Iterator[Callable[[], Item]], depth: int = BATCHES_AHEAD) -> Iterator[Item]:
    """What the makers make, in their order, `depth` ahead in another thread; what one raises is
    raised here."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches ahead") as thread:
        made = deque(thread.submit(make) for make in islice(makers, depth))
        while made:
            item = made.popleft().result()
            made.extend(thread.submit(make) for make in islice(makers, 1))
            yield item
