"""A run folder's scores: read, computed, written as metrics.json, metrics.csv and README.md."""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from clare_cache import metrics
from clare_cache.errors import ReportError, raise_faults
from clare_cache.evaluate.card import write_card
from clare_cache.evaluate.levels import FAMILY_COLUMNS, tabulate_families, tabulate_groups
from clare_cache.evaluate.predictions import compare_coverage, read_predictions
from clare_cache.evaluate.table import (
    ALL,
    TABLE_COLUMNS,
    VALIDATION,
    as_records,
    summarise,
    tabulate,
)
from clare_cache.files import read_json, write_json, write_text
from clare_cache.fingerprint import file_digest

TABLES: dict[str, tuple[Callable[..., pd.DataFrame], Mapping[str, str]]] = {
    "table": (tabulate, TABLE_COLUMNS),
    "families": (tabulate_families, FAMILY_COLUMNS),
    "groups": (tabulate_groups, TABLE_COLUMNS),
}
"""Ways to count a run's predictions: the name in metrics.json, what counts, the columns."""
RULES = 3
"""By which rules they count; the tables of a metrics.json by others are counted anew."""


@dataclass(frozen=True)
class Evaluation:
    """A run with its scores: what `evaluate_run` writes and a report shows.

    `table` counts images by source and generator, `families` by family, `groups` whole groups of
    images (empty where each image is its own). `temperature` is None where validation does not
    tell it.
    """

    run: Path
    config: dict[str, Any]
    predictions: pd.DataFrame
    table: pd.DataFrame
    families: pd.DataFrame
    groups: pd.DataFrame
    temperature: float | None
    headline: dict[str, Any]
    warnings: tuple[str, ...]


def evaluate_run(
    run: Path,
    *,
    n_resamples: int = 200,
    seed: int = 0,
    evaluated_on: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """The tidy table of a run folder; writes its metrics.json, metrics.csv and README.md.

    Reads config.json and predictions.parquet. `evaluated_on` says which store and manifest the
    predictions were made from, by default those of the training. Raises ReportError when the
    files are unusable.
    """
    found = assess_run(run, n_resamples=n_resamples, seed=seed, reuse=False)
    if evaluated_on is None:
        evaluated_on = {
            name: found.config.get(name) for name in ("store", "manifest", "manifest_fingerprint")
        }
    record = {
        "rules": RULES,
        "evaluated_on": dict(evaluated_on),
        "weights_sha256": found.config.get("weights_sha256"),
        "predictions": file_digest(run / "predictions.parquet"),
        "label": found.config["label"],
        "family": found.config["family"],
        "threshold": found.config["threshold"],
        "threshold_from": found.config.get("threshold_from"),
        "temperature": found.temperature,
        "headline": found.headline,
        "warnings": list(found.warnings),
        **{name: as_records(getattr(found, name)) for name in TABLES},
    }
    write_json(run / "metrics.json", record)
    write_text(run / "metrics.csv", one_table(found).to_csv(index=False))
    card = write_card(
        str(run),
        config=found.config,
        table=found.table,
        warnings=found.warnings,
        evaluated_on=evaluated_on,
    )
    write_text(run / "README.md", card)
    return found.table


def assess_run(
    run: Path, *, n_resamples: int = 200, seed: int = 0, reuse: bool = True
) -> Evaluation:
    """The scores of a run folder; nothing is written.

    With `reuse` the table of metrics.json is taken when it was made from these very predictions.
    Raises ReportError when config.json or predictions.parquet are unusable.
    """
    config = read_config(run)
    predictions = read_predictions(run / "predictions.parquet")
    if reuse:
        _refuse_other_weights(run, config)
    temperature = _temperature(predictions)
    tables = _known_tables(run) if reuse else None
    if tables is None:
        tables = {
            name: tabulated(
                predictions,
                threshold=config["threshold"],
                trained_on=config.get("train", {}).get("generators"),
                validated_on=config.get("train", {}).get("validation_generators"),
                temperature=temperature,
                n_resamples=n_resamples,
                seed=seed,
            )
            for name, (tabulated, _) in TABLES.items()
        }
    return Evaluation(
        run=run,
        config=config,
        predictions=predictions,
        **tables,
        temperature=temperature,
        headline=summarise(tables["table"]),
        warnings=(*compare_coverage(predictions), *_not_recorded(config)),
    )


def read_config(run: Path) -> dict[str, Any]:
    """config.json of a run folder, with at least `label`, `family` and `threshold` (0..1)."""
    path = run / "config.json"
    try:
        config = read_json(path)
    except (OSError, ValueError) as error:
        found = "none" if isinstance(error, FileNotFoundError) else "unreadable JSON"
        inside = sorted(path.parent.name for path in run.glob("*/config.json"))
        if inside:
            advice = f"It holds the runs {', '.join(inside)}: give one of them."
        else:
            advice = "Give the folder that `clare-cache train-head` wrote."
        raise ReportError(
            f"run {run.name}: expected a config.json, found {found} in {run}. {advice}"
        ) from error
    faults = [f"{key}: absent" for key in ("label", "family") if not config.get(key)]
    threshold = config.get("threshold")
    if not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        faults.append(f"threshold: expected a probability, found {json.dumps(threshold)}")
    advice = "Train the head again, with a validation split that has both classes."
    raise_faults(ReportError, f"run {run.name}: config.json", faults, advice=advice)
    return config


def _not_recorded(config: Mapping[str, Any]) -> Iterator[str]:
    """A sentence where a run does not say which generators its head has met."""
    trained = config.get("train", {})
    if "generators" not in trained:
        why = " (it was imported)" if config.get("imported") else ""
        yield (
            f"Which generators the head was trained on is not recorded{why}: for it none is called "
            "seen or unseen."
        )
    elif "validation_generators" not in trained:
        yield (
            "The head was trained by an earlier release, which did not record the generators that "
            "chose its epoch and threshold: one that is called unseen may be among them. Train it "
            "again to know."
        )


def _refuse_other_weights(run: Path, config: Mapping[str, Any]) -> None:
    path = run / "metrics.json"
    scored = read_json(path).get("weights_sha256") if path.exists() else None
    if scored is not None and scored != config.get("weights_sha256"):
        raise ReportError(
            f"run {run.name}: its scores are of other weights than its head.safetensors has now. "
            "Score the head again with `clare-cache evaluate`."
        )


def one_table(found: Evaluation) -> pd.DataFrame:
    """All rows of a run below one another: `level` is image or group, `family` a family or all."""
    images = found.table.assign(level="image", family=ALL)
    families = found.families.assign(level="image", source=ALL, generator=ALL, reals_from=ALL)
    groups = found.groups.assign(level="group", family=ALL)
    parts = [part for part in (images, families, groups) if len(part)]
    columns = ["level", "split", "view", "source", "generator", "family", *list(TABLE_COLUMNS)[4:]]
    return pd.concat(parts, ignore_index=True)[columns] if parts else images[columns]


def _temperature(predictions: pd.DataFrame) -> float | None:
    chosen = predictions[predictions["split"].isin(VALIDATION) & predictions["score"].notna()]
    found = metrics.fit_temperature(chosen["label"], chosen["log_odds"])
    return None if math.isnan(found) else found


def _known_tables(run: Path) -> dict[str, pd.DataFrame] | None:
    path = run / "metrics.json"
    if not path.exists():
        return None
    record = read_json(path)
    if record.get("rules") != RULES:
        return None
    if record.get("predictions") != file_digest(run / "predictions.parquet"):
        return None
    tables = {}
    for name, (_, columns) in TABLES.items():
        rows = record.get(name)
        if rows is None or (rows and rows[0].keys() != columns.keys()):
            # Written by a release that counted less.
            return None
        table = pd.DataFrame(rows, columns=list(columns))
        undefined = [column for column in table if table[column].isna().all()]
        tables[name] = table.astype(dict.fromkeys(undefined, "float64"))
    return tables
