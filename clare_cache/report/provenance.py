"""Where a report's numbers come from, and which images are absent from them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from clare_cache.report.runs import ORIGIN, ReportedRun
from clare_cache.report.tables import DASH, Cell, Column, Table

MAX_MISSING_ROWS = 50
SEPARATOR = " · "


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
            declared[key] = SEPARATOR.join(_flat(item.get("declared", {}))) or DASH
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


def trainings(runs: Sequence[ReportedRun]) -> list[Table]:
    """How each head was made, and what is the same for all of them; a single one's in one table.

    Where a run was evaluated on another manifest or store than it was trained on, both are named.
    """
    is_elsewhere = any(
        run.evaluated_on[name] != run.config.get(name) for run in runs for name in ORIGIN
    )
    facts = [_facts(run, is_elsewhere=is_elsewhere) for run in runs]
    shared = {name: [x for x in mine if all(x in other[name] for other in facts)]
              for name, mine in facts[0].items()}  # fmt: skip
    own = [name for name in shared if any(set(found[name]) - set(shared[name]) for found in facts)]
    rows = [
        (
            Cell(run.label, folder if folder != run.label else "", numeric=False, slot=run.slot),
            Cell(
                f"{run.config['threshold']:.4f}",
                str(run.config.get("threshold_from") or "origin not recorded"),
                numeric=False,
            ),
            *(
                Cell(SEPARATOR.join(x for x in found[name] if x not in shared[name]) or DASH,
                     numeric=False)
                for name in own
            ),
        )
        for run, found in zip(runs, facts, strict=True)
        for folder in [run.evaluation.run.name]
    ]  # fmt: skip
    columns = [Column(name, numeric=False) for name in ("Head", "Threshold", *own)]
    alike = [
        (Cell(name, numeric=False), Cell(SEPARATOR.join(values), numeric=False))
        for name, values in shared.items()
        if values
    ]
    titles = (Column("What", numeric=False), Column("Value", numeric=False))
    title = "The same for all runs" if len(runs) > 1 else "How it was made"
    tables = [Table("Runs" if len(runs) > 1 else "Run", tuple(columns), tuple(rows))]
    return [*tables, Table(title, titles, tuple(alike))] if alike else tables


def _facts(run: ReportedRun, *, is_elsewhere: bool) -> dict[str, list[str]]:
    """Kinds of facts → each as `name: value`; one that several runs share is told once."""
    config = run.config
    # What did not happen (`retired` is empty) is not told.
    trained = {k: v for k, v in config.get("train", {}).items() if v != ""}
    origins = {"Manifest": config}
    if is_elsewhere:
        origins = {"Trained on manifest": config, "Evaluated on manifest": run.evaluated_on}
    facts = {"Options": list(_flat(config.get("options", {}))), "Training": list(_flat(trained))}
    for name, origin in origins.items():
        digest = origin.get("manifest_fingerprint")
        known = f" (fingerprint {digest})" if digest else ""
        facts[name] = [f"{origin.get('manifest') or 'not recorded'}{known}"]
        facts[name.replace("manifest", "store").replace("Manifest", "Store")] = [
            str(origin.get("store") or "not recorded")
        ]
    return {**facts, "Versions": list(_flat(config.get("versions", {})))}


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
