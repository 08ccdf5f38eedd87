"""What one call of `extract` asks for, kept in the store: rows and the paths of their images.

Workers read the rows of their block from here, so that only block numbers go out to them;
`store status` reads how much was asked for. The name is a fingerprint of the content: asking the
same twice writes nothing.
"""

import hashlib
import io
import re
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from clare_cache.fingerprint import DIGEST_CHARS
from clare_cache.store import Place, sweep

REQUESTS_FOLDER = "requests"
REQUEST_FILE = re.compile(r"[0-9a-f]+\.parquet")
ROW_GROUP = 16_384
"""Rows that are read to find those of one block."""


def write_request(place: Place, paths: Mapping[int, Sequence[str]]) -> str:
    """Name of the request file of `paths` (row → paths below the root); written if it is new."""
    pairs = [(row, path) for row in sorted(paths) for path in paths[row]]
    digest = hashlib.sha256()
    for row, path in pairs:
        digest.update(f"{row}\t{path}\n".encode())
    sweep(place, REQUESTS_FOLDER)
    name = f"{REQUESTS_FOLDER}/{digest.hexdigest()[:DIGEST_CHARS]}.parquet"
    if not place.exists(name):
        table = pa.table(
            {
                "row": pa.array([row for row, _ in pairs], pa.int64()),
                "path": pa.array([path for _, path in pairs], pa.string()),
            }
        )
        file = io.BytesIO()
        pq.write_table(table, file, row_group_size=ROW_GROUP)
        place.write(name, file.getvalue())
    return name


def read_request(place: Place, name: str, *, first: int, stop: int) -> dict[int, tuple[str, ...]]:
    """Row → paths, for the asked-for rows in first..stop−1."""
    with place.open(name) as file:
        table = pq.read_table(file, filters=[("row", ">=", first), ("row", "<", stop)])
    paths: dict[int, list[str]] = {}
    for row, path in zip(table["row"].to_pylist(), table["path"].to_pylist(), strict=True):
        paths.setdefault(row, []).append(path)
    return {row: tuple(found) for row, found in paths.items()}
