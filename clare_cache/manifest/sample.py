"""Balanced subsets: as many images of each kind, spread over generators and groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from clare_cache.errors import ManifestError, raise_faults
from clare_cache.manifest.table import COLUMNS, Manifest
from clare_cache.seeds import seed_for


@dataclass(frozen=True)
class Sampled:
    """A subset, and the kinds that have fewer images than were asked for, with how many."""

    manifest: Manifest
    short: Mapping[str, int]


def sample(
    manifest: Manifest,
    *,
    by: Sequence[str] = ("split", "label"),
    per: int | None = None,
    seed: int = 0,
) -> Sampled:
    """`per` images of every combination of the columns `by`; without it as many as the rarest has.

    Within one kind images are taken from its sources and generators in turn, within each of these
    from its groups in turn, so a video is in twice only when every video is in once. Which images
    those are depends on their ids and the seed, not on their order; rows stay in order.

    Raises ManifestError for unknown columns or a `per` below 1.
    """
    faults = [f"by: there is no column {name!r}" for name in by if name not in COLUMNS]
    if per is not None and per < 1:
        faults.append(f"per: expected at least 1 image, found {per}")
    raise_faults(ManifestError, "manifest sample", faults, advice=f"Columns: {', '.join(COLUMNS)}.")
    rows = manifest.rows
    if not len(rows):
        return Sampled(manifest, {})
    kind = _kinds(rows, by)
    sizes = kind.value_counts()
    wanted = int(sizes.min()) if per is None else per
    order = _in_turn(rows, kind, seed=seed)
    kept = order.groupby(kind[order.index], sort=False).head(wanted).index
    short = {str(name): int(n) for name, n in sizes.sort_index().items() if n < wanted}
    return Sampled(Manifest(rows.loc[sorted(kept)].reset_index(drop=True)), short)


def _kinds(rows: pd.DataFrame, by: Sequence[str]) -> pd.Series:
    """The combination each row is of, in words: `split train, label 0`."""
    words = pd.Series([""] * len(rows), index=rows.index)
    for name in by:
        values = rows[name].astype("string").fillna("").replace("", "(none)")
        words = words + ("" if name == by[0] else ", ") + name + " " + values
    return words.astype(str)


def _in_turn(rows: pd.DataFrame, kind: pd.Series, *, seed: int) -> pd.Series:
    """Rows in the order in which they are taken; only the index matters."""
    names = rows["image_id"].astype(str) + "\x1f" + rows["path"].astype(str)
    table = pd.DataFrame(
        {
            "kind": kind,
            "maker": rows["source"].astype(str) + "\x1f" + rows["generator"].astype(str),
            "group": rows["group"].astype(str),
            "draw": [seed_for(seed, name, "sample") >> 65 for name in names],  # 63 bits: an int64
        },
        index=rows.index,
    )
    table = table.sort_values("draw", kind="stable")
    table["in_group"] = table.groupby(["kind", "maker", "group"]).cumcount()
    table = table.sort_values(["in_group", "draw"], kind="stable")
    table["in_maker"] = table.groupby(["kind", "maker"]).cumcount()
    table = table.sort_values(["in_maker", "draw"], kind="stable")
    return table["draw"]
