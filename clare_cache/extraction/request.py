"""What one call of `extract` asks for, kept in the store: rows and the paths of their images.

Workers read the rows of their block from here, so that only block numbers go out to them;
`store status` reads how much was asked for. The name is a fingerprint of the content: asking the
same twice writes nothing.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from clare_cache.files import sweep, write_whole
from clare_cache.fingerprint import DIGEST_CHARS

REQUESTS_FOLDER = "requests"
ROW_GROUP = 16_384
"""Rows that are read to find those of one block."""


def write_request(store: Path, paths: Mapping[int, Sequence[str]]) -> Path:
    """The request file for `paths` (row → paths below the root); written if it is new."""
    pairs = [(row, path) for row in sorted(paths) for path in paths[row]]
    digest = hashlib.sha256()
    for row, path in pairs:
        digest.update(f"{row}\t{path}\n".encode())
    sweep(store / REQUESTS_FOLDER)
    file = store / REQUESTS_FOLDER / f"{digest.hexdigest()[:DIGEST_CHARS]}.parquet"
    if not file.is_file():
        table = pa.table(
            {
                "row": pa.array([row for row, _ in pairs], pa.int64()),
                "path": pa.array([path for _, path in pairs], pa.string()),
            }
        )
        write_whole(file, partial(pq.write_table, table, row_group_size=ROW_GROUP))
    return file


def read_request(file: Path, *, first: int, stop: int) -> dict[int, tuple[str, ...]]:
    """Row → paths, for the asked-for rows in first..stop−1."""
    table = pq.read_table(file, filters=[("row", ">=", first), ("row", "<", stop)])
    paths: dict[int, list[str]] = {}
    for row, path in zip(table["row"].to_pylist(), table["path"].to_pylist(), strict=True):
        paths.setdefault(row, []).append(path)
    return {row: tuple(found) for row, found in paths.items()}
