"""Put back what describes a store, from what else in it says the same. Looks at no image.

`store.json` and the `zarr.json` of the arrays say the same of the arrays; whichever is whole mends
the other. For callers who hold the setup lock.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import replace

import google_crc32c
import numpy as np

from clare_cache.errors import StoreError
from clare_cache.files import read_parquet
from clare_cache.store.metadata import array_metadata, entry_of, group_metadata, index_file
from clare_cache.store.place import Place
from clare_cache.store.records import block_files, read_record_file
from clare_cache.store.schema import (
    COMMITS_FOLDER,
    FEATURES_FOLDER,
    GROUP_FILE,
    INDEX_FILE,
    STORE_FILE,
    StoreDescription,
)
from clare_cache.store.seal import sealed
from clare_cache.types import ImageId

_NOT_WHOLE = (OSError, ValueError, KeyError, TypeError, IndexError)


def mend_description(place: Place) -> StoreDescription:
    """Write `store.json` anew from the arrays' own descriptions.

    Raises StoreError when one of these is damaged too.
    """
    name = GROUP_FILE
    arrays = {}
    try:
        block_rows = int(json.loads(place.read(GROUP_FILE))["attributes"]["block_rows"])
        found = [n for n in place.names(FEATURES_FOLDER) if n.endswith("/zarr.json")]
        for name in found:
            view, _, array = name.split("/", 1)[1].removesuffix("/zarr.json").partition("/")
            if array and array != "zarr.json":
                entry = entry_of(place.read(name), view=view, name=array)
                arrays[entry.key] = entry
    except _NOT_WHOLE as error:
        raise StoreError(
            f"store {place}: expected a whole {name}, to make {STORE_FILE} from, found "
            f"{type(error).__name__}: {error}. Two descriptions are lost; extract into another "
            "store."
        ) from error
    # What was lost as well gets no checksum, so that it still counts as damaged.
    checksums = {n: _checksum_if_whole(place, n) for n in (INDEX_FILE, *found)}
    description = StoreDescription(block_rows=block_rows, arrays=arrays, checksums=checksums)
    place.write(STORE_FILE, sealed(description.to_json()))
    return description


def _checksum_if_whole(place: Place, name: str) -> tuple[int, ...]:
    """The checksum of an index or `zarr.json` that can be read, as far as one can tell."""
    try:
        data = place.read(name)
        if name == INDEX_FILE:
            rows = read_parquet(io.BytesIO(data), columns=["row"])["row"].to_numpy()
            is_whole = bool((np.diff(rows) > 0).all())
        else:
            is_whole = json.loads(data)["zarr_format"] == 3
    except _NOT_WHOLE:
        return ()
    return (google_crc32c.value(data),) if is_whole else ()


def mend_metadata(place: Place, description: StoreDescription, name: str, n_rows: int) -> None:
    """Write one `zarr.json` anew from what `store.json` says; arrays get so many rows."""
    key = name.removeprefix(FEATURES_FOLDER).removesuffix("zarr.json").strip("/")
    if key in description.arrays:
        data = array_metadata(description.arrays[key], n_rows)
    else:
        data = group_metadata({} if key else {"block_rows": description.block_rows})
    put_back(place, description, name, data)


def put_back(place: Place, description: StoreDescription, name: str, data: bytes) -> None:
    """Write a described file; where another release of a library words it anew, say so first."""
    checksum = google_crc32c.value(data)
    if checksum not in description.checksums[name]:
        both = (*description.checksums[name], checksum)
        told = replace(description, checksums={**description.checksums, name: both})
        place.write(STORE_FILE, sealed(told.to_json()))
    place.write(name, data)


def length_of_arrays(place: Place, description: StoreDescription) -> int:
    """The number of rows, from the index or else from an array that says so.

    Raises StoreError when none of them can be read.
    """
    for name in (INDEX_FILE, *(f"{FEATURES_FOLDER}/{key}/zarr.json" for key in description.arrays)):
        data = place.read(name) if place.exists(name) else b""
        if google_crc32c.value(data) not in description.checksums[name]:
            continue
        if name != INDEX_FILE:
            return int(json.loads(data)["shape"][0])
        with place.open(name) as file:
            return 1 + max(read_parquet(file, columns=["row"])["row"].to_pylist(), default=-1)
    raise StoreError(
        f"store {place}: expected a whole index or array description, found none. Extract into "
        "another store."
    )


def mend_index(
    place: Place, description: StoreDescription, image_of: Mapping[int, ImageId]
) -> None:
    """Write the index anew: row → image.

    Raises StoreError when it is not what it was and a row with data or in a ledger has no image.
    """
    rows = sorted(image_of)
    data = index_file([image_of[row] for row in rows], np.array(rows, np.int64))
    if google_crc32c.value(data) not in description.checksums[INDEX_FILE]:
        used = _used_rows(place, description)
        unknown = sorted(used - image_of.keys())
        if unknown or not used:
            raise StoreError(
                f"store {place}: of {len(used)} rows {len(unknown)} have an unknown image, the "
                f"first is row {min(unknown, default=0)}. Name the manifests that were extracted "
                "with --manifest, and the folder of their images with --root."
            )
    put_back(place, description, INDEX_FILE, data)


def _used_rows(place: Place, description: StoreDescription) -> set[int]:
    """Rows that a commit record names; of damaged records none."""
    used: set[int] = set()
    for key, entry in description.arrays.items():
        for name in block_files(place, COMMITS_FOLDER, key):
            try:
                record = read_record_file(place, entry, name)
            except StoreError:
                continue  # its block is made again later
            used.update(record.rows, record.failed)
    return used
