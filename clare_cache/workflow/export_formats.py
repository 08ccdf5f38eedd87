"""Rows of a store in the files of other tools. Knows neither the store nor the manifest.

A format divides the rows over files; each file is written from pieces that fit in memory.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clare_cache.types import ArraySpec

Values = Mapping[str, NDArray[Any]]
Piece = tuple[pd.DataFrame, Values]
"""Neighbouring rows of the table, and of each array."""
ReadPieces = Callable[[slice], Iterator[Piece]]
"""Rows first..stop of the table → pieces in their order."""


@dataclass(frozen=True)
class OutFile:
    """One file of an export: its name below the folder, its images, and what writes it."""

    name: str
    n_images: int
    write: Callable[[Path], None]


@dataclass(frozen=True)
class Rows:
    """What is exported: `table` has a line per image, `pieces` reads its arrays as stored."""

    table: pd.DataFrame
    arrays: Sequence[ArraySpec]
    pieces: ReadPieces


def as_npy(rows: Rows, *, rows_per_file: int) -> Iterator[OutFile]:
    """The layout of clip-retrieval, which embedding-reader and autofaiss read.

    Vectors of length 1 in float16, `img_emb/img_emb_0000.npy`, and line for line what they are of,
    `metadata/metadata_0000.parquet`.
    """
    (spec,) = rows.arrays
    for number, part in enumerate(_parts(0, len(rows.table), rows_per_file)):
        lines = rows.table.iloc[part].rename(columns={"path": "image_path"})

        def write_lines(path: Path, lines: pd.DataFrame = lines) -> None:
            lines.to_parquet(path, index=False)

        def write_vectors(path: Path, part: slice = part) -> None:
            shape = (part.stop - part.start, *spec.shape)
            with path.open("wb") as file:
                header = {"descr": "<f2", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for _, values in rows.pieces(part):
                    file.write(_of_length_1(values[spec.name]).astype("<f2").tobytes())

        yield OutFile(f"metadata/metadata_{number:04d}.parquet", 0, write_lines)
        yield OutFile(f"img_emb/img_emb_{number:04d}.npy", len(lines), write_vectors)


def as_webdataset(rows: Rows, *, rows_per_file: int) -> Iterator[OutFile]:
    """Tar files `<split>-000000.tar`: an image's arrays as .npy, its label as .cls, and a .json."""
    for split, start, stop in _splits(rows.table):
        for number, part in enumerate(_parts(start, stop, rows_per_file)):

            def write(path: Path, part: slice = part) -> None:
                position = part.start
                with tarfile.open(path, "w") as tar:
                    for lines, values in rows.pieces(part):
                        for n, line in enumerate(lines.to_dict("records")):
                            key = f"{position:09d}"
                            for spec in rows.arrays:
                                _add(tar, f"{key}.{spec.name}.npy", _npy(values[spec.name][n]))
                            if "label" in line:
                                _add(tar, f"{key}.cls", str(line["label"]).encode())
                            _add(tar, f"{key}.json", json.dumps(_plain(line)).encode())
                            position += 1

            yield OutFile(f"{split}-{number:06d}.tar", part.stop - part.start, write)


def as_parquet(rows: Rows, *, rows_per_file: int) -> Iterator[OutFile]:
    """Parquet by split, which `datasets.load_dataset(FOLDER)` opens; arrays are nested lists."""
    schema = _hugging_face_schema(rows)
    for split, start, stop in _splits(rows.table):
        parts = list(_parts(start, stop, rows_per_file))
        for number, part in enumerate(parts):

            def write(path: Path, part: slice = part) -> None:
                with pq.ParquetWriter(path, schema) as writer:
                    for lines, values in rows.pieces(part):
                        table = pa.Table.from_pandas(lines, preserve_index=False)
                        for spec in rows.arrays:
                            nested = _nested(values[spec.name], schema.field(spec.name).type)
                            table = table.append_column(spec.name, nested)
                        writer.write_table(table.cast(schema))

            name = f"data/{split}-{number:05d}-of-{len(parts):05d}.parquet"
            yield OutFile(name, part.stop - part.start, write)


FORMATS: dict[str, Callable[..., Iterator[OutFile]]] = {
    "npy": as_npy,
    "parquet": as_parquet,
    "webdataset": as_webdataset,
}


def _parts(start: int, stop: int, size: int) -> Iterator[slice]:
    for first in range(start, stop, size):
        yield slice(first, min(first + size, stop))


def _splits(table: pd.DataFrame) -> Iterator[tuple[str, int, int]]:
    """Name, first line and one more than the last of each split; the table is sorted by it."""
    if "split" not in table:
        yield "train", 0, len(table)  # what loaders call a data set that is not divided
        return
    start = 0
    for split, lines in table.groupby("split", sort=False):
        yield str(split) or "unsplit", start, start + len(lines)
        start += len(lines)


def _of_length_1(values: NDArray[Any]) -> NDArray[Any]:
    """(n, d) scaled to Euclidean length 1; a row of zeros stays one."""
    exact = values.astype(np.float32)
    length = np.linalg.norm(exact, axis=1, keepdims=True)
    return exact / np.where(length > 0, length, np.float32(1))


def _npy(value: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, value, allow_pickle=False)
    return file.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # its time is 0: equal exports are equal files
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _plain(line: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(name): None if pd.isna(value) else value.item() if hasattr(value, "item") else value
        for name, value in line.items()
    }


def _hugging_face_schema(rows: Rows) -> pa.Schema:
    """Arrow's types, and for the `datasets` library the names of the labels."""
    schema = pa.Schema.from_pandas(rows.table, preserve_index=False).remove_metadata()
    for number, field in enumerate(schema):
        if pa.types.is_large_string(field.type):
            schema = schema.set(number, pa.field(field.name, pa.string()))
    for spec in rows.arrays:
        kind: pa.DataType = pa.from_numpy_dtype(np.dtype(spec.dtype))
        for _ in spec.shape:
            kind = pa.list_(kind)
        schema = schema.append(pa.field(spec.name, kind))
    if "label" not in schema.names:
        return schema
    schema = schema.set(schema.get_field_index("label"), pa.field("label", pa.int64()))
    labels = {"names": ["real", "fake"], "_type": "ClassLabel"}
    return schema.with_metadata(
        {"huggingface": json.dumps({"info": {"features": {"label": labels}}})}
    )


def _nested(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """(n, *shape) as lists of lists, without a Python object per number."""
    nested = pa.array(np.ascontiguousarray(values).reshape(-1))
    for size in reversed(values.shape[1:]):
        offsets = pa.array(np.arange(0, len(nested) + 1, size, dtype=np.int32))
        nested = pa.ListArray.from_arrays(offsets, nested)
    return nested.cast(kind)
