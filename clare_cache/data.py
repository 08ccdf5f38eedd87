"""Stage two's eye: manifest ⋈ store → tensors, labels and groups of the images that have rows.

Knows no image file and no backbone. Images in the ledger are kept apart with their reason, so
that every number made from the rest can state its coverage; images that were never extracted
are an error, not a smaller data set.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from clare_cache.errors import StoreError, TrainError
from clare_cache.manifest import Manifest
from clare_cache.store import ArrayHandle, Store
from clare_cache.types import CLEAN, ImageId

RESIDENT_SHARE = 0.5
"""Arrays are kept in RAM when they take less than this share of what is available."""


@dataclass(frozen=True)
class MissingImage:
    """A manifest row without features: its position in the manifest, and the ledger's reason."""

    position: int
    image_id: ImageId
    reason: str


class FeatureData(Dataset):
    """The images of a manifest that have every needed array, in manifest order.

    `rows` are their manifest rows, `labels` (n,) int64. `batch(indices)` gives tensors; indexing
    by position or by image id gives one image. `missing` are the manifest rows left out.
    """

    def __init__(
        self,
        *,
        store: Store,
        view: str,
        needs: Sequence[str],
        rows: pd.DataFrame,
        store_rows: NDArray[np.int64],
        missing: Sequence[MissingImage],
        resident: bool,
    ) -> None:
        self.view = view
        self.needs = tuple(needs)
        self.rows = rows
        self.missing = tuple(missing)
        self.resident = resident
        self.labels = torch.from_numpy(rows["label"].to_numpy(np.int64, copy=True))
        self._store = store
        self._store_rows = store_rows
        self._handles = {name: store[f"{view}/{name}"] for name in needs}
        self._position = {i: n for n, i in enumerate(rows["image_id"])}
        self._tensors: dict[str, Tensor] = {}
        if resident:
            self._tensors = {
                name: self._read(handle, np.arange(len(store_rows)))
                for name, handle in self._handles.items()
            }

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | ImageId) -> tuple[dict[str, Tensor], Tensor]:
        position = self._position[key] if isinstance(key, str) else int(key)
        if not -len(self) <= position < len(self):
            raise IndexError(f"image {position} of {len(self)}")
        features, labels = self.batch(np.array([position % len(self)]))
        return {name: tensor[0] for name, tensor in features.items()}, labels[0]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Row shape of every needed array."""
        return {name: handle.entry.spec.shape for name, handle in self._handles.items()}

    @property
    def fingerprints(self) -> dict[str, dict[str, object]]:
        """What every needed array was made from: {"fingerprint": …, "declared": …}."""
        return {
            name: {"fingerprint": handle.fingerprint, "declared": dict(handle.declared)}
            for name, handle in self._handles.items()
        }

    def batch(self, indices: NDArray[np.int64]) -> tuple[dict[str, Tensor], Tensor]:
        """Features {array: (B, *row shape), as stored} and labels (B,) at positions `indices`."""
        chosen = torch.from_numpy(np.ascontiguousarray(indices, dtype=np.int64))
        if self.resident:
            features = {name: tensor[chosen] for name, tensor in self._tensors.items()}
        else:
            positions = chosen.numpy()
            features = {
                name: self._read(handle, positions) for name, handle in self._handles.items()
            }
        return features, self.labels[chosen]

    def _read(self, handle: ArrayHandle, positions: NDArray[np.int64]) -> Tensor:
        values = handle.read_rows(self._store_rows[positions])
        # Row by row: a mask of all values would take half as much memory again.
        lost = [n for n, row in enumerate(values) if not np.isfinite(row).all()]
        if lost:
            raise StoreError(
                f"store {self._store.place}: {len(lost)} of {len(values)} rows of "
                f"{handle.entry.key} that were committed read as NaN or infinity, the first is of "
                f"image {self.rows['image_id'].iloc[positions[lost[0]]]}. "
                "Run `clare-cache store verify`."
            )
        return torch.from_numpy(values)


def load(
    store: Store,
    manifest: Manifest,
    *,
    needs: Sequence[str],
    view: str = CLEAN,
    resident: bool | None = None,
) -> FeatureData:
    """The manifest's images with their cached arrays.

    `resident` keeps the arrays in RAM; by default it does so when they fit in half of what is
    available. Raises StoreError for arrays the store lacks and for committed rows that are not
    finite (a chunk file was lost; streamed data notices in `batch`), TrainError for images that
    were never extracted.
    """
    rows = manifest.rows
    image_ids = rows["image_id"].tolist()
    store_rows = store.rows_of(image_ids)
    present = store_rows >= 0
    for name in needs:
        mask = store[f"{view}/{name}"].present
        present &= (
            np.where(store_rows >= 0, mask[store_rows.clip(0)], False) if len(mask) else False
        )
    reasons = {line.image_id: f"{line.stage}: {line.reason}" for line in store.ledger(view, needs)}
    missing, unknown = [], []
    for position in np.flatnonzero(~present):
        image_id = image_ids[position]
        if image_id in reasons:
            missing.append(MissingImage(int(position), image_id, reasons[image_id]))
        else:
            unknown.append(image_id)
    if unknown:
        raise TrainError(
            f"store {store.place}: {', '.join(needs)} of view {view} were asked for "
            f"{len(image_ids)} images, {len(unknown)} were never extracted, the first is "
            f"{unknown[0]}. Run `clare-cache extract` with this manifest."
        )
    kept = np.flatnonzero(present)
    if resident is None:
        nbytes = len(kept) * sum(store[f"{view}/{n}"].entry.spec.row_nbytes for n in needs)
        resident = nbytes < RESIDENT_SHARE * psutil.virtual_memory().available
    return FeatureData(
        store=store,
        view=view,
        needs=needs,
        rows=rows.iloc[kept].reset_index(drop=True),
        store_rows=store_rows[kept],
        missing=missing,
        resident=resident,
    )
