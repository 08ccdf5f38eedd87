"""Trainings down, test generators across: a table for each head that was trained repeatedly."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from clare_cache.evaluate import cross_table
from clare_cache.report.runs import ReportedRun
from clare_cache.report.tables import DASH, Cell, Column, Table, percent


def matrices(
    runs: Sequence[ReportedRun], *, group: Callable[[str, str], str] | None = None
) -> list[Table]:
    """A table of average precision for every head with runs on different sets of generators.

    `group` puts test generators together, as `cross_table` says; with it every head has a table.
    """
    options: dict[str, Any] = {} if group is None else {"group": group}
    found = cross_table([run.evaluation for run in runs], **options)
    return [
        _matrix(str(label), part)
        for label, part in found.groupby("label", sort=False)
        if group is not None or part["trained_on"].nunique() > 1
    ]


def _matrix(label: str, found: pd.DataFrame) -> Table:
    everything = sorted({g for text in found["trained_on"] for g in text.split(", ")})
    columns = sorted(found["tested_on"].unique(), key=str.casefold)
    rows = []
    for trained in sorted(found["trained_on"].unique(), key=str.casefold):
        mine = found[found["trained_on"] == trained]
        cells = dict(iter(mine.groupby("tested_on")))
        # Of a training that is not recorded nothing is known to be unseen.
        unseen = mine.loc[~mine["seen"] & bool(trained), "average_precision"]
        rows.append(
            (
                Cell(_named(trained, everything), numeric=False, hint=trained),
                *(_cell(cells.get(name)) for name in columns),
                Cell(percent(unseen.mean()) if len(unseen) else DASH),
            )
        )
    note = (
        "Average precision in percent, each generator against the reals of its own source; several "
        "runs of one training, and generators of one column, are averaged. Outlined: trained on."
    )
    heads = (
        Column("Trained on", numeric=False),
        *(Column(name, "Tested on") for name in columns),
        Column("Mean", "Unseen"),
    )
    return Table(f"Across training sets: {label}", heads, tuple(rows), note)


def _cell(part: pd.DataFrame | None) -> Cell:
    if part is None or part["average_precision"].isna().all():
        return Cell(DASH, hint="not scored")
    value = float(part["average_precision"].mean())
    return Cell(percent(value), shade=round(max(0.0, 2 * value - 1), 2), outlined=all(part["seen"]))


def _named(trained: str, everything: Sequence[str]) -> str:
    """The training in few words: its generators, or all but those that are missing."""
    if not trained:
        return "not recorded"
    mine = trained.split(", ")
    others = [name for name in everything if name not in mine]
    if others and len(others) < len(mine):
        return f"all but {', '.join(others)}"
    return trained if len(mine) <= 4 else f"{len(mine)} generators"
