"""The files of a store that describe its arrays and images, as bytes, and read back from them.

What `store.json` says of an array, the array's own `zarr.json` says too: each is mended from the
other, and whoever opens `features.zarr` alone sees what the features were made from.
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from numpy.typing import NDArray
from zarr.abc.buffer import Buffer
from zarr.storage import MemoryStore

from clare_cache.store.codecs import NONE, codec_of
from clare_cache.store.schema import ArrayEntry
from clare_cache.types import ArraySpec, ImageId

INDEX_ROW_GROUP = 16_384
"""Rows that are read to find those of one block."""


def group_metadata(attributes: Mapping[str, Any]) -> bytes:
    """The `zarr.json` of a group."""
    held: dict[str, Buffer] = {}
    zarr.create_group(MemoryStore(held), attributes=dict(attributes), zarr_format=3)
    return held["zarr.json"].to_bytes()


def array_metadata(entry: ArrayEntry, n_rows: int) -> bytes:
    """The `zarr.json` of an array of so many rows."""
    held: dict[str, Buffer] = {}
    stored, codec = entry.stored, codec_of(entry.codec)
    attributes: dict[str, Any] = {
        "meaning": entry.spec.meaning,
        "fingerprint": entry.fingerprint,
        "declared": dict(entry.declared),
        "source": entry.source,
    }
    if entry.codec != NONE:
        attributes["codec"] = entry.codec
    if codec.is_packed:
        row = {"shape": list(entry.spec.shape), "axes": list(entry.spec.axes)}
        attributes["row"] = {**row, "dtype": entry.spec.dtype}
    zarr.create_array(
        MemoryStore(held),
        shape=(n_rows, *stored.shape),
        dtype=stored.dtype,
        chunks=(entry.chunk_rows, *stored.shape),
        compressors=codec.compressors,
        filters=None,
        fill_value=0 if codec.is_packed else float("nan"),
        dimension_names=("image", *stored.axes),
        attributes=attributes,
    )
    return held["zarr.json"].to_bytes()


def entry_of(metadata: bytes, *, view: str, name: str) -> ArrayEntry:
    """What `store.json` says of an array, out of its `zarr.json`.

    Raises ValueError, KeyError or TypeError where that is not whole.
    """
    value = json.loads(metadata)
    said = value["attributes"]
    shape, axes = value["shape"][1:], value["dimension_names"][1:]
    row = said.get("row", {"shape": shape, "axes": axes, "dtype": value["data_type"]})
    entry = ArrayEntry(
        view=view,
        spec=ArraySpec(
            name=name,
            shape=tuple(row["shape"]),
            axes=tuple(row["axes"]),
            dtype=row["dtype"],
            meaning=said["meaning"],
        ),
        chunk_rows=value["chunk_grid"]["configuration"]["chunk_shape"][0],
        declared=said["declared"],
        source=said["source"],
        codec=said.get("codec", NONE),
    )
    if entry.fingerprint != said["fingerprint"]:
        raise ValueError(f"its declared inputs hash to {entry.fingerprint}")
    return entry


def index_file(image_ids: Sequence[ImageId], rows: NDArray[np.int64]) -> bytes:
    """The content of `index.parquet`."""
    table = pa.table({"image_id": pa.array(image_ids, pa.string()), "row": pa.array(rows)})
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=INDEX_ROW_GROUP)
    return file.getvalue()
