"""Rows of `vae_latent` in a store, shown to the networks in place of pictures.

Knows no network and opens no image. What is asked of later timesteps is asked of these rows alone:
the images need not be there any more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clare_cache.errors import ExtractError, StoreMismatch
from clare_cache.extraction.decoding import Item, Prepare, Prepared
from clare_cache.fingerprint import differences
from clare_cache.store import Store
from clare_cache.store.records import read_ledger, read_record
from clare_cache.store.schema import LEDGER_FOLDER
from clare_cache.types import Failure

LATENT = "vae_latent"


@dataclass(frozen=True, eq=False)
class StoredLatents:
    """`rows[view][row]` is the latent of that row, or why there is none."""

    rows: Mapping[str, Mapping[int, NDArray[np.generic] | Failure]]

    def __call__(self, item: Item, prepare: Mapping[str, Sequence[Prepare]]) -> Prepared:
        """The latent of an image in each view, for each network."""
        found = {view: self.rows[view][item.row] for view in prepare}
        return {
            view: latent if isinstance(latent, Failure) else [latent] * len(prepare[view])
            for view, latent in found.items()
        }


def read_latents(store: Store, views: Sequence[str], items: Sequence[Item]) -> StoredLatents:
    """The latents of these images, all of one block; those in the ledger of `vae_latent` with its
    reason."""
    rows = np.array([item.row for item in items], np.int64)
    block = int(rows[0]) // store.description.block_rows
    by_view: dict[str, dict[int, NDArray[np.generic] | Failure]] = {}
    for view in views:
        handle = store[f"{view}/{LATENT}"]
        # The block's own record and ledger: a store may have a hundred thousand.
        record = read_record(store.place, handle.entry, block)
        there = rows[np.isin(rows, record.rows if record else ())]
        values = handle.read_rows(there)
        found: dict[int, NDArray[np.generic] | Failure] = dict(
            zip(there.tolist(), values, strict=True)
        )
        if len(there) < len(rows):
            name = f"{LEDGER_FOLDER}/{handle.entry.key}/{block}.json"
            lines = {line.image_id: line for line in read_ledger(store.place, name)}
            for item in items:
                if item.row not in found:
                    line = lines[item.image_id]
                    found[item.row] = Failure(line.image_id, line.path, line.stage, line.reason)
        by_view[view] = found
    return StoredLatents(by_view)


def check_latents(
    store: Store, declared: Mapping[str, Mapping[str, Any]], rows: Sequence[int]
) -> None:
    """Does nothing when every view has the latents that are needed; `declared` says, by view, what
    they must have been made from, `rows` of which images.

    Raises StoreMismatch for latents made from other inputs, ExtractError for absent ones.
    """
    for view, asked in declared.items():
        key = f"{view}/{LATENT}"
        handle = store[key]
        if phrases := differences(asked, handle.declared):
            raise StoreMismatch(
                f"store {store.place}: --from-latents needs other latents than it holds\n"
                + "\n".join(f"  - {key}: {phrase}" for phrase in phrases)
                + "\nAsk for what they were made with, or extract from the images."
            )
        known = handle.present.copy()
        for record in handle.records.values():
            known[[row for row in record.failed if row < len(known)]] = True
        if n_absent := int((~known[np.array(rows, np.int64)]).sum()):
            raise ExtractError(
                f"store {store.place}: --from-latents needs {key} for {len(rows)} images, "
                f"{n_absent} have none. Extract {LATENT} for them first, from the images."
            )
