"""Pictures of two splits that are nearly one picture, by their cached embeddings.

Exact copies have one image id and are not looked for here.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clare_cache.manifest.check import Fault
from clare_cache.types import OnProgress, Progress, ignore_progress

NEAR = 0.98
"""Cosine from which two embeddings, less their mean, are called nearly the same. What all pictures
share points CLIP's embeddings, and the more those of small networks, in one direction; less the
mean, recompressed copies stay above this and other pictures fall far below."""

_BLOCK = 1024
_INDISTINCT = 1e-4
"""Embeddings that differ from their mean by less than this share of it are all one."""


@dataclass(frozen=True)
class NearResult:
    """Faults of kind `near-duplicate`, and why they could not be looked for, if so."""

    faults: list[Fault]
    remark: str = ""


def near_duplicates(
    rows: pd.DataFrame,
    embeddings: NDArray[np.floating],
    *,
    near: float = NEAR,
    on_progress: OnProgress = ignore_progress,
) -> NearResult:
    """The nearest image of another split, where it is that near and another file.

    `rows` are manifest rows, `embeddings` (n, d) theirs. One fault for each image of the split
    that comes later in the order train, val, test, others.
    """
    vectors = np.asarray(embeddings, np.float32)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    vectors = vectors - vectors.mean(axis=0)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if len(vectors) and np.median(lengths) < _INDISTINCT:
        return NearResult(
            [],
            "near-duplicates were not looked for: the embeddings of all images are one, so they "
            "do not tell images apart",
        )
    vectors = vectors / lengths.clip(1e-12)
    splits = sorted((s for s in rows["split"].unique() if s), key=_order)
    faults: list[Fault] = []
    pairs = list(combinations(splits, 2))
    for n_done, (first, later) in enumerate(pairs, start=1):
        mine = np.flatnonzero((rows["split"] == later).to_numpy())
        others = np.flatnonzero((rows["split"] == first).to_numpy())
        best, nearest = _nearest(vectors[mine], vectors[others])
        faults += _faults(rows, mine, others[nearest], best, near=near, split=first)
        on_progress(Progress(what="compare splits", done=n_done, total=len(pairs), unit="pair"))
    return NearResult(faults)


def _faults(
    rows: pd.DataFrame,
    mine: NDArray[np.int64],
    theirs: NDArray[np.int64],
    cosines: NDArray[np.float32],
    *,
    near: float,
    split: str,
) -> Iterator[Fault]:
    for position, other, cosine in zip(mine, theirs, cosines, strict=True):
        row, twin = rows.iloc[position], rows.iloc[other]
        if cosine >= near and row["image_id"] != twin["image_id"]:
            detail = f"is nearly {twin['path']} of {split} (cosine {cosine:.3f})"
            yield Fault("near-duplicate", str(row["path"]), detail)


def _nearest(
    mine: NDArray[np.float32], others: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """For each of `mine` the highest cosine, and where."""
    best = np.full(len(mine), -2, np.float32)
    where = np.zeros(len(mine), np.int64)
    for start in range(0, len(mine), _BLOCK):
        block = mine[start : start + _BLOCK]
        for at in range(0, len(others), _BLOCK):
            cosines = block @ others[at : at + _BLOCK].T
            arg = cosines.argmax(axis=1)
            value = cosines[np.arange(len(block)), arg]
            better = value > best[start : start + len(block)]
            best[start : start + len(block)][better] = value[better]
            where[start : start + len(block)][better] = at + arg[better]
    return best, where


def _order(split: str) -> tuple[int, str]:
    known = ("train", "val", "test")
    return (known.index(split) if split in known else len(known)), split
