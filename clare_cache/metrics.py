"""How well scores separate fakes from reals: arrays in, numbers out.

Labels are 0 real, 1 fake; a score is higher the more an image looks fake; an image is called fake
when its score is *strictly* above the threshold. A number that the data do not define (one class
only, nothing at all) is NaN, never a default. This module knows no file, table, run or model.

Metrics that take `weights` (n_resamples, n) give one number per row of weights, from one sorting:
that is what makes the bootstrap of `interval` cheap.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from clare_cache.errors import TrainError
from clare_cache.seeds import generator_for
from clare_cache.types import FAKE, REAL

Floats = NDArray[np.float64]

FEWEST_TO_CALIBRATE = 50
"""Images of each class from which a temperature is fitted: of fewer, a handful decides it."""

_BLOCK_VALUES = 4_000_000


class Metric(Protocol):
    """A metric that `interval` can resample, e.g. `average_precision`."""

    def __call__(
        self, labels: ArrayLike, scores: ArrayLike, *, weights: Floats | None = None
    ) -> Floats: ...


@dataclass(frozen=True)
class Interval:
    """Bounds of a confidence interval; NaN where there is nothing to resample.

    `n_skipped` of `n_resamples` resamples held one class only and were left out.
    """

    low: float
    high: float
    n_resamples: int
    n_skipped: int


def average_precision(
    labels: ArrayLike, scores: ArrayLike, *, weights: Floats | None = None
) -> Floats:
    """Sum over distinct scores of precision × gain in recall, fakes positive, in [0, 1].

    The step-wise sum that papers quote (scikit-learn's), not the trapezoid. NaN for one class.
    """
    return separation(labels, scores, weights=weights)[0]


def roc_auc(labels: ArrayLike, scores: ArrayLike, *, weights: Floats | None = None) -> Floats:
    """Chance that a fake scores above a real, ties counting half, in [0, 1]. NaN for one class."""
    return separation(labels, scores, weights=weights)[1]


def separation(
    labels: ArrayLike, scores: ArrayLike, *, weights: Floats | None = None
) -> tuple[Floats, Floats]:
    """`average_precision` and `roc_auc`, from one count.

    Both are sums over fakes, so reals are counted where a fake is and nowhere else.
    """
    labels, scores = _checked(labels, scores)
    weights = np.ones(len(labels)) if weights is None else weights
    fakes, reals = (
        where[np.argsort(-scores[where], kind="stable")]
        for where in (np.flatnonzero(labels == FAKE), np.flatnonzero(labels == REAL))
    )
    fakes_above, reals_above = _running(weights[..., fakes]), _running(weights[..., reals])
    levels, first = np.unique(-scores[fakes], return_index=True)
    ends = np.append(first[1:], len(fakes))[: len(first)]
    sorted_reals = -scores[reals]
    n_fake = fakes_above[..., ends]
    n_real = reals_above[..., np.searchsorted(sorted_reals, levels, side="right")]
    n_before = reals_above[..., np.searchsorted(sorted_reals, levels, side="left")]
    all_fakes, all_reals = fakes_above[..., -1], reals_above[..., -1]
    gained = n_fake - fakes_above[..., first]
    called = n_fake + n_real
    precision = np.divide(n_fake, called, out=np.zeros_like(called), where=called > 0)
    area = (precision * gained).sum(axis=-1)
    # Twice the reals below, those at the same score counting once.
    below = 2 * all_reals[..., None] - n_real - n_before
    ranked = (below * gained).sum(axis=-1) / 2
    return (
        _ratio(area, all_fakes, defined=all_reals > 0),
        _ratio(ranked, all_fakes * all_reals),
    )


def accuracy_at(
    labels: ArrayLike, scores: ArrayLike, threshold: float, *, weights: Floats | None = None
) -> Floats:
    """Share of images on their own side of the threshold, in [0, 1]. NaN for no image."""
    labels, scores = _checked(labels, scores)
    right = (scores > threshold) == (labels == FAKE)
    weights = np.ones(len(labels)) if weights is None else weights
    return _ratio(weights @ right, weights.sum(axis=-1))


def real_accuracy(labels: ArrayLike, scores: ArrayLike, threshold: float) -> float:
    """Share of real images not called fake (specificity). NaN without reals."""
    labels, scores = _checked(labels, scores)
    return _mean(scores[labels == REAL] <= threshold)


def fake_accuracy(labels: ArrayLike, scores: ArrayLike, threshold: float) -> float:
    """Share of fakes called fake (recall). NaN without fakes."""
    labels, scores = _checked(labels, scores)
    return _mean(scores[labels == FAKE] > threshold)


def choose_threshold(labels: ArrayLike, scores: ArrayLike) -> float:
    """The threshold with the highest balanced accuracy on the given (validation) images.

    Candidates are the midpoints between neighbouring distinct scores; of equally good ones the
    nearest to 0.5 is taken, then the lower. Where all scores are equal the answer is 0.5.
    Raises TrainError when a class is absent: then there is nothing to choose from.
    """
    labels, scores = _checked(labels, scores)
    n_real, n_fake = int((labels == REAL).sum()), int((labels == FAKE).sum())
    if not n_real or not n_fake:
        raise TrainError(
            "threshold: expected validation scores of real and of fake images, "
            f"found {n_real} real and {n_fake} fake. Give the validation split both classes."
        )
    distinct = np.unique(scores)
    if len(distinct) == 1:
        return 0.5
    below, above = distinct[:-1], distinct[1:]
    middle = below + (above - below) / 2
    # Between neighbouring floats there is no float; the lower one separates them, `>` being strict.
    candidates = np.where(middle < above, middle, below)
    fakes_above, reals_above = _counts_above(labels, scores)
    caught = fakes_above[-2:0:-1]
    kept = n_real - reals_above[-2:0:-1]
    # Balanced accuracy times 2·n_real·n_fake: whole numbers, so ties are exact.
    worth = caught * n_real + kept * n_fake
    best = candidates[worth == worth.max()]
    return float(best[np.argmin(np.abs(best - 0.5))])


def oracle_accuracy(
    labels: ArrayLike, scores: ArrayLike, *, weights: Floats | None = None
) -> Floats:
    """Highest accuracy of any threshold, *chosen on these same labels*; NaN for one class.

    An upper bound that no deployed detector reaches; print it under the name oracle only.
    """
    n_fake, n_real = _counts_above(labels, scores, weights)
    all_fakes, all_reals = n_fake[..., -1], n_real[..., -1]
    right = (n_fake + all_reals[..., None] - n_real).max(axis=-1)
    return _ratio(right, all_fakes + all_reals, defined=(all_fakes > 0) & (all_reals > 0))


def equal_error_rate(labels: ArrayLike, scores: ArrayLike) -> float:
    """Error rate where as many reals are called fake as fakes are missed, in [0, 1].

    Read off the ROC curve with straight lines between its points. NaN for one class.
    """
    fpr, tpr, _ = roc_points(labels, scores)
    surplus = fpr - (1 - tpr)
    if np.isnan(surplus).any():
        return float("nan")
    after = int(np.argmax(surplus >= 0))
    share = -surplus[after - 1] / (surplus[after] - surplus[after - 1])
    return float(fpr[after - 1] + share * (fpr[after] - fpr[after - 1]))


def tpr_at_fpr(labels: ArrayLike, scores: ArrayLike, fpr: float) -> float:
    """Highest share of fakes caught by any threshold with at most `fpr` of the reals called fake.

    No interpolation: with 50 reals and `fpr` 0.01 no real may be called fake. NaN for one class.
    """
    false_rate, true_rate, _ = roc_points(labels, scores)
    if np.isnan(false_rate + true_rate).any():
        return float("nan")
    return float(true_rate[false_rate <= fpr].max())


def expected_calibration_error(labels: ArrayLike, scores: ArrayLike, *, n_bins: int = 15) -> float:
    """Mean gap between probability of fake and share of fakes over equal-width bins, in [0, 1].

    Guo et al. 2017, eq. 3, in its two-class form; bins are open below, closed above. NaN for no
    image. Raises ValueError for scores outside [0, 1].
    """
    labels, scores = _checked(labels, scores)
    if not len(scores):
        return float("nan")
    if scores.min() < 0 or scores.max() > 1:
        raise ValueError(
            f"calibration: expected probabilities, found {scores.min()} to {scores.max()}"
        )
    bins = np.clip(np.ceil(scores * n_bins).astype(int) - 1, 0, n_bins - 1)
    gaps = np.bincount(bins, weights=scores - labels, minlength=n_bins)
    return float(np.abs(gaps).sum() / len(scores))


def fit_temperature(labels: ArrayLike, log_odds: ArrayLike) -> float:
    """The number by which to divide log-odds so that their cross-entropy on the given (validation)
    images is lowest (Guo et al. 2017), within 0.01..100. Dividing changes no rank.

    NaN where the images do not tell: fewer than `FEWEST_TO_CALIBRATE` of a class, or the best
    number lies outside of these bounds. So it does where every image is on its own side of 0: more
    confidence never hurts there, and how often the head errs was not seen.
    """
    labels, log_odds = _checked(labels, log_odds)
    n_fake = np.count_nonzero(labels == FAKE)
    if min(n_fake, len(labels) - n_fake) < FEWEST_TO_CALIBRATE:
        return float("nan")
    signed = np.where(labels == FAKE, -log_odds, log_odds)

    def cross_entropy(log_temperature: float) -> float:
        return float(np.logaddexp(0, signed * np.exp(-log_temperature)).mean())

    bound = np.log(100.0)
    found = minimize_scalar(cross_entropy, bounds=(-bound, bound), method="bounded")
    is_within = abs(found.x) < bound - 1e-3
    return float(np.exp(found.x)) if is_within else float("nan")


def roc_points(labels: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """False positive rates, true positive rates and thresholds, from (0, 0) to (1, 1).

    Point k calls fake what scores ≥ thresholds[k]; thresholds[0] is +inf.
    """
    n_fake, n_real = _counts_above(labels, scores)
    distinct = np.unique(np.asarray(scores, dtype=np.float64))[::-1]
    thresholds = np.concatenate([[np.inf], distinct])
    return _ratio(n_real, n_real[-1]), _ratio(n_fake, n_fake[-1]), thresholds


def pr_points(labels: ArrayLike, scores: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Recall, precision and thresholds, one point per distinct score, recall not falling.

    Point k calls fake what scores ≥ thresholds[k].
    """
    n_fake, n_real = _counts_above(labels, scores)
    distinct = np.unique(np.asarray(scores, dtype=np.float64))[::-1]
    called = (n_fake + n_real)[1:]
    return _ratio(n_fake[1:], n_fake[-1]), _ratio(n_fake[1:], called), distinct


def interval(
    metric: Metric,
    labels: ArrayLike,
    scores: ArrayLike,
    groups: ArrayLike,
    *,
    n_resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of `metric` that draws whole groups (videos, identities, scenes).

    `groups` (n,) names each image's group. Resamples with one class only are skipped and counted.
    Fewer than two groups, or nothing but skipped resamples, give NaN bounds.
    """
    labels, scores = _checked(labels, scores)

    def alone(weights: Floats) -> list[Floats]:
        return [metric(labels, scores, weights=weights)]

    return intervals(alone, labels, groups, n_resamples=n_resamples, level=level, seed=seed)[0]


def intervals(
    measure: Callable[[Floats], Sequence[Floats]],
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    n_resamples: int = 200,
    level: float = 0.95,
    seed: int = 0,
) -> list[Interval]:
    """`interval` of several numbers on the same resamples.

    `measure` takes weights (resamples, n) and gives one row of values (resamples,) per number.
    """
    labels = np.asarray(labels)
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    found = [measure(np.empty((0, len(labels))))]
    if len(names) > 1:
        for weights in _resamples(member, len(names), n_resamples=n_resamples, seed=seed):
            n_fake = weights @ labels
            both = (n_fake > 0) & (n_fake < weights.sum(axis=-1))
            found.append(measure(weights if both.all() else weights[both]))
    drawn = np.concatenate(found, axis=-1)
    n_skipped = n_resamples - drawn.shape[-1]
    if n_skipped == n_resamples:
        return [Interval(float("nan"), float("nan"), n_resamples, n_skipped)] * len(drawn)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=-1)
    return [
        Interval(float(low[k]), float(high[k]), n_resamples, n_skipped) for k in range(len(drawn))
    ]


def _resamples(
    member: NDArray[np.intp], n_groups: int, *, n_resamples: int, seed: int
) -> Iterator[Floats]:
    """Blocks of (resamples, n) weights: how often each image's group was drawn."""
    generator = generator_for(seed, "interval", "bootstrap")
    step = max(1, _BLOCK_VALUES // max(len(member), 1))
    for first in range(0, n_resamples, step):
        times = np.empty((min(step, n_resamples - first), n_groups))
        for row in times:
            row[:] = np.bincount(generator.integers(0, n_groups, size=n_groups), minlength=n_groups)
        yield times[:, member]


def _running(weights: Floats) -> Floats:
    """Sums of the first 0, 1, 2 … along the last axis."""
    sums = np.zeros((*weights.shape[:-1], weights.shape[-1] + 1))
    np.cumsum(weights, axis=-1, out=sums[..., 1:])
    return sums


def _counts_above(
    labels: ArrayLike, scores: ArrayLike, weights: Floats | None = None
) -> tuple[Floats, Floats]:
    """Fakes and reals at or above each distinct score, descending, after a leading zero."""
    labels, scores = _checked(labels, scores)
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    weights = np.ones(len(scores)) if weights is None else weights[..., order]
    # Compared, not subtracted: scores may be infinite.
    is_last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]
    ends = np.append(0, np.flatnonzero(is_last) + 1)
    fakes, both = _running(weights * labels[order]), _running(weights)
    return fakes[..., ends], (both - fakes)[..., ends]


def _checked(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], Floats]:
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(
            f"metrics: expected one score per label, found {labels.shape} labels and "
            f"{scores.shape} scores"
        )
    if np.isnan(scores).any():
        raise ValueError(
            f"metrics: expected scores, found {int(np.isnan(scores).sum())} NaN. "
            "Leave out the images without features and report the coverage."
        )
    if not np.isin(labels, (REAL, FAKE)).all():
        raise ValueError(f"metrics: expected labels 0 and 1, found {np.unique(labels).tolist()}")
    return labels.astype(np.int64), scores


def _ratio(part: Floats, whole: Floats, *, defined: NDArray[np.bool_] | bool = True) -> Floats:
    part, whole, keep = np.broadcast_arrays(part, whole, (np.asarray(whole) > 0) & defined)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=keep)


def _mean(values: NDArray[np.bool_]) -> float:
    return float(values.mean()) if len(values) else float("nan")
