"""Make some images of a store again and compare: do weights, libraries and machine still agree?"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clare_cache.errors import StoreError
from clare_cache.extraction.block import Pictures, extract_block
from clare_cache.manifest import Manifest
from clare_cache.seeds import generator_for
from clare_cache.store import ArrayEntry, ArrayHandle, Store
from clare_cache.types import OnProgress, Progress, ignore_progress
from clare_cache.workflow.again import LoadBackbones, items_of_rows, load_again, paths_of_rows

TOLERANCE = {"float32": 1e-3, "tf32": 5e-3, "float16": 1e-2, "bfloat16": 5e-2}
"""Relative error of a row, by the precision it was made in: other machines and batch sizes round
differently, another image or other weights differ by more than 0.1."""


@dataclass(frozen=True)
class Compared:
    """One array: rows made again, the largest relative error of one, and what is allowed.

    `reasons` name rows that could not be made again.
    """

    key: str
    n_rows: int
    largest_error: float
    tolerance: float
    reasons: tuple[str, ...] = ()

    @property
    def is_within(self) -> bool:
        """Whether every row was made again, to what the store holds."""
        return not self.reasons and self.largest_error <= self.tolerance


def compare_sample(
    store: Store,
    n_sample: int,
    *,
    load_backbones: LoadBackbones,
    root: str | Path = ".",
    manifests: Sequence[Manifest] = (),
    seed: int = 0,
    tolerance: float | None = None,
    batch_size: int = 16,
    workers: int = 2,
    on_progress: OnProgress = ignore_progress,
) -> list[Compared]:
    """Make `n_sample` images again in every array and view that has them; one result per array.

    Raises StoreMismatch where the weights are others, StoreError where no image is named.
    """
    paths = paths_of_rows(store, manifests)
    present = {key: store[key].present for key in store}
    any_array = np.logical_or.reduce(list(present.values())) if present else np.zeros(0, bool)
    rows = [int(row) for row in np.flatnonzero(any_array) if int(row) in paths]
    if not rows:
        raise StoreError(
            f"store {store.place}: to make images again, expected rows whose images a request or "
            "manifest names, found none. Name the manifest with --manifest."
        )
    size = min(n_sample, len(rows))
    chosen = sorted(
        rows[n]
        for n in generator_for(seed, str(len(rows)), "sample").choice(len(rows), size, False)
    )
    missing = {key: frozenset(r for r in chosen if mask[r]) for key, mask in present.items()}
    missing = {key: found for key, found in missing.items() if found}
    done = 0

    def on_images(count: int) -> None:
        nonlocal done
        done += count
        on_progress(Progress(what="compare", done=done, total=len(chosen), unit="image"))

    with ThreadPoolExecutor(max_workers=workers) as pool:
        made = extract_block(
            items_of_rows(store, chosen, paths),
            missing,
            backbones=load_again(store, (store[key].entry for key in missing), load_backbones),
            look=Pictures(Path(root)),
            pool=pool,
            batch_size=batch_size,
            on_images=on_images,
        )
    return [
        _compare(
            store[key],
            made.values[key],
            [f"{f.path}: {f.stage}: {f.reason}" for f in made.failures[key].values()],
            tolerance,
        )
        for key in missing
    ]


def _compare(
    handle: ArrayHandle,
    values: Mapping[int, NDArray[np.generic]],
    reasons: Sequence[str],
    tolerance: float | None,
) -> Compared:
    rows = sorted(values)
    there = handle.read_rows(np.array(rows, np.int64)).astype(np.float64)
    errors = [
        _relative_error(as_stored(handle.entry, values[row]), there[n])
        for n, row in enumerate(rows)
    ]
    dtypes = {handle.entry.spec.dtype, str(handle.declared.get("dtype", "float32"))}
    if tolerance is None:
        tolerance = max(TOLERANCE.get(dtype, 0.0) for dtype in dtypes)
    return Compared(
        key=handle.entry.key,
        n_rows=len(rows),
        largest_error=max(errors, default=0.0),
        tolerance=tolerance,
        reasons=tuple(reasons),
    )


def _relative_error(made: NDArray[np.float64], there: NDArray[np.float64]) -> float:
    length = float(np.linalg.norm(there))
    difference = float(np.linalg.norm(made - there))
    if length:
        return difference / length
    return 0.0 if not difference else float("inf")


def as_stored(entry: ArrayEntry, value: NDArray[np.generic]) -> NDArray[np.float64]:
    """A row made now, with what the array's codec loses lost."""
    return entry.unpack(entry.pack(value[None]))[0].astype(np.float64)
