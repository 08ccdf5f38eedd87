"""The runs of a report: read, ranked on validation, each with its label and colour."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from clare_cache.errors import ReportError, raise_faults
from clare_cache.evaluate import (
    ALL,
    TRAINING,
    VALIDATION,
    Evaluation,
    as_records,
    assess_run,
    read_config,
    split_order,
    view_order,
)
from clare_cache.files import read_json
from clare_cache.fingerprint import file_digest

Row = Mapping[str, Any]
Place = tuple[str, str, str, str]
"""Split, view, source and generator: the address of a row of the tidy table."""

ORIGIN = ("store", "manifest", "manifest_fingerprint")
"""What says which images and features are behind a run's numbers."""


@dataclass(frozen=True)
class ReportedRun:
    """A run as the page shows it; `slot`, its place in the ranking, picks its colour."""

    label: str
    slot: int
    evaluation: Evaluation
    rows: Mapping[Place, Row]
    families: Mapping[tuple[str, str, str], Row]
    """By split, view and family."""
    groups: Mapping[Place, Row]
    """As `rows`, with whole groups of images counted."""
    history: tuple[Row, ...]
    recorded: Mapping[str, Any]

    @property
    def evaluated_on(self) -> Mapping[str, Any]:
        """`store`, `manifest` and `manifest_fingerprint` behind the scores: as metrics.json says,
        or else those of the training; None where neither says."""
        origin = {name: self.recorded.get(name) or self.config.get(name) for name in ORIGIN}
        if origin["manifest"] != self.config.get("manifest"):
            origin["manifest_fingerprint"] = self.recorded.get("manifest_fingerprint")
        return origin

    @property
    def validated_on(self) -> Mapping[str, Any]:
        """The same of the validation scores, which may be those of the training's epochs."""
        is_scored = any(split in VALIDATION for split in splits_of([self]))
        return self.evaluated_on if is_scored else self.config

    @property
    def config(self) -> Mapping[str, Any]:
        return self.evaluation.config

    @property
    def validation(self) -> Row:
        """`auc` and `average_precision` on validation: of its predictions, or else of the epoch
        that was kept; None where neither is recorded."""
        view = first_view_of([self])
        for split in splits_of([self]):
            if split in VALIDATION and (split, view, ALL, ALL) in self.rows:
                return self.rows[split, view, ALL, ALL]
        kept = self.config.get("validation") or {}
        return {"auc": kept.get("val_auc"), "average_precision": kept.get("val_ap")}


def read_runs(folders: Sequence[Path]) -> list[ReportedRun]:
    """The runs, best validation AUC first (then AP, then the order given).

    Raises ReportError that lists what is wrong with every folder.
    """
    if not folders:
        raise ReportError(
            "report: expected at least one run folder, found none. Give the folders that "
            "`clare-cache train-head` wrote."
        )
    evaluations, faults = [], []
    for folder in folders:
        try:
            evaluations.append((assess_run(folder), _read_history(folder), _read_origin(folder)))
        except ReportError as error:
            faults.append(str(error).replace("\n", "\n    "))
    raise_faults(ReportError, "report", faults)
    labels = _distinct([(found.run, found.config) for found, *_ in evaluations])
    runs = [
        ReportedRun(
            label=label,
            slot=0,
            evaluation=found,
            rows={_place(row): row for row in as_records(found.table)},
            families={
                (row["split"], row["view"], row["family"]): row
                for row in as_records(found.families)
            },
            groups={_place(row): row for row in as_records(found.groups)},
            history=history,
            recorded=recorded,
        )
        for label, (found, history, recorded) in zip(labels, evaluations, strict=True)
    ]
    ranked = sorted(runs, key=_validation_rank)
    return [replace(run, slot=k) for k, run in enumerate(ranked)]


def label_runs(folders: Sequence[Path]) -> dict[Path, str]:
    """The name of each run on the page: its label, with the folder where runs share one.

    Raises ReportError for a run without a usable config.json.
    """
    labels = _distinct([(folder, read_config(folder)) for folder in folders])
    return dict(zip(folders, labels, strict=True))


def splits_of(runs: Iterable[ReportedRun]) -> list[str]:
    """Every split that was scored: training, validation, the others by name."""
    return sorted({place[0] for run in runs for place in run.rows}, key=split_order)


def views_of(runs: Iterable[ReportedRun]) -> list[str]:
    """Every view that was scored, `clean` first."""
    return sorted({place[1] for run in runs for place in run.rows}, key=view_order)


def first_view_of(runs: Iterable[ReportedRun]) -> str:
    """`clean`, or the first view by name."""
    return views_of(runs)[0]


def judged_splits_of(runs: Sequence[ReportedRun]) -> list[str]:
    """The splits to judge heads by: all but training and validation, or whatever there is."""
    splits = splits_of(runs)
    kept = [s for s in splits if s != TRAINING and s not in VALIDATION]
    return kept or splits[-1:]


UNSEEN = "unseen"


def generators_of(runs: Iterable[ReportedRun], split: str, view: str) -> list[tuple[str, str]]:
    """(source, generator) of every generator's row, unseen generators first, then by name."""
    runs = list(runs)
    places = {place for run in runs for place in run.rows}
    keys = {place[2:] for place in places if place[:2] == (split, view) and place[3] != ALL}
    return sorted(
        keys, key=lambda key: (not is_unseen(runs, (split, view, *key)), key[1].casefold(), key[0])
    )


def is_unseen(runs: Iterable[ReportedRun], place: Place) -> bool:
    """Whether no run, of those that say, was trained or validated on the generator of this row."""
    return tag_of(runs, place) == UNSEEN


def tag_of(runs: Iterable[ReportedRun], place: Place) -> str:
    """What the runs have met of the generator of this row before testing.

    A generator that was held out for validation chose epoch and threshold: it is not unseen.
    Empty where no run says what it was trained on.
    """
    rows = [run.rows[place] for run in runs if place in run.rows]
    if any(row["seen_in_training"] for row in rows):
        return "seen in training"
    if any(row["seen_in_validation"] for row in rows):
        return "seen in validation"
    return UNSEEN if any(row["seen_in_training"] is not None for row in rows) else ""


def _place(row: Row) -> Place:
    return row["split"], row["view"], row["source"], row["generator"]


def _validation_rank(run: ReportedRun) -> tuple[float, float]:
    row = run.validation
    return -(row["auc"] or 0.0), -(row["average_precision"] or 0.0)


def _distinct(found: Sequence[tuple[Path, Mapping[str, Any]]]) -> list[str]:
    """Labels; where several runs share one, with the end of the folder's path that tells apart."""
    labels = [str(config["label"]) for _, config in found]
    parts = [folder.resolve().parts for folder, _ in found]
    names = []
    for label, mine in zip(labels, parts, strict=True):
        rivals = [p for p, other in zip(parts, labels, strict=True) if other == label and p != mine]
        n = next(n for n in range(1, len(mine) + 1) if mine[-n:] not in {p[-n:] for p in rivals})
        names.append(f"{label} ({PurePath(*mine[-n:])})" if rivals else label)
    return names


def _read_origin(folder: Path) -> Mapping[str, Any]:
    """What metrics.json says the predictions were made from; nothing if it is of older ones."""
    path = folder / "metrics.json"
    record = read_json(path) if path.exists() else {}
    if record.get("predictions") != file_digest(folder / "predictions.parquet"):
        return {}
    return record.get("evaluated_on") or {}


def _read_history(folder: Path) -> tuple[Row, ...]:
    path = folder / "history.jsonl"
    if not path.exists():
        return ()
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        return tuple(json.loads(line) for line in lines if line.strip())
    except ValueError as error:
        raise ReportError(
            f"run {folder.name}: expected one JSON object a line, found something else in "
            f"{path}. Train the head again."
        ) from error
