"""A store's arrays in the files of other tools, with labels and splits from a manifest."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clare_cache.errors import StoreError, raise_faults
from clare_cache.extraction.request import read_all_requests
from clare_cache.files import read_json, write_json, write_whole
from clare_cache.manifest import Manifest
from clare_cache.store import Store
from clare_cache.types import CLEAN, OnProgress, Progress, ignore_progress
from clare_cache.workflow.export_formats import FORMATS, Piece, Rows

EXPORT_FILE = "export.json"
DEFAULT_ARRAY = "clip_embedding"
ROWS_PER_FILE = {"npy": 100_000, "parquet": 2_000, "webdataset": 2_000}
PIECE_NBYTES = 64 * 2**20
"""So much of the arrays is in memory at once, whatever the size of a file."""


@dataclass(frozen=True)
class ExportReport:
    """What is in an export: its images and files, those written by this call, images left out.

    An image is left out when one of the arrays has no row for it. `notes` tells of altered
    requests, whose paths are not known.
    """

    out: Path
    n_images: int
    n_files: int
    n_written: int
    n_left_out: int
    notes: tuple[str, ...] = ()


def export_store(
    store: Store,
    out: str | Path,
    *,
    form: str = "npy",
    arrays: Sequence[str] = (DEFAULT_ARRAY,),
    view: str = CLEAN,
    manifest: Manifest | None = None,
    rows_per_file: int | None = None,
    on_progress: OnProgress = ignore_progress,
) -> ExportReport:
    """Write `arrays` of one view as "npy", "parquet" or "webdataset" into the folder `out`.

    With a manifest, its rows are exported with their labels and splits; without one, every image
    of the store. Every file appears whole or not at all: calling again after an interruption
    writes those that are missing. Raises StoreError for what cannot be exported, and when `out`
    holds anything else.
    """
    out = Path(out)
    _refuse(store, form=form, arrays=arrays, view=view)
    notes: list[str] = []
    table, n_left_out = _table(store, [f"{view}/{name}" for name in arrays], manifest, notes)
    rows_per_file = rows_per_file or ROWS_PER_FILE[form]
    _begin(
        out,
        {
            "format": form,
            "view": view,
            "arrays": {name: store[f"{view}/{name}"].fingerprint for name in arrays},
            "rows_per_file": rows_per_file,
            "rows": _digest(table),
        },
    )
    handles = {name: store[f"{view}/{name}"] for name in arrays}
    row_nbytes = sum(handle.entry.spec.row_nbytes for handle in handles.values())
    size = max(1, PIECE_NBYTES // row_nbytes)
    lines = table.drop(columns="row")

    def pieces(part: slice) -> Iterator[Piece]:
        for first in range(part.start, part.stop, size):
            chosen = slice(first, min(first + size, part.stop))
            rows = table["row"].to_numpy()[chosen]
            yield (
                lines.iloc[chosen],
                {name: handle.read_rows(rows) for name, handle in handles.items()},
            )

    specs = [handle.entry.spec for handle in handles.values()]
    files = list(FORMATS[form](Rows(lines, specs, pieces), rows_per_file=rows_per_file))
    n_written = done = 0
    for file in files:
        if not (out / file.name).is_file():
            write_whole(out / file.name, file.write)
            n_written += 1
        done += file.n_images
        on_progress(Progress(what="export", done=done, total=len(table), unit="image"))
    return ExportReport(out, len(table), len(files), n_written, n_left_out, tuple(notes))


def _refuse(store: Store, *, form: str, arrays: Sequence[str], view: str) -> None:
    faults = []
    if form not in FORMATS:
        faults.append(f"format: expected one of {', '.join(FORMATS)}, found {form}")
    there = sorted(key.partition("/")[2] for key in store if key.startswith(f"{view}/"))
    faults += [
        f"array {name}: expected one of view {view}'s, {', '.join(there) or 'which has none'}"
        for name in arrays
        if name not in there
    ]
    if form == "npy":
        axes = {name: store[f"{view}/{name}"].entry.spec.axes for name in arrays if name in there}
        if len(arrays) != 1:
            faults.append(f"npy holds one array, found {', '.join(arrays) or 'none'}")
        faults += [
            f"array {name}: npy holds vectors, found axes {', '.join(found)}; use --format "
            "parquet or webdataset"
            for name, found in axes.items()
            if len(found) != 1
        ]
    raise_faults(StoreError, f"export of store {store.place}", faults)


def _table(
    store: Store, keys: Sequence[str], manifest: Manifest | None, notes: list[str]
) -> tuple[pd.DataFrame, int]:
    """A line per exported image, by split and then by row (so that chunks are read in order)."""
    present = np.logical_and.reduce([store[key].present for key in keys])
    if manifest is None:
        image_ids = store.image_ids
        rows = store.rows_of(image_ids).tolist()
        asked = read_all_requests(store.place, notes)
        paths = [asked.get(row, (image,))[0] for row, image in zip(rows, image_ids, strict=True)]
        table = pd.DataFrame({"image_id": image_ids, "path": paths}, dtype="string")
    else:
        table = manifest.rows.copy()
    row = store.rows_of(table["image_id"].tolist())
    table["row"] = row
    has_row = row >= 0
    has_row[has_row] = present[row[has_row]]
    order = ["split", "row", "path"] if manifest is not None else ["row"]
    kept = table[has_row].sort_values(order, kind="stable").reset_index(drop=True)
    return kept, int((~has_row).sum())


def _begin(out: Path, description: dict[str, Any]) -> None:
    """Say in `out` what it is going to hold; refuse it when it holds anything else."""
    file = out / EXPORT_FILE
    if file.is_file():
        if read_json(file) != description:
            raise StoreError(
                f"export into {out}: expected the export that was begun there, found one of other "
                f"rows, arrays or options in {EXPORT_FILE}. Name another folder, or remove it."
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(
            f"export into {out}: expected an empty folder or an export to go on with, found other "
            "files. Name another folder."
        )
    else:
        write_json(file, description)


def _digest(table: pd.DataFrame) -> str:
    digest = hashlib.sha256()
    for first in range(0, len(table), 16_384):
        digest.update(table.iloc[first : first + 16_384].to_csv(index=False).encode())
    return digest.hexdigest()
