"""Where a report's numbers come from, and which images are absent from them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from clare_cache.report.runs import ORIGIN, ReportedRun
from clare_cache.report.tables import DASH, Cell, Column, Table

MAX_MISSING_ROWS = 50


def missing_images(runs: Sequence[ReportedRun]) -> Table | None:
    """The ledger: images without a score, with the reason and the heads that miss them."""
    parts = []
    for run in runs:
        table = run.evaluation.predictions
        absent = table.loc[table["score"].isna(), ["path", "split", "label", "view", "missing"]]
        parts.append(absent.assign(head=run.label))
    ledger = pd.concat(parts, ignore_index=True)
    if not len(ledger):
        return None
    keys = ["path", "split", "label", "view", "missing"]
    heads = ledger.groupby(keys, sort=True)["head"].agg(list).reset_index()
    rows = []
    for item in heads.head(MAX_MISSING_ROWS).to_dict("records"):
        every = len(item["head"]) == len(runs)
        rows.append(
            (
                Cell(item["path"], numeric=False),
                Cell("fake" if item["label"] else "real", numeric=False),
                Cell(item["split"], numeric=False),
                Cell(item["view"], numeric=False),
                Cell(item["missing"], numeric=False),
                Cell("all" if every else ", ".join(item["head"]), numeric=False),
            )
        )
    titles = ("Path", "Label", "Split", "View", "Reason", "Heads")
    n_images = heads["path"].nunique()
    shown = f"The first {len(rows)} of {len(heads):,} lines." if len(rows) < len(heads) else ""
    images = "1 image has" if n_images == 1 else f"{n_images:,} images have"
    note = (
        f"{images} no score in at least one view. They count as asked for and lower the coverage; "
        f"nothing stands in for them. {shown}"
    )
    columns = tuple(Column(title, numeric=False) for title in titles)
    return Table("Missing images", columns, tuple(rows), note.strip())


def features(runs: Sequence[ReportedRun]) -> Table:
    """Which cached arrays were used, by fingerprint, with what they were declared to be."""
    users: dict[tuple[str, str], list[ReportedRun]] = {}
    declared: dict[tuple[str, str], str] = {}
    for run in runs:
        for name, item in run.config.get("features", {}).items():
            key = (str(name), str(item.get("fingerprint", "not recorded")))
            users.setdefault(key, []).append(run)
            declared[key] = " · ".join(_flat(item.get("declared", {}))) or DASH
    rows = [
        (
            Cell(name, digest, numeric=False),
            Cell(declared[name, digest], numeric=False),
            Cell(", ".join(run.label for run in users[name, digest]), numeric=False),
        )
        for name, digest in sorted(users)
    ]
    columns = tuple(Column(t, numeric=False) for t in ("Array", "Declared inputs", "Used by"))
    return Table("Cached features", columns, tuple(rows))


def trainings(runs: Sequence[ReportedRun], store: str | None = None) -> Table:
    """How each head was made; `store` is named for runs that do not name theirs.

    Where a run was evaluated on another manifest or store than it was trained on, both are named.
    """
    is_elsewhere = any(
        run.evaluated_on[name] != run.config.get(name) for run in runs for name in ORIGIN
    )
    rows = []
    for run in runs:
        config = run.config
        # What did not happen (`retired` is empty) is not told.
        trained = {k: v for k, v in config.get("train", {}).items() if v != ""}
        rows.append(
            (
                Cell(run.label, run.evaluation.run.name, numeric=False, slot=run.slot),
                Cell(" · ".join(_flat(config.get("options", {}))) or DASH, numeric=False),
                Cell(" · ".join(_flat(trained)) or DASH, numeric=False),
                Cell(
                    f"{config['threshold']:.4f}",
                    str(config.get("threshold_from") or "origin not recorded"),
                    numeric=False,
                ),
                *_origin_cells(config, store),
                *(_origin_cells(run.evaluated_on, store) if is_elsewhere else ()),
                Cell(" · ".join(_flat(config.get("versions", {}))) or DASH, numeric=False),
            )
        )
    bands = ("Trained on", "Evaluated on") if is_elsewhere else ("",)
    columns = (
        *(Column(title, numeric=False) for title in ("Head", "Options", "Training", "Threshold")),
        *(Column(title, band, numeric=False) for band in bands for title in ("Manifest", "Store")),
        Column("Versions", numeric=False),
    )
    return Table("Runs", columns, tuple(rows))


MANIFESTS_NAMED = 3


def mixed_manifests(runs: Sequence[ReportedRun]) -> list[str]:
    """Warnings where the runs' validation or test numbers come from different manifests."""
    kinds: dict[str, list[str]] = {}
    origins = (
        ("validation", [run.validated_on for run in runs]),
        ("test", [run.evaluated_on for run in runs]),
    )
    for kind, found in origins:
        users: dict[tuple[str, str], list[str]] = {}
        for run, origin in zip(runs, found, strict=True):
            if digest := origin.get("manifest_fingerprint"):
                users.setdefault((digest, str(origin.get("manifest"))), []).append(run.label)
        n_manifests = len({digest for digest, _ in users})
        if n_manifests > 1:
            named = "; ".join(
                f"{', '.join(labels)} on {manifest} (fingerprint {digest})"
                for (digest, manifest), labels in users.items()
            )
            if n_manifests > MANIFESTS_NAMED:
                named = f"there are {n_manifests} of them, listed under Provenance"
            kinds.setdefault(named, []).append(kind)
    return [
        f"The {' and '.join(what)} numbers come from manifests with different images, labels or "
        f"splits, so a higher one need not mean a better head: {named}. "
        "Compare heads within one manifest."
        for named, what in kinds.items()
    ]


def _origin_cells(origin: Mapping[str, Any], store: str | None) -> tuple[Cell, Cell]:
    digest = str(origin.get("manifest_fingerprint") or "")
    return (
        Cell(str(origin.get("manifest") or DASH), digest, numeric=False),
        Cell(str(origin.get("store") or store or DASH), numeric=False),
    )


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """`key: value` of every leaf, nested keys joined by dots, long digests cut to 12 digits."""
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            yield from _flat(item, f"{name}.")
        elif isinstance(item, str):
            is_digest = len(item) >= 32 and set(item) <= set("0123456789abcdef")
            yield f"{name}: {item[:12] + '…' if is_digest else item or '(empty)'}"
        elif isinstance(item, list | tuple):
            yield f"{name}: [{', '.join(map(_leaf, item))}]"
        elif item is not None:
            yield f"{name}: {_leaf(item)}"


def _leaf(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)
