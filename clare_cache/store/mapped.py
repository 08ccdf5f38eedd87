"""Raw chunk files as one piece of memory: rows at the speed of a memory-mapped file.

Every chunk file of a local, uncompressed array is mapped, when first needed, to its place in one
reserved stretch of addresses, so that the array lies there as in a single file. The store stays
plain Zarr. Knows nothing of commit records; damage is what `store verify` looks for.
"""

import ctypes
import mmap
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_MAPS = 30_000
"""Chunk files of one array; Linux lets a process hold 65,530 mappings by default."""

MAP_FIXED = 0x10


class MappedRows:
    """Rows (n, *row shape) of one array. Of a missing file they are NaN (whole numbers: 0).

    `files[i]` holds rows i·chunk_rows to (i + 1)·chunk_rows, raw, whole pages. Rows are copied
    out, never handed out as views.
    """

    def __init__(
        self, files: list[Path], *, chunk_rows: int, row_shape: tuple[int, ...], dtype: np.dtype
    ) -> None:
        self._files = files
        self._chunk_rows = chunk_rows
        self._chunk_nbytes = chunk_rows * int(np.prod(row_shape)) * dtype.itemsize
        # Readable alone and private: takes addresses, no memory.
        self._region = mmap.mmap(
            -1,
            max(1, len(files)) * self._chunk_nbytes,
            flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS,
            prot=mmap.PROT_READ,
        )
        everything = np.frombuffer(self._region, dtype)
        self._rows = everything.reshape(-1, *row_shape)
        self._address = everything.ctypes.data
        self._is_mapped = np.zeros(len(files), dtype=bool)
        self._is_announced = np.zeros(len(files), dtype=bool)

    @staticmethod
    def can_map(chunk_nbytes: int, n_chunks: int) -> bool:
        """Whether chunks of this size can lie side by side, and are not too many."""
        return chunk_nbytes % mmap.PAGESIZE == 0 and chunk_nbytes > 0 and n_chunks <= MAX_MAPS

    def take(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Copy rows in any order, repeats allowed, into `out` (n, *row shape).

        Raises OSError or ValueError for files that cannot be mapped or are not whole.
        """
        if not len(rows):
            return
        chunks = rows // self._chunk_rows
        there = self._is_mapped[chunks]
        if not there.all():
            self._map(np.unique(chunks))
            there = self._is_mapped[chunks]
        first, stop = int(rows[0]), int(rows[0]) + len(rows)
        if rows[-1] == stop - 1 and np.array_equal(rows, np.arange(first, stop)):
            np.copyto(out, self._rows[first:stop])
        else:
            np.take(self._rows, rows, axis=0, out=out, mode="clip")  # "raise" copies twice
        if not there.all():
            out[~there] = np.nan if out.dtype.kind == "f" else 0

    def prepare(self, rows: NDArray[np.int64]) -> None:
        """Let the operating system begin to read the chunks of these rows.

        Once each, where it can keep them all: to be told again costs a tenth of the reading.
        """
        chunks = rows // self._chunk_rows
        if len(self._region) < _physical_nbytes() // 2:
            chunks = chunks[~self._is_announced[chunks]]
        chunks = self._map(np.unique(chunks))
        self._is_announced[chunks] = True
        for chunk in chunks:
            start = int(chunk) * self._chunk_nbytes
            self._region.madvise(mmap.MADV_WILLNEED, start, self._chunk_nbytes)

    def _map(self, chunks: NDArray[np.int64]) -> NDArray[np.int64]:
        """Map what is not; the given chunks that have a file. Others may get theirs later."""
        for chunk in chunks[~self._is_mapped[chunks]]:
            self._map_file(int(chunk))
        return chunks[self._is_mapped[chunks]]

    def _map_file(self, chunk: int) -> None:
        path = self._files[chunk]
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return
        try:
            nbytes = os.fstat(descriptor).st_size
            if nbytes != self._chunk_nbytes:  # touching a page past the end would be a SIGBUS
                raise ValueError(f"{path.name} has {nbytes} bytes, not {self._chunk_nbytes}")
            address = self._address + chunk * self._chunk_nbytes
            flags = mmap.MAP_SHARED | MAP_FIXED
            if _libc().mmap(address, nbytes, mmap.PROT_READ, flags, descriptor, 0) != address:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), str(path))
        finally:
            os.close(descriptor)
        self._is_mapped[chunk] = True


@cache
def _physical_nbytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int64,
    ]
    return libc
