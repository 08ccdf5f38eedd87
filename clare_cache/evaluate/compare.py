"""A run's scores beside published ones: row by row, with an interval and a verdict.

A verdict is given only where the two numbers measure the same; otherwise the reason why not. The
published number is never corrected, the measured one never left out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from clare_cache import metrics
from clare_cache.evaluate.run import Evaluation
from clare_cache.evaluate.table import ALL, TRAINING, VALIDATION, as_records, images_behind
from clare_cache.published.expectation import Expectation
from clare_cache.published.tables import SCALE, PublishedTable, TestSet, find_table, rows_of
from clare_cache.published.tables import test_sets as sets_of

Verdict = Literal["within", "above", "below", "not comparable"]

SIZE_TOLERANCE = 0.1
"""Largest relative difference of image counts at which a test set still counts as the same."""

MEASURES: dict[str, tuple[str, Callable[..., Any]]] = {
    "average_precision": ("log_odds", metrics.average_precision),
    "accuracy_0.5": ("score", partial(metrics.accuracy_at, threshold=0.5)),
    "oracle_accuracy": ("log_odds", metrics.oracle_accuracy),
}
"""Column of the tidy table → the column of predictions that it ranks or cuts, and the metric."""


@dataclass(frozen=True)
class Comparison:
    """One published number and what was measured; all numbers in [0, 1], None where there is none.

    `verdict` says where the measured value lies seen from the published one: `within` if the
    published value, give or take half a unit of its last digit, is inside the interval.
    """

    head: str
    table: str
    citation: str
    row: str
    view: str
    test_set: str
    metric: str
    printed: str
    published: float | None
    measured: float | None
    low: float | None
    high: float | None
    n_images: int
    verdict: Verdict
    reason: str

    @property
    def difference(self) -> float | None:
        """Measured minus published."""
        if self.measured is None or self.published is None:
            return None
        return self.measured - self.published


def compare_run(
    found: Evaluation, expected: Sequence[Expectation], *, n_resamples: int = 200, seed: int = 0
) -> list[Comparison]:
    """Every published number of the expected rows beside the run's, in the tables' order.

    Expectations of other heads are left out. Raises ReportError for tables and rows that do not
    exist.
    """
    label = str(found.config["label"])
    bootstrap = partial(metrics.interval, n_resamples=n_resamples, seed=seed)
    return [
        comparison
        for item in expected
        if item.is_about(label)
        for comparison in _compare(
            found, item.of_head(found.config.get("options") or {}), label, bootstrap
        )
    ]


def _compare(
    found: Evaluation, expected: Expectation, label: str, bootstrap: Callable[..., metrics.Interval]
) -> Iterator[Comparison]:
    table = find_table(expected.table)
    barrier = _other_features(found.config, table)
    for row in rows_of(expected).to_dict("records"):
        if row["metric"] not in table.metrics:
            continue
        wanted = _wanted(table, row["test_set"])
        column = table.metrics[row["metric"]]
        parts, reason = _images(found, wanted, row["view"])
        measured = _measure(parts, column, bootstrap) if parts and not reason else None
        published = None if pd.isna(row["value"]) else float(row["value"])
        reason = ("the table has no number" if published is None else "") or reason or barrier
        reason = reason or (_other_size(wanted, parts) if measured else "")
        if measured and not reason and np.isnan(measured[1]):
            reason = "too few groups for an interval"
        yield Comparison(
            head=label,
            table=table.name,
            citation=table.citation,
            row=expected.row,
            view=row["view"],
            test_set=row["test_set"],
            metric=column,
            printed=str(row["printed"]),
            published=published,
            measured=measured[0] if measured else None,
            low=None if measured is None or np.isnan(measured[1]) else measured[1],
            high=None if measured is None or np.isnan(measured[2]) else measured[2],
            n_images=sum(len(part) for part in parts),
            verdict=_verdict(published, measured, reason, _half_unit(row["printed"], table)),
            reason=reason,
        )


def _wanted(table: PublishedTable, name: str) -> list[TestSet]:
    """The test sets behind a number: one, or those of an average."""
    known = sets_of(table.benchmark)
    if name in table.averages:
        return [each for each in known if table.averages[name] in each.collections]
    return [each for each in known if each.name == name]


def _images(
    found: Evaluation, wanted: Sequence[TestSet], view: str
) -> tuple[list[pd.DataFrame], str]:
    """The scored images of each wanted test set, or why they are not all there."""
    parts, absent, doubtful = [], [], []
    rows = [row for row in _judged(found.table) if row["view"] == view]
    for each in wanted:
        places = _places(rows, each)
        if not places:
            absent.append(each.name)
        elif len(places) > 1:
            doubtful.append(each.name)
        elif places[0]["note"]:
            return [], f"{each.name}: {places[0]['note']}"
        else:
            keys = ("split", "view", "source", "generator", "reals_from")
            parts.append(images_behind(found.predictions, **{k: places[0][k] for k in keys}))
    if doubtful:
        return [], f"several rows of the run are called {', '.join(doubtful)}"
    if absent and len(wanted) == 1:
        return [], f"not tested{'' if view == 'clean' else f' in view {view}'}"
    if absent:
        return [], f"{len(absent)} of {len(wanted)} test sets not tested"
    return parts, "" if parts else "not tested"


def _judged(table: pd.DataFrame) -> list[dict[str, Any]]:
    return as_records(table[~table["split"].isin([TRAINING, *VALIDATION])])


def _places(rows: Sequence[Mapping[str, Any]], test_set: TestSet) -> list[Mapping[str, Any]]:
    """The rows that are the test set: its generator's, or else its source's with all generators."""
    mine = [r for r in rows if r["generator"] != ALL and test_set.is_called(str(r["generator"]))]
    pooled = [r for r in rows if r["generator"] == ALL and r["source"] != ALL]
    return mine or [r for r in pooled if test_set.is_called(str(r["source"]))]


def _measure(
    parts: Sequence[pd.DataFrame], column: str, bootstrap: Callable[..., metrics.Interval]
) -> tuple[float, float, float]:
    """Value and bounds of a metric, or of its mean over several test sets.

    The bootstrap draws groups over all parts at once: test sets may share real images.
    """
    given, metric = MEASURES[column]
    joined = pd.concat(parts, ignore_index=True)
    ends = np.cumsum([len(part) for part in parts])
    slices = [slice(end - len(part), end) for end, part in zip(ends, parts, strict=True)]

    def mean(
        labels: ArrayLike, scores: ArrayLike, *, weights: metrics.Floats | None = None
    ) -> metrics.Floats:
        labels, scores = np.asarray(labels), np.asarray(scores)
        values = [
            metric(labels[s], scores[s], weights=None if weights is None else weights[..., s])
            for s in slices
        ]
        return np.asarray(np.mean(values, axis=0))

    labels, scores = joined["label"].to_numpy(), joined[given].to_numpy()
    bounds = bootstrap(mean, labels, scores, joined["group"].to_numpy(dtype=object))
    return float(mean(labels, scores)), bounds.low, bounds.high


def _other_features(config: Mapping[str, Any], table: PublishedTable) -> str:
    """Why the run's features are not those behind the table, or nothing."""
    sources = {source for source in config.get("sources", {}).values() if source}
    random = sorted(s for s in sources if s == "tiny" or s.startswith("random:"))
    if random:
        return f"features of random weights ({', '.join(random)})"
    models = {
        str(value["declared"]["model"])
        for name, value in config.get("features", {}).items()
        if name.startswith("clip_") and value["declared"].get("model")
    }
    others = sorted(models - {table.clip, f"{table.clip}-quickgelu"}) if table.clip else []
    return f"features of {', '.join(others)}, published with {table.clip}" if others else ""


def _other_size(wanted: Sequence[TestSet], parts: Sequence[pd.DataFrame]) -> str:
    for each, part in zip(wanted, parts, strict=True):
        if each.n_images and abs(len(part) - each.n_images) > SIZE_TOLERANCE * each.n_images:
            of = "" if len(wanted) == 1 else f" of {each.name}"
            return f"{len(part):,} images{of}, published on {each.n_images:,}"
    return ""


def _half_unit(printed: Any, table: PublishedTable) -> float:
    """Half a unit of the last printed digit, as a fraction; 0 for unrounded numbers."""
    if not isinstance(printed, str):
        return 0.0
    digits = len(printed.partition(".")[2])
    return float(0.5 * 10.0**-digits * SCALE[table.unit])


def _verdict(
    published: float | None,
    measured: tuple[float, float, float] | None,
    reason: str,
    half_unit: float,
) -> Verdict:
    if reason or published is None or measured is None:
        return "not comparable"
    _, low, high = measured
    if published + half_unit < low:
        return "above"
    if published - half_unit > high:
        return "below"
    return "within"
