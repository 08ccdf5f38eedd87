"""Other ways to count the same predictions: families of generators, and whole groups of images.

A group is a video, an identity or a scene as the manifest's column `group` says, never as a folder
is called. Opens no file.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import logit

from clare_cache import metrics
from clare_cache.evaluate.table import (
    TABLE_COLUMNS,
    VALIDATION,
    score_images,
    split_order,
    tabulate,
    view_order,
)
from clare_cache.types import FAKE, REAL

UNIT = ["split", "view", "source", "generator", "family", "label", "group"]
"""Images that share these are one unit: a real video and its fakes may share a group."""

FAMILY_COLUMNS = {
    name: "family of the fakes" if name == "family" else meaning
    for name, meaning in (("split", TABLE_COLUMNS["split"]), ("view", TABLE_COLUMNS["view"]),
                          ("family", ""), *TABLE_COLUMNS.items())
    if name not in ("source", "generator", "reals_from")
}  # fmt: skip


def tabulate_families(
    predictions: pd.DataFrame,
    *,
    threshold: float,
    trained_on: Sequence[str] | None = (),
    **options: Any,
) -> pd.DataFrame:
    """One row per split, view and family (columns: FAMILY_COLUMNS): its fakes of all sources
    against all reals of the split. Families that nobody named have no row.

    `options` are `validated_on`, `temperature`, `n_resamples` and `seed` as in `tabulate`.
    """
    seen = None if trained_on is None else set(trained_on)
    rows = []
    for (split, view), images in _parts(predictions):
        fakes = images["label"] == FAKE
        for family in sorted(set(images.loc[fakes, "family"]) - {""}):
            chosen = images[~fakes | (images["family"] == family)]
            numbers = score_images(chosen, threshold=threshold, seen=seen, **options)
            rows.append({"split": split, "view": view, "family": family, **numbers})
    return pd.DataFrame(rows, columns=list(FAMILY_COLUMNS))


def tabulate_groups(
    predictions: pd.DataFrame,
    *,
    threshold: float,
    trained_on: Sequence[str] | None = (),
    **options: Any,
) -> pd.DataFrame:
    """The tidy table with groups in the place of images; empty where each image is its own group.

    A group's score is the mean probability of its scored images; it is missing when none has a
    score. The threshold is chosen on the groups of the validation split if that was scored, else
    it is the one given.
    """
    units = merge_groups(predictions)
    if len(units) == len(predictions):
        return pd.DataFrame(columns=list(TABLE_COLUMNS))
    chosen = units[units["split"].isin(VALIDATION) & units["score"].notna()]
    if set(chosen["label"]) == {REAL, FAKE}:
        threshold = metrics.choose_threshold(chosen["label"], chosen["score"])
    return tabulate(units, threshold=threshold, trained_on=trained_on, **options)


def merge_groups(predictions: pd.DataFrame) -> pd.DataFrame:
    """Predictions with one row per unit of images; `path` is its group, `n_images` its size."""
    units = predictions.groupby(UNIT, sort=False, dropna=False)
    merged = units.agg(score=("score", "mean"), n_images=("score", "size"),
                       missing=("missing", "first")).reset_index()  # fmt: skip
    merged.loc[merged["score"].notna(), "missing"] = ""
    edge = np.finfo(float).eps
    merged["log_odds"] = logit(merged["score"].clip(edge, 1 - edge))
    return merged.assign(image_id=merged["group"], path=merged["group"])


def _parts(predictions: pd.DataFrame) -> list[tuple[tuple[str, str], pd.DataFrame]]:
    parts = predictions.groupby(["split", "view"])
    keyed = [((str(split), str(view)), images) for (split, view), images in parts]
    return sorted(keyed, key=lambda item: (split_order(item[0][0]), view_order(item[0][1])))
