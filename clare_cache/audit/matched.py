"""A head's scores once more, on pairs of a real and a fake file that look alike from the outside.

What is left of an average precision then owes nothing to format, compression or size.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from clare_cache import metrics
from clare_cache.audit.gather import pools
from clare_cache.seeds import seed_for
from clare_cache.types import FAKE, REAL

FEWEST_PAIRS = 20
"""Below this, a number would be noise and is not given."""

N_RESAMPLES = 200
_QUALITY_STEP = 5


@dataclass(frozen=True)
class MatchedScore:
    """One generator in one split: average precision over all its images, weighted to as many
    reals as fakes, and over the pairs. NaN where there are fewer than FEWEST_PAIRS."""

    split: str
    source: str
    generator: str
    n_real: int
    n_fake: int
    n_pairs: int
    average_precision: float
    matched: float
    matched_low: float
    matched_high: float


def score_matched(
    traits: pd.DataFrame, predictions: pd.DataFrame, *, view: str, seed: int = 0
) -> list[MatchedScore]:
    """Every split and generator of a run's predictions in one view.

    `traits` is the table of `gather_traits`; images without score or without traits are left out.
    """
    shown = predictions[(predictions["view"] == view) & predictions["score"].notna()]
    known = traits.drop(
        columns=[c for c in traits.columns if c in shown.columns and c != "image_id"]
    )
    joined = shown.merge(known, on="image_id", how="inner")
    joined = joined.assign(bin=outside_of(joined))
    return [
        _scored(str(split), source, generator, images, seed=seed)
        for split, part in joined.groupby("split")
        for source, generator, images in pools(part)
    ]


def outside_of(table: pd.DataFrame) -> pd.Series:
    """Files of one name look alike: format, JPEG quality within 5, subsampling, metadata, colour
    profile, area within a factor of √2, bytes per pixel within a factor of √2."""
    quality = pd.to_numeric(table["jpeg_quality"]).astype("Float64").fillna(-1)
    parts = {
        "format": table["format"],
        "quality": (quality // _QUALITY_STEP),
        "subsampling": table["subsampling"],
        "progressive": table["progressive"],
        "exif": table["has_exif"],
        "texts": table["n_texts"] > 0,
        "profile": table["profile"] != "",
        "area": np.round(2 * np.log2(table["width"] * table["height"])),
        "rate": np.round(2 * np.log2(table["bytes_per_pixel"])),
    }
    named = pd.DataFrame(parts).astype(str)
    return named.agg("|".join, axis=1) if len(named) else pd.Series([], dtype=str)


def _scored(
    split: str, source: str, generator: str, images: pd.DataFrame, *, seed: int
) -> MatchedScore:
    labels = images["label"].to_numpy(np.int64)
    ranks = images["log_odds"].to_numpy(np.float64)
    n_real, n_fake = int((labels == REAL).sum()), int((labels == FAKE).sum())
    weights = np.where(labels == FAKE, 1 / max(n_fake, 1), 1 / max(n_real, 1))
    everything = float(metrics.average_precision(labels, ranks, weights=weights[None, :])[0])
    pairs = _pairs(images, seed=seed)
    counts = (split, source, generator, n_real, n_fake, len(pairs) // 2)
    if len(pairs) // 2 < FEWEST_PAIRS:
        nan = float("nan")
        return MatchedScore(*counts, everything, nan, nan, nan)
    chosen = images.loc[pairs]
    labels, ranks = chosen["label"].to_numpy(np.int64), chosen["log_odds"].to_numpy(np.float64)
    groups = np.unique(chosen["group"].to_numpy(dtype=object), return_inverse=True)[1]
    bounds = metrics.interval(
        metrics.average_precision, labels, ranks, groups, n_resamples=N_RESAMPLES, seed=seed
    )
    value = float(metrics.average_precision(labels, ranks))
    return MatchedScore(*counts, everything, value, bounds.low, bounds.high)


def _pairs(images: pd.DataFrame, *, seed: int) -> list:
    """Rows of as many reals as fakes from every bin, drawn by image id."""
    order = images["image_id"].map(lambda image_id: seed_for(seed, str(image_id), "pair"))
    shuffled = images.assign(_order=order.astype(object)).sort_values("_order", kind="stable")
    chosen: list = []
    for _, mine in shuffled.groupby("bin"):
        reals, fakes = mine.index[mine["label"] == REAL], mine.index[mine["label"] == FAKE]
        n = min(len(reals), len(fakes))
        chosen += [*reals[:n], *fakes[:n]]
    return chosen
