"""New splits that no group straddles. Looks at rows only; reads no files."""

from collections.abc import Mapping, Sequence
from math import isclose
from types import MappingProxyType

import pandas as pd

from clare_cache.errors import ManifestError, raise_faults
from clare_cache.manifest.layouts.frames import linked
from clare_cache.manifest.table import COLUMNS, Manifest
from clare_cache.seeds import seed_for
from clare_cache.types import FAKE

_DEFAULT = MappingProxyType({"train": 0.8, "val": 0.2})


def split_by_group(
    manifest: Manifest,
    fractions: Mapping[str, float] = _DEFAULT,
    *,
    seed: int = 0,
    stratify: Sequence[str] = ("label", "generator"),
) -> Manifest:
    """The same rows with `split` assigned anew: whole groups, in the given fractions of rows.

    Groups that share a picture stay together. Groups are taken stratum by stratum (a stratum: the
    same combination of the `stratify` columns), largest first, each to the split that is furthest
    behind; so every stratum, and the whole, comes within a group or two of its fractions. Equal
    sizes are ordered by the seed and the group's name alone: row order does not matter.

    Raises ManifestError for fractions that are not positive or do not sum to 1, an unknown
    column, or fewer groups than splits.
    """
    rows = manifest.rows
    _refuse_bad_request(fractions, stratify)
    unit = _units(rows)
    names = sorted(unit.unique())
    if len(names) < len(fractions):
        raise ManifestError(
            f"split into {', '.join(fractions)}: expected at least {len(fractions)} groups that "
            f"share no picture, found {len(names)}. Ask for fewer splits, or group more finely."
        )
    sizes = {str(name): int(n) for name, n in unit.value_counts().items()}
    strata = _strata(rows, unit, stratify)
    order = sorted(
        names, key=lambda name: (strata[name], -sizes[name], seed_for(seed, name, "split"))
    )
    split_of = _dealt_out([(name, sizes[name]) for name in order], fractions)
    return Manifest(rows.assign(split=unit.map(split_of).astype("string")))


def split_the_rest(
    manifest: Manifest, fractions: Mapping[str, float] = _DEFAULT, *, seed: int = 0
) -> Manifest:
    """The same rows; those without a split get one as `split_by_group` deals them out.

    What shares a group or a picture with images that have a split joins them: where these are in
    several, most of them. Raises ManifestError as `split_by_group`, and when no row lacks a split.
    """
    rows = manifest.rows
    unit = _units(rows)
    has_split = rows["split"] != ""
    if has_split.all():
        raise ManifestError("split the rest: expected images without a split, found none.")
    given = rows[has_split].groupby(unit[has_split])["split"].agg(lambda s: s.mode().iloc[0])
    filled = rows["split"].where(has_split, unit.map(given)).fillna("").astype("string")
    left = (filled == "").to_numpy()
    if left.any():
        dealt = split_by_group(Manifest(rows[left].reset_index(drop=True)), fractions, seed=seed)
        filled[left] = dealt.rows["split"].to_numpy()
    return Manifest(rows.assign(split=filled))


def refuse_replacing(before: Manifest, after: Manifest, *, asked: str) -> None:
    """Raises ManifestError when rows of `before` have a split already: how many, and how many of
    these `after`, the same rows in the same order, puts elsewhere."""
    there = before.rows["split"]
    given = there[there != ""]
    if given.empty:
        return
    n_other = int((after.rows.loc[given.index, "split"] != given).sum())
    counts = ", ".join(f"{name} {n:,}" for name, n in sorted(given.value_counts().items()))
    raise ManifestError(
        f"{asked}: expected images without a split, found {len(given):,} of {len(before):,} with "
        f"one ({counts}), of which {n_other:,} would get another. --rest divides only those "
        "without one, --replace divides all anew."
    )


def hold_out_generators(
    manifest: Manifest, *, share: float, seed: int = 0
) -> tuple[Manifest, tuple[str, ...]]:
    """Rows of splits train and val such that val has fakes of held-out generators alone, and train
    none of them; and the names of these generators, `share` of all but at least one.

    What holds real images stays in its split; fakes that stand alone go where their generator
    is. Rows are left out where a group mixes both: a held-out fake beside a real image that is
    trained on, and the reverse. Raises ManifestError for fewer than two generators.
    """
    rows = manifest.rows
    is_fake = rows["label"] == FAKE
    names = sorted(set(rows.loc[is_fake, "generator"]))
    if len(names) < 2:
        raise ManifestError(
            f"hold out a generator: expected fakes of at least 2 generators, found "
            f"{', '.join(names) or 'none'}. Validate on held-out groups instead."
        )
    n_held = min(max(round(share * len(names)), 1), len(names) - 1)
    drawn = sorted(names, key=lambda name: seed_for(seed, name, "held-out-generator"))
    held = tuple(sorted(drawn[:n_held]))
    is_held = is_fake & rows["generator"].isin(held)
    unit = _units(rows)
    kinds = pd.DataFrame({"real": ~is_fake, "held": is_held, "other": is_fake & ~is_held})
    there = kinds.groupby(unit).any().reindex(unit.to_numpy()).reset_index(drop=True)
    split = rows["split"].astype(object)
    split = split.mask(there["held"] & ~there["real"] & ~there["other"], "val")
    split = split.mask(there["other"] & ~there["real"] & ~there["held"], "train")
    keep = ~is_fake | (is_held == (split == "val"))
    kept = rows.assign(split=split.astype("string"))[keep.to_numpy(bool)]
    return Manifest(kept.reset_index(drop=True)), held


def _refuse_bad_request(fractions: Mapping[str, float], stratify: Sequence[str]) -> None:
    faults = [
        f"{name or 'a split without name'}: expected a fraction above 0, found {fraction}"
        for name, fraction in fractions.items()
        if not (fraction > 0 and name)
    ]
    total = sum(fractions.values())
    if not isclose(total, 1.0, abs_tol=1e-6):
        faults.append(f"the fractions: expected a sum of 1, found {total:g}")
    faults += [f"stratify: there is no column {name!r}" for name in stratify if name not in COLUMNS]
    raise_faults(ManifestError, "split by group", faults)


def _units(rows: pd.DataFrame) -> pd.Series:
    """For each row the name of what must stay together: groups linked by a shared picture."""
    pairs = rows[["image_id", "group"]].drop_duplicates()
    shared = pairs[pairs["image_id"].duplicated(keep=False)]
    return rows["group"].map(linked(shared.groupby("image_id")["group"].agg(tuple)))


def _strata(rows: pd.DataFrame, unit: pd.Series, stratify: Sequence[str]) -> dict[str, str]:
    """Unit → the sorted kinds of rows in it: a video with real and fake frames is a stratum too."""
    kinds = pd.Series([""] * len(rows), dtype="string")
    for name in stratify:
        kinds = kinds + rows[name].astype("string").fillna("") + "\x1f"
    pairs = pd.DataFrame({"unit": unit, "kind": kinds}).drop_duplicates().sort_values("kind")
    strata: dict[str, str] = {}
    for name, kind in zip(pairs["unit"], pairs["kind"], strict=True):
        strata[name] = strata.get(name, "") + kind + "\x1e"
    return strata


def _dealt_out(units: list[tuple[str, int]], fractions: Mapping[str, float]) -> dict[str, str]:
    """Unit → split: each to the split furthest behind its share of the rows dealt so far."""
    dealt = dict.fromkeys(fractions, 0)
    split_of = {}
    n_dealt = 0
    for n_left, (name, n_rows) in zip(range(len(units), 0, -1), units, strict=True):
        n_dealt += n_rows
        # The last units go to the splits that would stay empty.
        empty = [split for split in dealt if dealt[split] == 0]
        open_splits = empty if len(empty) >= n_left else dealt
        chosen = max(open_splits, key=lambda split: fractions[split] * n_dealt - dealt[split])
        dealt[chosen] += n_rows
        split_of[name] = chosen
    return split_of
