"""`manifest check` as the user calls it: the disk, the splits, and near-duplicates from a store."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clare_cache.errors import ManifestError, raise_faults
from clare_cache.images import ImageInfo, decode, probe
from clare_cache.manifest import Manifest, check
from clare_cache.manifest.check import KINDS, LEAKS, REMARKS, Fault
from clare_cache.manifest.near import NEAR, near_duplicates
from clare_cache.manifest.reconcile import Move, apply_moves, reconcile
from clare_cache.store import open_store
from clare_cache.types import CLEAN, OnProgress, ignore_progress

EMBEDDING = f"{CLEAN}/clip_embedding"


@dataclass(frozen=True)
class CheckReport:
    """All faults, the moves that explain absent files, sentences, and what it comes to.

    `remapped` is the manifest with the paths that the disk has, when any moved. `failing` are the
    faults that were not accepted and are no mere remarks.
    """

    faults: tuple[Fault, ...]
    moves: tuple[Move, ...]
    remarks: tuple[str, ...]
    remapped: Manifest | None
    failing: tuple[Fault, ...]

    def verdict(self) -> str:
        """A sentence about leaks between splits, or nothing when there are none."""
        found = Counter(fault.kind for fault in self.failing if fault.kind in LEAKS)
        if not found:
            return ""
        counted = ", ".join(f"{kind} {n}" for kind, n in found.items())
        switches = " ".join(f"--accept {kind}" for kind in found)
        return (
            f"splits overlap ({counted}): what is tested was trained on. Divide anew with "
            f"`clare-cache manifest split --replace`, or accept it knowingly with {switches}"
        )


def check_manifest(
    manifest: Manifest,
    root: str | Path,
    *,
    store: str | Path | None = None,
    near: float = NEAR,
    accept: Sequence[str] = (),
    decoding: bool = False,
    workers: int = 4,
    on_progress: OnProgress = ignore_progress,
) -> CheckReport:
    """Every fault of a manifest beside the disk and beside itself, each file read once.

    With `decoding` every picture is unpacked whole, as `extract` does, so that one whose pixels are
    cut short is refused; else headers alone are looked at. `store` adds near-duplicates across
    splits by its CLIP embeddings; `accept` names kinds of faults (see `KINDS`) that are known and
    shall not fail the check. Raises ManifestError for unknown kinds, StoreError for a store
    without embeddings.
    """
    unknown = [f"--accept {kind}: there is no such kind" for kind in accept if kind not in KINDS]
    raise_faults(ManifestError, "manifest check", unknown, advice=f"Kinds: {', '.join(KINDS)}.")
    if not Path(root).is_dir():
        raise ManifestError(f"manifest check: there is no folder {root}. Correct --root.")
    faults = check(
        manifest,
        root,
        probe=_decoded if decoding else probe,
        workers=workers,
        on_progress=on_progress,
    )
    absent = [fault.where for fault in faults if fault.kind == "absent"]
    found = reconcile(manifest, root, absent)
    faults = [
        Fault(f.kind, f.where, f"{f.detail}; its content is at {found.moved[f.where]}")
        if f.kind == "absent" and f.where in found.moved
        else f
        for f in faults
    ]
    for folder, names in found.unnamed.items():
        images = "1 image" if len(names) == 1 else f"{len(names)} images"
        detail = f"{images} that no row names, for example {names[0]}"
        faults.append(Fault("unnamed", folder or ".", detail))
    remarks = [str(move) for move in found.moves]
    if store is not None:
        close, remark = _near(manifest, store, near=near, on_progress=on_progress)
        faults += close
        remarks += [remark] if remark else []
    ignored = REMARKS | set(accept)
    return CheckReport(
        faults=tuple(faults),
        moves=found.moves,
        remarks=tuple(remarks),
        remapped=apply_moves(manifest, found.moved) if found.moved else None,
        failing=tuple(fault for fault in faults if fault.kind not in ignored),
    )


def _decoded(data: bytes) -> ImageInfo:
    """The header of a picture whose pixels are all there; raises ImageError for any other."""
    decode(data)
    return probe(data)


def _near(
    manifest: Manifest, store: str | Path, *, near: float, on_progress: OnProgress
) -> tuple[list[Fault], str]:
    opened = open_store(store)
    handle = opened[EMBEDDING]
    rows = manifest.rows.drop_duplicates(["image_id", "split"]).reset_index(drop=True)
    store_rows = opened.rows_of(rows["image_id"].tolist())
    known = store_rows >= 0
    known[known] = handle.present[store_rows[known]]
    vectors = handle.read_rows(store_rows[known])
    rows = rows[known].reset_index(drop=True)
    result = near_duplicates(rows, np.asarray(vectors), near=near, on_progress=on_progress)
    lacking = int((~known).sum())
    remark = f"{lacking} images have no embedding in {store} and were not compared"
    return result.faults, "; ".join(filter(None, (result.remark, remark if lacking else "")))
