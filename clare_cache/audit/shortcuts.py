"""A classifier that sees only what files give away: how far it gets is how far a shortcut reaches.

For each generator and for all of them, cross-validated so that no group is on both sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clare_cache import metrics
from clare_cache.audit.gather import pools
from clare_cache.seeds import generator_for
from clare_cache.types import FAKE, OnProgress, Progress, ignore_progress

TRAITS: dict[str, tuple[str, ...]] = {
    "format": ("format", "mode"),
    "resolution": ("width", "height"),
    "bytes per pixel": ("bytes_per_pixel",),
    "JPEG quantisation tables": ("jpeg_tables", "jpeg_quality"),
    "chroma subsampling": ("subsampling", "progressive"),
    "metadata": ("has_exif", "has_dpi", "n_texts"),
    "colour profile": ("profile",),
}
"""Names for people → columns of the table of traits; each is judged as one."""

_CATEGORIES = ("format", "mode", "jpeg_tables", "subsampling", "profile")
_MOST_CATEGORIES = 12
FOLDS = 5
N_RESAMPLES = 200
MOST_IMAGES = 20_000
SHORTCUT_FROM, HINT_FROM = 0.70, 0.55
"""Lower bounds of the AUC's interval from which there is a shortcut, or a hint of one."""

Verdict = Literal["shortcut", "hint", "none found", "too few groups"]


@dataclass(frozen=True)
class Carrier:
    """One trait's part in it: the AUC of that trait alone, how much AUC is lost when it is
    permuted, and what it most often is for real and for fake images."""

    trait: str
    auc_alone: float
    auc_lost: float
    real: str
    fake: str


@dataclass(frozen=True)
class Finding:
    """How well a generator's fakes are told from reals without looking at a picture.

    `auc` with its 95 % interval, NaN for too few groups; `carriers` come strongest first.
    """

    source: str
    generator: str
    n_real: int
    n_fake: int
    n_groups: int
    auc: float
    auc_low: float
    auc_high: float
    verdict: Verdict
    carriers: tuple[Carrier, ...]


@dataclass(frozen=True)
class Audit:
    """Every finding, all generators together first."""

    findings: tuple[Finding, ...]

    @property
    def has_shortcut(self) -> bool:
        """Whether any generator is told by its files."""
        return any(finding.verdict == "shortcut" for finding in self.findings)


def audit_shortcuts(
    table: pd.DataFrame, *, seed: int = 0, on_progress: OnProgress = ignore_progress
) -> Audit:
    """What the traits of `gather_traits` say about the labels, generator by generator.

    Of a comparison with more than MOST_IMAGES so many are used, those with the lowest ids.
    """
    comparisons = list(pools(table))
    findings = []
    for n_done, (source, generator, images) in enumerate(comparisons, start=1):
        findings.append(_found(_by_id(images).head(MOST_IMAGES), source, generator, seed=seed))
        total = len(comparisons)
        on_progress(Progress(what="audit", done=n_done, total=total, unit="comparison"))
    return Audit(tuple(findings))


def _by_id(images: pd.DataFrame) -> pd.DataFrame:
    # Folds and forests depend on the order of rows; a data set has none.
    return images.sort_values("image_id", ignore_index=True)


def _found(images: pd.DataFrame, source: str, generator: str, *, seed: int) -> Finding:
    labels: NDArray[np.int64] = np.asarray(images["label"] == FAKE, np.int64)
    groups = np.asarray(pd.factorize(images["group"])[0], np.int64)
    size = partial(
        Finding,
        source=source,
        generator=generator,
        n_real=int((labels == 0).sum()),
        n_fake=int(labels.sum()),
        n_groups=len(np.unique(groups)),
    )
    folds = _folds(labels, groups, seed=seed)
    if folds is None:
        nan = float("nan")
        return size(auc=nan, auc_low=nan, auc_high=nan, verdict="too few groups", carriers=())
    columns = {trait: encode(images, names) for trait, names in TRAITS.items()}
    scores, lost = _cross_validated(columns, labels, folds, seed=seed)
    auc = float(metrics.roc_auc(labels, scores))
    bounds = metrics.interval(
        metrics.roc_auc, labels, scores, groups, n_resamples=N_RESAMPLES, seed=seed
    )
    carriers = []
    for trait, values in columns.items():
        alone = _alone(values, labels, folds, seed=seed)
        seen = [_usual(images[labels == kind], trait) for kind in (0, 1)]
        carriers.append(Carrier(trait, alone, lost[trait], *seen))
    carriers.sort(key=lambda c: (-max(c.auc_lost, 0.0), -c.auc_alone, c.trait))
    return size(
        auc=auc,
        auc_low=bounds.low,
        auc_high=bounds.high,
        verdict=_verdict(bounds.low if np.isfinite(bounds.low) else auc),
        carriers=tuple(carriers),
    )


def _verdict(low: float) -> Verdict:
    if low >= SHORTCUT_FROM:
        return "shortcut"
    return "hint" if low >= HINT_FROM else "none found"


Folds = list[tuple[NDArray[np.int64], NDArray[np.int64]]]


def _folds(labels: NDArray[np.int64], groups: NDArray[np.int64], *, seed: int) -> Folds | None:
    """Splits that no group straddles, each with both classes in training and test; or None."""
    from sklearn.model_selection import StratifiedGroupKFold

    per_class = [len(np.unique(groups[labels == kind])) for kind in (0, 1)]
    n_folds = min(FOLDS, *per_class)
    if n_folds < 2:
        return None
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    folds = [
        (train, test)
        for train, test in splitter.split(labels, labels, groups)
        if len(np.unique(labels[train])) == 2 and len(test)
    ]
    return folds if sum(len(test) for _, test in folds) == len(labels) else None


def encode(images: pd.DataFrame, names: Sequence[str]) -> NDArray[np.float64]:
    """(n, k) numbers of these columns: categories as indicators, what is missing as -1."""
    parts = []
    for name in names:
        values = images[name]
        if name in _CATEGORIES:
            common = values.value_counts().index[:_MOST_CATEGORIES]
            parts += [(values == value).to_numpy(np.float64) for value in sorted(common)]
        else:
            numbers = pd.to_numeric(values).astype("Float64").fillna(-1)
            parts.append(numbers.to_numpy(np.float64))
    return np.stack(parts, axis=1)


def _cross_validated(
    columns: dict[str, NDArray[np.float64]], labels: NDArray[np.int64], folds: Folds, *, seed: int
) -> tuple[NDArray[np.float64], dict[str, float]]:
    """Out-of-fold scores (n,), and the AUC lost when one trait's columns are shuffled together."""
    from sklearn.ensemble import RandomForestClassifier

    matrix = np.concatenate(list(columns.values()), axis=1)
    ends = np.cumsum([values.shape[1] for values in columns.values()])
    scores = np.zeros(len(labels))
    shuffled = {trait: np.zeros(len(labels)) for trait in columns}
    for number, (train, test) in enumerate(folds):
        forest = RandomForestClassifier(
            n_estimators=40, min_samples_leaf=2, class_weight="balanced", random_state=seed
        ).fit(matrix[train], labels[train])
        scores[test] = _fake_probability(forest, matrix[test])
        for (trait, values), end in zip(columns.items(), ends, strict=True):
            if not np.ptp(values[test], axis=0).any():  # shuffling equal rows changes nothing
                shuffled[trait][test] = scores[test]
                continue
            permuted = matrix[test].copy()
            order = generator_for(seed, f"{trait}/{number}", "permutation").permutation(len(test))
            mine = slice(end - values.shape[1], end)
            permuted[:, mine] = permuted[order, mine]
            shuffled[trait][test] = _fake_probability(forest, permuted)
    whole = float(metrics.roc_auc(labels, scores))
    return scores, {
        trait: whole - float(metrics.roc_auc(labels, values)) for trait, values in shuffled.items()
    }


def _alone(
    values: NDArray[np.float64], labels: NDArray[np.int64], folds: Folds, *, seed: int
) -> float:
    """Cross-validated AUC of one trait by a shallow tree: importance alone hides behind others."""
    from sklearn.tree import DecisionTreeClassifier

    if not np.ptp(values, axis=0).any():
        return 0.5
    scores = np.zeros(len(labels))
    for train, test in folds:
        tree = DecisionTreeClassifier(
            max_depth=4, min_samples_leaf=2, class_weight="balanced", random_state=seed
        ).fit(values[train], labels[train])
        scores[test] = _fake_probability(tree, values[test])
    return float(metrics.roc_auc(labels, scores))


def _fake_probability(model: Any, values: NDArray[np.float64]) -> NDArray[np.float64]:
    # Rounded, so that equal leaves of different folds are ties and not an order.
    return np.asarray(model.predict_proba(values)[:, 1]).round(6)


def _usual(images: pd.DataFrame, trait: str) -> str:
    """What a trait mostly is, for people: a value with its share, or a median."""
    if trait == "bytes per pixel":
        return f"{images['bytes_per_pixel'].median():.2f}"
    if trait == "resolution":
        shown = images["width"].astype(str) + "x" + images["height"].astype(str)
    elif trait == "JPEG quantisation tables":
        quality = images["jpeg_quality"].astype("Int64").astype("string")
        shown = ("quality " + quality).fillna("none")
    elif trait == "metadata":
        named = {"has_exif": "EXIF", "has_dpi": "dpi", "n_texts": "texts"}
        there = images[list(named)].astype(bool).to_numpy()
        words = [" ".join(np.array(list(named.values()))[row]) or "none" for row in there]
        shown = pd.Series(words)
    else:
        shown = images[TRAITS[trait][0]].replace("", "none")
    share = shown.value_counts(normalize=True)
    return f"{share.index[0]} {share.iloc[0]:.0%}"
