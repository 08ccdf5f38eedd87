"""What one call of `extract` asks for, kept in the store: rows and the paths of their images.

Workers read the rows of their block from here, so that only block numbers go out to them;
`store status` reads how much was asked for. The name is a digest of the bytes: asking the same
twice writes nothing, and whoever reads an altered file notices.
"""

import io
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from clare_cache.files import read_parquet
from clare_cache.store import Place, sweep
from clare_cache.store.records import check_request, name_of_content, request_names
from clare_cache.store.schema import REQUESTS_FOLDER, request_name

ROW_GROUP = 16_384
"""Rows that are read to find those of one block."""


def write_request(
    place: Place,
    rows: NDArray[np.int64],
    paths: Sequence[Sequence[str]],
    *,
    clear: bool = True,
    notes: list[str] | None = None,
) -> str:
    """Name of the request file of `rows`, ascending, and the paths of each below the root.

    It is written if it is new or was altered, which `notes` then tells; `clear` sweeps away what
    killed processes left of others.
    """
    name, data = request_file(rows, paths)
    if clear:
        sweep(place, REQUESTS_FOLDER)
    is_there = place.exists(name)
    if is_there and name_of_content(place, name) == name:
        return name
    place.write(name, data)
    if is_there and notes is not None:
        notes.append(f"{name} was altered, and is written anew")
    return name


def request_file(rows: NDArray[np.int64], paths: Sequence[Sequence[str]]) -> tuple[str, bytes]:
    """The name and the content of a request file; `rows` are ascending."""
    column = np.repeat(rows, np.fromiter(map(len, paths), np.int64, len(paths)))
    names = pa.array(chain.from_iterable(paths), pa.string())
    file = io.BytesIO()
    pq.write_table(pa.table({"row": column, "path": names}), file, row_group_size=ROW_GROUP)
    data = file.getvalue()
    return request_name([data]), data


def read_request(place: Place, name: str, *, first: int, stop: int) -> dict[int, tuple[str, ...]]:
    """Row → paths, for the asked-for rows in first..stop−1. Raises StoreError when altered."""
    _check_once(place, name)
    with place.open(name) as file:
        table = read_parquet(file, rows=(first, stop))
    paths: dict[int, list[str]] = {}
    for row, path in zip(table["row"].to_pylist(), table["path"].to_pylist(), strict=True):
        paths.setdefault(row, []).append(path)
    return {row: tuple(found) for row, found in paths.items()}


@lru_cache(maxsize=64)
def _check_once(place: Place, name: str) -> None:
    """A worker reads the whole file for its first block, and not again for each."""
    check_request(place, name)


def read_all_requests(place: Place, notes: list[str] | None = None) -> dict[int, tuple[str, ...]]:
    """Row → paths, of every request together; altered ones are left out, which `notes` tells."""
    paths: dict[int, dict[str, None]] = {}
    for name in request_names(place):
        data = place.read(name)
        if request_name([data]) != name:
            if notes is not None:
                notes.append(
                    f"store {place}: {name} was altered since it was written and is left out, so "
                    "paths of images may be lacking. `clare-cache store repair` with the "
                    "--manifest that was extracted writes it anew."
                )
            continue
        table = read_parquet(io.BytesIO(data))
        for row, path in zip(table["row"].to_pylist(), table["path"].to_pylist(), strict=True):
            paths.setdefault(row, {})[path] = None
    return {row: tuple(found) for row, found in paths.items()}
