"""The scores as a table for a paper: heads down, generators across, as LaTeX, Markdown or CSV.

Runs that differ in their seed alone are one row: mean ± standard deviation. Nothing is bold: which
head is best was for validation to say.
"""

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from clare_cache.evaluate import ALL
from clare_cache.report.runs import (
    UNSEEN,
    ReportedRun,
    first_view_of,
    generators_of,
    judged_splits_of,
    read_runs,
    tag_of,
)
from clare_cache.report.seeds import Configuration, configurations, spread
from clare_cache.report.tables import DASH, METRICS

PAPER_METRICS = ("average_precision", "accuracy_validation_threshold")
Lines = list[list[str]]


def paper_table(runs: Sequence[Path], *, suffix: str) -> str:
    """The text of a .tex, .md or .csv file: for each test split the average precision and the
    accuracy at the validation threshold, in percent, unperturbed images.

    A generator is marked † when no head has met it before testing. Raises ReportError that lists
    every unusable run folder.
    """
    found = read_runs(runs)
    parts = [
        (split, METRICS[metric], _lines(found, split, metric))
        for split in judged_splits_of(found)
        for metric in PAPER_METRICS
    ]
    return FORMS[suffix](parts)


def _lines(runs: Sequence[ReportedRun], split: str, metric: str) -> Lines:
    """The table's cells, its heading first."""
    view = first_view_of(runs)
    places = generators_of(runs, split, view)
    several = len({source for source, _ in places}) > 1
    heading = ["Head"]
    for source, generator in places:
        mark = "†" if tag_of(runs, (split, view, source, generator)) == UNSEEN else ""
        heading.append(f"{generator}, {source}{mark}" if several else f"{generator}{mark}")
    lines = [[*heading, "Mean", "All"]]
    for one in configurations(runs):
        values = [_values(one, (split, view, *place), metric) for place in places]
        scored = np.array(values, np.float64).reshape(len(places), -1)
        means = [] if np.isnan(scored).any() or not places else scored.mean(axis=0).tolist()
        pooled = _values(one, (split, view, ALL, ALL), metric)
        lines.append([one.name, *map(_cell, values), _cell(means), _cell(pooled)])
    return lines


def _values(
    one: Configuration, place: tuple[str, str, str, str], metric: str
) -> list[float | None]:
    """The metric of each seed; None where it is not defined or not scored."""
    return [run.rows[place][metric] if place in run.rows else None for run in one.runs]


def _cell(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return spread(known) if known and len(known) == len(values) else DASH


def _caption(split: str, metric: str) -> str:
    return f"{metric} in percent, {split} split"


def _tex(parts: Sequence[tuple[str, str, Lines]]) -> str:
    """Tables for the package booktabs."""
    text = []
    for split, metric, lines in parts:
        heading, *rows = [[_escaped(cell) for cell in line] for line in lines]
        text += [
            f"% {_caption(split, metric)}; $\\dagger$: not seen in training or validation",
            f"\\begin{{tabular}}{{l{'r' * (len(heading) - 1)}}}",
            "\\toprule",
            f"{' & '.join(heading)} \\\\",
            "\\midrule",
            *(f"{' & '.join(row)} \\\\" for row in rows),
            "\\bottomrule",
            "\\end{tabular}",
            "",
        ]
    return "\n".join(text)


def _escaped(cell: str) -> str:
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {"\\": "\\textbackslash{}"}
    special |= {"~": "\\textasciitilde{}", "^": "\\textasciicircum{}"}
    special |= {"†": "$^\\dagger$", "±": "$\\pm$", DASH: "--"}
    return "".join(special.get(c, c) for c in cell)


def _markdown(parts: Sequence[tuple[str, str, Lines]]) -> str:
    text = []
    for split, metric, lines in parts:
        heading, *rows = [[cell.replace("|", "\\|") for cell in line] for line in lines]
        text += [
            f"{_caption(split, metric)}; †: not seen in training or validation",
            "",
            f"| {' | '.join(heading)} |",
            f"|---|{'--:|' * (len(heading) - 1)}",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
        ]
    return "\n".join(text)


def _csv(parts: Sequence[tuple[str, str, Lines]]) -> str:
    """One table below the other in long form: a line for each head, metric and generator."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["split", "metric", "head", "generator", "percent", "deviation"])
    for split, metric, (heading, *rows) in parts:
        for name, *cells in rows:
            for generator, cell in zip(heading[1:], cells, strict=True):
                mean, _, deviation = cell.replace(DASH, "").partition(" ± ")
                place = generator.removesuffix("†")
                writer.writerow([split, metric, name, place, mean, deviation])
    return file.getvalue()


FORMS: dict[str, Callable[[Sequence[tuple[str, str, Lines]]], str]] = {
    ".tex": _tex,
    ".md": _markdown,
    ".csv": _csv,
}
