"""Measured beside published: all published rows at a glance, then each test set by test set."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from clare_cache.evaluate import Comparison, compare_run
from clare_cache.published.expectation import Expectation
from clare_cache.published.tables import find_table, read_table
from clare_cache.report.runs import ReportedRun
from clare_cache.report.tables import DASH, Cell, Column, Table, percent
from clare_cache.types import CLEAN

MEASURED_AS = {
    "average_precision": "average precision",
    "accuracy_0.5": "accuracy at 0.5",
    "oracle_accuracy": "accuracy at the best threshold (oracle)",
}
NOT_TESTED = "not tested"
"""How the reason begins of a test set that the run has not."""
VERDICTS = ("within", "above", "below", "not comparable")
OPEN_BLOCKS = 4
"""So many published rows are shown unfolded."""
MAX_BLOCKS = 36
"""So many are shown test set by test set; the others of a large sweep are in the summary alone."""
MAX_RIVALS = 24
"""Tables of result files hold hundreds of runs; beyond this they are not baselines to look at."""

Pair = tuple[ReportedRun, Comparison]


@dataclass(frozen=True)
class Block:
    """A published row in one metric and view, beside the heads that it is about."""

    title: str
    detail: str
    anchor: str
    table: Table
    others: Table | None
    is_open: bool


@dataclass(frozen=True)
class Beside:
    """The section: what to know first, all rows at a glance, each in full."""

    notes: tuple[str, ...]
    summary: Table
    blocks: tuple[Block, ...]


def set_beside(
    runs: Sequence[ReportedRun], expected: Mapping[Path, Sequence[Expectation]]
) -> Beside | None:
    """The runs' scores beside the published rows expected of each run folder; None without any.

    Raises ReportError for tables and rows that do not exist.
    """
    grouped: dict[tuple[str, str, str, str], list[Pair]] = {}
    for run in runs:
        for item in compare_run(run.evaluation, expected.get(run.evaluation.run, ())):
            key = (item.table, item.row, item.view, item.metric)
            grouped.setdefault(key, []).append((run, item))
    if not grouped:
        return None
    blocks = [
        _block(pairs, number=number, is_open=number < OPEN_BLOCKS)
        for number, pairs in enumerate(list(grouped.values())[:MAX_BLOCKS])
    ]
    return Beside(
        notes=tuple(_notes({table for table, *_ in grouped})),
        summary=_summary(list(grouped.values()), blocks),
        blocks=tuple(blocks),
    )


def _notes(names: set[str]) -> Iterator[str]:
    """What is odd about the tables, said once where several share it."""
    citations: dict[str, list[str]] = {}
    for name in sorted(names):
        table = find_table(name)
        for text in (*table.notes, *table.misprints):
            citations.setdefault(text, []).append(table.citation)
    for text, sources in citations.items():
        yield f"{'; '.join(sources)}: {text}"


def _summary(grouped: Sequence[Sequence[Pair]], blocks: Sequence[Block]) -> Table:
    rows = []
    anchors = dict(enumerate(block.anchor for block in blocks))
    for number, pairs in enumerate(grouped):
        first = pairs[0][1]
        for run in _runs(pairs):
            mine = [item for other, item in pairs if other.slot == run.slot]
            published, measured, verdict, over = _average(mine)
            counts = _counts(mine)
            rows.append(
                (
                    Cell(
                        run.label,
                        f"{first.row}. {_detail(first)}",
                        numeric=False,
                        slot=run.slot,
                        link=anchors.get(number, ""),
                    ),
                    Cell(percent(published)),
                    Cell(percent(measured), over, verdict=verdict),
                    Cell(_signed(published, measured)),
                    *(Cell(str(counts[name]) if counts[name] else DASH) for name in VERDICTS),
                )
            )
    columns = (
        Column("Head and published row", numeric=False),
        Column("Published", "Average"),
        Column("Measured", "Average"),
        Column("Difference", "Average"),
        *(Column(verdict.capitalize(), "Test sets") for verdict in VERDICTS),
    )
    note = (
        "Percent. Within: the published number lies in the 95% interval of the measured one; above "
        "and below: the measured one is significantly higher or lower. Averages run over the test "
        "sets that have both numbers."
    )
    return Table("At a glance", columns, tuple(rows), note)


def _block(pairs: Sequence[Pair], *, number: int, is_open: bool) -> Block:
    first = pairs[0][1]
    runs = _runs(pairs)
    found = {(run.slot, item.test_set): item for run, item in pairs}
    averages = find_table(first.table).averages
    names = sorted(
        dict.fromkeys(item.test_set for _, item in pairs), key=lambda name: name not in averages
    )
    untested = [
        name
        for name in names
        if name not in averages
        and all(found[run.slot, name].reason.startswith(NOT_TESTED) for run in runs)
    ]
    names = [name for name in names if name not in untested]
    lowest = min(
        (x for _, i in pairs for x in (i.published, i.low, i.measured) if x is not None), default=0
    )
    scale = (max(0, int(10 * lowest - 1e-9)) / 10, 1.0)
    shared = {item.reason for _, item in pairs}
    everywhere = shared.pop() if len(shared) == 1 else ""
    rows = []
    for name in names:
        items = [found[run.slot, name] for run in runs]
        rows.append(
            (
                Cell("average" if name in averages else name, numeric=False),
                Cell(percent(items[0].published), hint=f"printed {items[0].printed}"),
                *(
                    _measured(item, run, scale, everywhere)
                    for item, run in zip(items, runs, strict=True)
                ),
            )
        )
    columns = (
        Column("Test set", numeric=False),
        Column("Published"),
        *(Column(run.label, "Measured", slot=run.slot) for run in runs),
    )
    note = (
        f"Percent; bars run from {100 * scale[0]:.0f} to 100, the line across is the published "
        f"number.{f' Not comparable: {everywhere}.' if everywhere else ''}"
        + (f" Not tested here: {', '.join(untested)}." if untested else "")
    )
    return Block(
        title=first.row,
        detail=_detail(first),
        anchor=f"published-{number}",
        table=Table(first.row, columns, tuple(rows), note),
        others=_others(first, runs, found, names),
        is_open=is_open,
    )


def _detail(item: Comparison) -> str:
    """Where the row stands and what it measures."""
    view = "" if item.view == CLEAN else f", view {item.view}"
    return f"{item.citation}: {MEASURED_AS[item.metric]}{view}"


def _runs(pairs: Sequence[Pair]) -> list[ReportedRun]:
    """Each run once, in the page's order."""
    return list({run.slot: run for run, _ in pairs}.values())


def _measured(
    item: Comparison, run: ReportedRun, scale: tuple[float, float], everywhere: str
) -> Cell:
    """The measured number with interval, verdict and, if it is not that of all, the reason."""
    start, stop = scale
    track = tick = None
    if item.measured is not None and item.low is not None and item.high is not None:
        low, middle, high = (
            round(100 * (x - start) / (stop - start), 1)
            for x in (item.low, item.measured, item.high)
        )
        track = (low, middle, high)
        if item.published is not None:
            tick = round(100 * (item.published - start) / (stop - start), 1)
    interval = "" if item.low is None else f"{percent(item.low)}–{percent(item.high)}"
    reason = "" if item.reason == everywhere else item.reason
    return Cell(
        percent(item.measured),
        ", ".join(part for part in (interval, reason) if part),
        track=track,
        tick=tick,
        slot=run.slot,
        verdict=item.verdict,
    )


def _others(
    first: Comparison,
    runs: Sequence[ReportedRun],
    found: Mapping[tuple[int, str], Comparison],
    names: Sequence[str],
) -> Table | None:
    """The other rows of the same table in the same metric and view: the baselines."""
    table = find_table(first.table)
    rows = read_table(first.table)
    averages = table.averages
    words = [word for word, column in table.metrics.items() if column == first.metric]
    rows = rows[(rows["view"] == first.view) & rows["metric"].isin(words)]
    titles = [
        ", ".join(part for part in row if part)
        for row in rows[["method", "variant", "training"]].itertuples(index=False, name=None)
    ]
    rows = rows.assign(title=titles)
    rivals = [title for title in dict.fromkeys(titles) if title != first.row]
    if not rivals or len(rivals) > MAX_RIVALS:
        return None
    values = {
        (title, test_set): None if pd.isna(value) else float(value)
        for title, test_set, value in rows[["title", "test_set", "value"]].itertuples(
            index=False, name=None
        )
    }
    columns = (
        Column("Test set", numeric=False),
        *(Column(run.label, "Measured here", slot=run.slot) for run in runs),
        Column(first.row, "Published"),
        *(Column(title, "Published") for title in rivals),
    )
    body = []
    for name in names:
        mine = [found[run.slot, name] for run in runs]
        body.append(
            (
                Cell("average" if name in averages else name, numeric=False),
                *(Cell(percent(item.measured)) for item in mine),
                Cell(percent(mine[0].published)),
                *(Cell(percent(values.get((title, name)))) for title in rivals),
            )
        )
    return Table("Other methods of the same table", columns, tuple(body), "Percent, as printed.")


def _average(items: Sequence[Comparison]) -> tuple[float | None, float | None, str, str]:
    """Published and measured mean over the test sets that have both, else the published alone;
    the verdict on the average, where the table prints one; over how many sets it runs, if not all.
    """
    averages = find_table(items[0].table).averages
    for item in items:
        if item.test_set in averages and item.measured is not None:
            return item.published, item.measured, item.verdict, ""
    single = [item for item in items if item.test_set not in averages]
    both = [
        (item.published, item.measured)
        for item in single
        if item.published is not None and item.measured is not None
    ]
    if both:
        over = "" if len(both) == len(single) else f"{len(both)} of {len(single)} test sets"
        return sum(p for p, _ in both) / len(both), sum(m for _, m in both) / len(both), "", over
    printed = [item.published for item in items if item.test_set in averages]
    known = printed or [item.published for item in single if item.published is not None]
    values = [value for value in known if value is not None]
    return (sum(values) / len(values) if values else None), None, "", ""


def _counts(items: Sequence[Comparison]) -> dict[str, int]:
    averages = find_table(items[0].table).averages
    counted = [item for item in items if item.test_set not in averages] or items
    counts = dict.fromkeys(VERDICTS, 0)
    for item in counted:
        counts[item.verdict] += 1
    return counts


def _signed(published: float | None, measured: float | None) -> str:
    if published is None or measured is None:
        return DASH
    return f"{100 * (measured - published):+.1f}".replace("-", "−")
