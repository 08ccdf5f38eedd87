"""The tidy table: one row per split, view, source and generator.

* generator `all`: every real and every fake image of the split; where a split mixes sources, also
  one such row per source that has both classes;
* any other generator: its fakes of one source against *all* reals of that source in the split or,
  where that source has no reals, against all reals of the split. `reals_from` says which.

Opens no file. `TABLE_COLUMNS` defines every column.
"""

from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import pandas as pd
from scipy.special import expit

from clare_cache import metrics
from clare_cache.types import CLEAN, FAKE, REAL

ALL = "all"
"""The source or generator of a row that pools them."""

TRAINING = "train"
VALIDATION = ("val", "valid", "validation")

FEWEST_REALS = {"tpr_at_fpr_1": 100, "tpr_at_fpr_5": 20}
"""Rate → the least reals of which its share is one: of fewer, a single picture would decide it."""

TABLE_COLUMNS = {
    "split": "split of the manifest",
    "view": "perturbation of the pictures; `clean` is none",
    "source": "data set of the fakes, or `all`",
    "generator": "generator of the fakes, or `all`",
    "reals_from": "data set of the reals, or `all`",
    "n_asked": "images of the manifest",
    "n_scored": "images that have a score; the others are in the ledger",
    "coverage": "n_scored / n_asked",
    "n_real": "scored real images",
    "n_fake": "scored fake images",
    "average_precision": "area under the precision-recall steps, fakes positive",
    "average_precision_low": "lower bound of its 95 % interval (bootstrap over groups)",
    "average_precision_high": "upper bound",
    "auc": "area under the ROC curve",
    "auc_low": "lower bound of its 95 % interval",
    "auc_high": "upper bound",
    "accuracy_0.5": "accuracy when score > 0.5 means fake",
    "accuracy_validation_threshold": "accuracy when score > threshold means fake",
    "accuracy_validation_threshold_low": "lower bound of its 95 % interval",
    "accuracy_validation_threshold_high": "upper bound",
    "oracle_accuracy": "best accuracy of any threshold, chosen on these very labels",
    "real_accuracy": "share of reals not called fake, at the threshold",
    "fake_accuracy": "share of fakes called fake, at the threshold",
    "eer": "equal error rate",
    "tpr_at_fpr_1": "share of fakes caught when at most 1 % of reals are called fake; nothing for "
    "under 100 reals, of which 1 % is none",
    "tpr_at_fpr_5": "the same at 5 %; nothing for under 20 reals",
    "ece": "expected calibration error, 15 equal-width bins",
    "ece_calibrated": "the same once log-odds are divided by the validation's temperature",
    "seen_in_training": "the generator (for `all`: every generator) was trained on; nothing where "
    "the run does not say",
    "seen_in_validation": "it chose epoch and threshold; nothing where the run does not say",
    "threshold": "probability chosen on validation",
    "n_groups": "groups that the bootstrap drew from",
    "n_resamples_skipped": "resamples left out because they held one class only",
    "note": "why numbers are absent, if they are",
}


def tabulate(
    predictions: pd.DataFrame,
    *,
    threshold: float,
    trained_on: Sequence[str] | None = (),
    validated_on: Sequence[str] | None = None,
    temperature: float | None = None,
    n_resamples: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """The tidy table (columns: TABLE_COLUMNS) of predictions as `read_predictions` gives them.

    `temperature` is that of the validation's log-odds, if it is known. Generators named in
    `trained_on`, or with fakes in the training split, count as seen; those in `validated_on` as
    seen in validation (None, of either: unknown). Rows are ordered: splits
    (training, validation, the others), `clean` before other views, pools first.
    """
    fakes = predictions[predictions["label"] == FAKE]
    trained = set(fakes.loc[fakes["split"] == TRAINING, "generator"])
    seen = None if trained_on is None else trained.union(trained_on)
    score = partial(
        score_images,
        threshold=threshold,
        seen=seen,
        validated_on=validated_on,
        temperature=temperature,
        n_resamples=n_resamples,
        seed=seed,
    )
    rows = []
    for split in sorted(predictions["split"].unique(), key=split_order):
        part = predictions[predictions["split"] == split]
        for view in sorted(part["view"].unique(), key=view_order):
            for place, images in _pools(part[part["view"] == view]):
                rows.append({"split": split, "view": view, **place, **score(images)})
    return pd.DataFrame(rows, columns=list(TABLE_COLUMNS))


def summarise(table: pd.DataFrame) -> dict[str, Any]:
    """The few numbers to quote: each split's pooled `clean` row, mean and worst over generators."""
    headline: dict[str, Any] = {}
    for split, rows in table[table["view"] == first_view(table)].groupby("split", sort=False):
        pooled = rows[(rows["source"] == ALL) & (rows["generator"] == ALL)]
        numbers = as_records(pooled)[0]
        each = rows[(rows["generator"] != ALL) & rows["average_precision"].notna()]
        if len(each):
            worst = each.sort_values("average_precision", kind="stable").iloc[0]
            numbers["mean_over_generators"] = {
                name: float(each[name].mean())
                for name in ("average_precision", "auc", "accuracy_validation_threshold")
            }
            numbers["worst_generator"] = {
                "generator": str(worst["generator"]),
                "average_precision": float(worst["average_precision"]),
            }
        headline[str(split)] = numbers
    return headline


def images_behind(
    predictions: pd.DataFrame,
    *,
    split: str,
    view: str,
    source: str,
    generator: str,
    reals_from: str,
) -> pd.DataFrame:
    """The scored predictions that a row of the tidy table was computed from."""
    there = (predictions["split"] == split) & (predictions["view"] == view)
    table = predictions[there & predictions["score"].notna()]
    fake = table["label"] == FAKE
    wanted_fake = fake if generator == ALL else fake & (table["generator"] == generator)
    if source != ALL:
        wanted_fake &= table["source"] == source
    wanted_real = ~fake if reals_from == ALL else ~fake & (table["source"] == reals_from)
    return table[wanted_fake | wanted_real]


def split_order(split: str) -> tuple[int, str]:
    """Sort key: training, validation, then the others by name."""
    return (0 if split == TRAINING else 1 if split in VALIDATION else 2), split


def view_order(view: str) -> tuple[bool, str]:
    """Sort key: `clean`, then the others by name."""
    return view != CLEAN, view


def first_view(table: pd.DataFrame) -> str:
    """The view that headlines quote: `clean`, or the first by name where it is absent."""
    return min(table["view"], key=view_order, default=CLEAN)


def as_records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as JSON-able mappings, NaN as None."""
    plain = table.astype(object).where(table.notna(), None)
    return cast(list[dict[str, Any]], plain.to_dict("records"))


def _pools(images: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Where each row of the table stands, and its images, for one split and view."""
    real = images["label"] == REAL
    yield {"source": ALL, "generator": ALL, "reals_from": ALL}, images
    sources = sorted(images["source"].unique())
    for source in sources if len(sources) > 1 else ():
        mine = images["source"] == source
        if (mine & real).any() and (mine & ~real).any():
            yield {"source": source, "generator": ALL, "reals_from": source}, images[mine]
    fakes = images[~real]
    for key, mine in fakes.groupby(["source", "generator"]):
        source, generator = map(str, cast(tuple, key))
        own = real & (images["source"] == source)
        reals = images[own if own.any() else real]
        place = {"source": source, "generator": generator}
        yield {**place, "reals_from": source if own.any() else ALL}, pd.concat([reals, mine])


def score_images(
    images: pd.DataFrame,
    *,
    threshold: float,
    seen: set[str] | None,
    validated_on: Sequence[str] | None = None,
    temperature: float | None = None,
    n_resamples: int = 200,
    seed: int = 0,
) -> dict[str, Any]:
    """The numbers of one row, for these predictions."""
    scored = images[images["score"].notna()]
    labels, scores = scored["label"].to_numpy(), scored["score"].to_numpy()
    # Ranking by log-odds: probabilities near 1 round to ties.
    ranks = scored["log_odds"].to_numpy()
    groups = np.unique(scored["group"].to_numpy(dtype=object), return_inverse=True)[1]

    def measure(weights: metrics.Floats | None) -> list[metrics.Floats]:
        at_threshold = metrics.accuracy_at(labels, scores, threshold, weights=weights)
        return [*metrics.separation(labels, ranks, weights=weights), at_threshold]

    names = ("average_precision", "auc", "accuracy_validation_threshold")
    all_bounds = metrics.intervals(measure, labels, groups, n_resamples=n_resamples, seed=seed)
    values: dict[str, Any] = {}
    for name, value, bounds in zip(names, measure(None), all_bounds, strict=True):
        values |= {name: float(value), f"{name}_low": bounds.low, f"{name}_high": bounds.high}
    generators = set(images.loc[images["label"] == FAKE, "generator"])
    n_fake = int((labels == FAKE).sum())
    return values | {
        "n_asked": len(images),
        "n_scored": len(scored),
        "coverage": len(scored) / len(images),
        "n_real": len(scored) - n_fake,
        "n_fake": n_fake,
        "accuracy_0.5": float(metrics.accuracy_at(labels, scores, 0.5)),
        "oracle_accuracy": float(metrics.oracle_accuracy(labels, ranks)),
        "real_accuracy": metrics.real_accuracy(labels, scores, threshold),
        "fake_accuracy": metrics.fake_accuracy(labels, scores, threshold),
        "eer": metrics.equal_error_rate(labels, ranks),
        **{
            name: metrics.tpr_at_fpr(labels, ranks, 1 / fewest)
            if len(scored) - n_fake >= fewest
            else np.nan
            for name, fewest in FEWEST_REALS.items()
        },
        "ece": metrics.expected_calibration_error(labels, scores),
        "ece_calibrated": np.nan
        if temperature is None
        else metrics.expected_calibration_error(labels, expit(ranks / temperature)),
        "seen_in_training": _seen(generators, seen),
        "seen_in_validation": _seen(generators, validated_on),
        "threshold": threshold,
        "n_groups": len(np.unique(groups)),
        "n_resamples_skipped": bounds.n_skipped,
        "note": _absence(len(scored) - n_fake, n_fake),
    }


def _seen(generators: set[str], met: Collection[str] | None) -> bool | float:
    return np.nan if met is None else bool(generators) and generators <= set(met)


def _absence(n_real: int, n_fake: int) -> str:
    absent = [name for name, n in (("real", n_real), ("fake", n_fake)) if not n]
    return f"no scored {' and no scored '.join(absent)} image" if absent else ""
