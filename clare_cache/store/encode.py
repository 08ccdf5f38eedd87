"""A chunk of values → the bytes of its file, by Zarr itself: what any Zarr reader undoes."""

import sys
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer
from zarr.storage import MemoryStore


def encode_chunk(array: zarr.Array, rows: NDArray[Any]) -> bytes:
    """The file of a chunk whose first rows are `rows`; the others hold the fill value.

    A last chunk that the array does not fill is stored whole, as Zarr does.
    """
    chunk = np.full(array.chunks, array.fill_value, array.dtype)
    chunk[: len(rows)] = rows
    held: dict[str, Buffer] = {}
    copy = zarr.create_array(
        MemoryStore(held),
        shape=array.chunks,
        chunks=array.chunks,
        dtype=array.dtype,
        filters=array.filters or None,
        serializer=array.serializer or "auto",
        compressors=array.compressors or None,
        fill_value=array.fill_value,
        config={"write_empty_chunks": True},
    )
    copy[...] = chunk
    return held[copy.metadata.encode_chunk_key((0,) * copy.ndim)].to_bytes()


def is_raw(array: zarr.Array, chunk_rows: int) -> bool:
    """Whether a chunk file is the values themselves: this machine's bytes, whole rows, in order."""
    codecs: Any = array.metadata.to_dict()["codecs"]
    settings = codecs[0].get("configuration", {})
    return (
        [codec["name"] for codec in codecs] == ["bytes"]
        and settings.get("endian", sys.byteorder) == sys.byteorder
        and array.chunks == (chunk_rows, *array.shape[1:])
        and array.shards is None
    )
