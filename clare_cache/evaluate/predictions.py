"""predictions.parquet, checked: one row per asked-for image and view, missing ones included.

Knows nothing of metrics.
"""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from clare_cache.errors import ReportError, raise_faults
from clare_cache.files import read_frame
from clare_cache.types import FAKE, REAL

PREDICTION_COLUMNS = (
    "image_id",
    "path",
    "label",
    "split",
    "source",
    "generator",
    "family",
    "group",
    "view",
    "score",
    "log_odds",
    "missing",
)

COVERAGE_TOLERANCE = 0.01
"""Largest difference of coverage between real and fake images that raises no warning."""


def read_predictions(path: Path) -> pd.DataFrame:
    """The checked predictions, one row per asked-for image and view.

    Raises ReportError that lists every fault: absent columns, labels that are not 0 or 1, scores
    outside [0, 1], images without score and without reason (or with both), repeated files.
    """
    try:
        table = read_frame(path)
    except (OSError, ValueError) as error:
        found = "none" if isinstance(error, FileNotFoundError) else "something else"
        raise ReportError(
            f"predictions of run {path.parent.name}: expected a Parquet file, found {found} "
            f"in {path}. "
            "Score the head again with `clare-cache evaluate`."
        ) from error
    faults = [f"column {name}: absent" for name in PREDICTION_COLUMNS if name not in table]
    faults = faults or list(_value_faults(table))
    advice = "Score the head again with `clare-cache evaluate`."
    raise_faults(ReportError, f"predictions of run {path.parent.name}", faults, advice=advice)
    return table


def compare_coverage(predictions: pd.DataFrame) -> Iterator[str]:
    """One sentence per split and view where real and fake images are not covered alike."""
    scored = predictions["score"].notna()
    shares = scored.groupby([predictions[c] for c in ("split", "view", "label")]).mean().unstack()
    if REAL not in shares or FAKE not in shares:
        return
    for (split, view), share in zip(shares.index, shares.to_dict("records"), strict=True):
        if abs(share[REAL] - share[FAKE]) > COVERAGE_TOLERANCE:
            yield (
                f"{split.capitalize()} split, {view} view: {share[REAL]:.1%} of the real and "
                f"{share[FAKE]:.1%} of the fake images have a score: the numbers may be "
                "flattered or harmed by what is missing. See the list of missing images."
            )


def _value_faults(table: pd.DataFrame) -> Iterator[str]:
    labels = sorted(set(table["label"].unique()) - {REAL, FAKE}, key=str)
    if labels:
        yield f"column label: expected 0 (real) or 1 (fake), found {', '.join(map(str, labels))}"
    names = ["image_id", "path", "split", "source", "generator", "group", "view", "missing"]
    for name in names:
        if n := int(table[name].isna().sum()):
            yield f"column {name}: expected text, found {_rows(n)} without"
    if not pd.api.types.is_float_dtype(table["score"]):
        yield f"column score: expected float64, found {table['score'].dtype}"
        return
    scored = table["score"].notna()
    if n := int((scored & ~table["score"].between(0, 1)).sum()):
        yield f"column score: expected probabilities in [0, 1], found {_rows(n)} outside"
    if n := int((scored != table["log_odds"].notna()).sum()):
        yield f"column log_odds: expected numbers just where score has them, found {_rows(n)} off"
    excused = table["missing"].fillna("") != ""
    if n := int((~scored & ~excused).sum()):
        yield f"column missing: expected a reason where score is absent, found {_rows(n)} without"
    if n := int((scored & excused).sum()):
        yield f"column missing: expected no reason where there is a score, found {_rows(n)} with"
    if n := int(table.duplicated(["path", "view"]).sum()):
        yield f"column path: expected one row per file and view, found {_rows(n)} repeated"


def _rows(n: int) -> str:
    return "1 row" if n == 1 else f"{n:,} rows"
