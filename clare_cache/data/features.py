"""Manifest ⋈ store → tensors, labels and groups of the images that have rows.

Knows no image file and no backbone. Images in the ledger are kept apart with their reason, so
that every number made from the rest can state its coverage; images that were never extracted
are an error, not a smaller data set.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from clare_cache.data.orders import Positions
from clare_cache.data.regions import PATCHES, REGIONS, SHAPE, describe_regions, region_boxes, stored
from clare_cache.data.residence import Residence, choose_residence
from clare_cache.data.rows import Features, ResidentRows, RowSource, StreamedRows
from clare_cache.errors import StoreError, TrainError
from clare_cache.manifest import Manifest
from clare_cache.store import Store
from clare_cache.store.codecs import codec_of
from clare_cache.store.finite import are_finite
from clare_cache.types import CLEAN, ImageId, OnProgress, Progress, ignore_progress

READ_NBYTES = 64 * 2**20
"""Resident arrays are read in pieces of this size."""


@dataclass(frozen=True)
class MissingImage:
    """A manifest row without features: its position in the manifest, and the ledger's reason."""

    position: int
    image_id: ImageId
    reason: str


class FeatureData(Dataset):
    """The images of a manifest that have every needed array, in manifest order.

    `rows` are their manifest rows, `labels` (n,) int64. `batch(indices)` gives tensors; indexing
    by position or by image id gives one image; `epoch` and `once` go through all of them.
    `missing` are the manifest rows left out. `residence` says where the arrays are, and why.
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
        residence: Residence,
        boxes: Tensor | None = None,
        on_progress: OnProgress = ignore_progress,
    ) -> None:
        self.view = view
        self.needs = tuple(needs)
        self.rows = rows
        self.missing = tuple(missing)
        self.residence = residence
        self.labels = torch.from_numpy(rows["label"].to_numpy(np.int64, copy=True))
        self._store = store
        self._store_rows = store_rows
        self._handles = {name: store[f"{view}/{name}"] for name in stored(needs)}
        self._boxes = boxes
        self._position = {i: n for n, i in enumerate(rows["image_id"])}
        self._source = self._open(on_progress)

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
        found = {name: handle.entry.spec.shape for name, handle in self._handles.items()}
        return found if self._boxes is None else {**found, REGIONS: SHAPE}

    @property
    def fingerprints(self) -> dict[str, dict[str, object]]:
        """What every needed array was made from: {"fingerprint": …, "declared": …}."""
        found: dict[str, dict[str, object]] = {
            name: {"fingerprint": handle.fingerprint, "declared": dict(handle.declared)}
            for name, handle in self._handles.items()
        }
        if self._boxes is not None:
            found[REGIONS] = describe_regions(self._handles[PATCHES].declared)
        return found

    @property
    def resident(self) -> bool:
        """Whether the arrays are in memory, on a GPU or in RAM, rather than streamed."""
        return self.residence.kind != "streamed"

    def batch(self, indices: Positions) -> tuple[Features, Tensor]:
        """Features {array: (B, *row shape), as stored} and labels (B,) at positions `indices`."""
        indices = np.asarray(indices)
        if len(wrong := indices[(indices < 0) | (indices >= len(self))]):
            raise IndexError(f"image {wrong[0]} of {len(self)}")
        return self._with_boxes(indices, self._source.batch(indices)), self._labels_at(indices)

    def epoch(
        self, generator: np.random.Generator, batch_size: int
    ) -> Iterator[tuple[Features, Tensor]]:
        """Every image once in batches, the last one the rest: shuffled, as `generator` decides.

        Resident data are in any order with equal chance; streamed ones go through a pool.
        """
        for positions, features in self._source.epoch(generator, batch_size):
            yield self._with_boxes(positions, features), self._labels_at(positions)

    def once(self, batch_size: int) -> Iterator[tuple[Positions, Features]]:
        """Every image once in batches, with their positions, in the order that is read fastest."""
        for positions, features in self._source.once(batch_size):
            yield positions, self._with_boxes(positions, features)

    def _with_boxes(self, positions: Positions, features: Features) -> Features:
        if self._boxes is None:
            return features
        return {**features, REGIONS: self._boxes[torch.from_numpy(np.asarray(positions))]}

    def _labels_at(self, positions: Positions) -> Tensor:
        return self.labels[torch.from_numpy(np.ascontiguousarray(positions, dtype=np.int64))]

    def _open(self, on_progress: OnProgress) -> RowSource:
        place = self.residence
        if place.kind == "streamed":
            on_progress(Progress("read", 0, len(self), "image", str(place)))
            return StreamedRows(
                self._handles,
                self._store_rows,
                pool_rows=place.pool_rows,
                pinned=place.pinned,
                check=partial(self._check, whole=False),
            )
        tensors = self._read_all(on_progress)
        entries = {name: handle.entry for name, handle in self._handles.items()}
        return ResidentRows(tensors, entries, n=len(self), pinned=place.pinned)

    def _read_all(self, on_progress: OnProgress) -> Mapping[str, Tensor]:
        """Every array in manifest order, read in the order of the store, a piece at a time."""
        n = len(self)
        # Straight to a GPU: what fits there need not fit into RAM.
        device = self.residence.device if self.residence.kind == "gpu" else torch.device("cpu")
        tensors = {
            name: torch.empty(
                (n, *handle.entry.stored.shape),
                dtype=getattr(torch, handle.entry.stored.dtype),
                device=device,
            )
            for name, handle in self._handles.items()
        }
        order = np.argsort(self._store_rows, kind="stable")
        largest = max((h.entry.stored.row_nbytes for h in self._handles.values()), default=1)
        step = max(1, READ_NBYTES // largest)
        for start in range(0, n, step):
            positions = order[start : start + step]
            for name, handle in self._handles.items():
                values = handle.read_stored(self._store_rows[positions])
                self._check(name, positions, values, whole=True)
                if device.type == "cpu":
                    tensors[name].numpy()[positions] = values
                else:
                    there = torch.from_numpy(positions).to(device)
                    tensors[name][there] = torch.from_numpy(values).to(device)
            on_progress(Progress("read", min(start + step, n), n, "image", str(self.residence)))
        return tensors

    def _check(self, name: str, positions: Positions, stored: NDArray[Any], *, whole: bool) -> None:
        """Raises StoreError for committed rows that are not finite: a chunk file was lost.

        The first value tells, as a lost file makes all of a row NaN; `whole` looks at all.
        """
        entry = self._handles[name].entry
        if (codec := codec_of(entry.codec)).is_packed:
            lost = np.flatnonzero(~codec.are_there(entry.spec, stored))
        else:
            first = (slice(None), *[slice(1)] * (stored.ndim - 1))
            lost = np.flatnonzero(~are_finite(stored if whole else stored[first]))
        if len(lost):
            raise StoreError(
                f"store {self._store.place}: {len(lost)} of {len(stored)} rows of "
                f"{self.view}/{name} that were committed read as NaN or infinity, the first is of "
                f"image {self.rows['image_id'].iloc[positions[lost].min()]}. "
                "Run `clare-cache store verify`."
            )


def load(
    store: Store,
    manifest: Manifest,
    *,
    needs: Sequence[str],
    view: str = CLEAN,
    resident: bool | None = None,
    device: torch.device | str = "cpu",
    on_progress: OnProgress = ignore_progress,
) -> FeatureData:
    """The manifest's images with their cached arrays, for heads on `device`.

    The arrays stay on that GPU if they fit, else in RAM, else they are streamed; `resident` True
    or False decides between RAM and streaming. Raises StoreError for arrays the store lacks and
    for committed rows that are not finite (a chunk file was lost; streamed data notices when it
    reads them), TrainError for images that were never extracted.
    """
    rows = manifest.rows
    image_ids = rows["image_id"].tolist()
    store_rows = store.rows_of(image_ids)
    present = store_rows >= 0
    in_store = stored(needs)
    for name in in_store:
        mask = store[f"{view}/{name}"].present
        present &= (
            np.where(store_rows >= 0, mask[store_rows.clip(0)], False) if len(mask) else False
        )
    lines = store.ledger(view, in_store)
    reasons = {line.image_id: f"{line.stage}: {line.reason}" for line in lines}
    missing, unknown = [], []
    for position in np.flatnonzero(~present):
        image_id = image_ids[position]
        if image_id in reasons:
            missing.append(MissingImage(int(position), image_id, reasons[image_id]))
        else:
            unknown.append(image_id)
    if unknown:
        raise TrainError(
            f"store {store.place}: {', '.join(in_store)} of view {view} were asked for "
            f"{len(image_ids)} images, {len(unknown)} were never extracted, the first is "
            f"{unknown[0]}. Run `clare-cache extract` with this manifest."
        )
    kept = np.flatnonzero(present)
    entries = [store[f"{view}/{name}"].entry for name in in_store]
    boxes = None
    if REGIONS in needs:
        patches = store[f"{view}/{PATCHES}"].declared
        boxes = region_boxes(rows.iloc[kept], view=view, patches=patches)
    return FeatureData(
        store=store,
        view=view,
        needs=needs,
        rows=rows.iloc[kept].reset_index(drop=True),
        store_rows=store_rows[kept],
        missing=missing,
        residence=choose_residence(
            row_nbytes=sum(entry.stored.row_nbytes for entry in entries),
            n_rows=len(kept),
            device=torch.device(device),
            resident=resident,
        ),
        boxes=boxes,
        on_progress=on_progress,
    )
