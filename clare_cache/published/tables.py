"""The published tables: what there is, their rows, and the test sets that they name."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from clare_cache.errors import ReportError, raise_faults
from clare_cache.files import read_frame
from clare_cache.published.expectation import Expectation

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path(__file__).parent
SCALE = {"fraction": 1.0, "percent": 0.01}
ROW = ("method", "variant", "training", "view", "test_set", "metric")
"""What names a number within its table."""


@dataclass(frozen=True)
class PublishedTable:
    """What a table is, where it stands, and what to know before comparing with it."""

    name: str
    paper: str
    citation: str
    about: str
    unit: str
    """percent, fraction, or text for what is no score."""
    benchmark: str = ""
    clip: str = ""
    """The CLIP behind it, without the spelling of its activation."""
    metrics: Mapping[str, str] = field(default_factory=dict)
    """The table's word → the column of metrics.csv that measures the same."""
    averages: Mapping[str, str] = field(default_factory=dict)
    """The table's word for a mean → the collection of test sets that it runs over."""
    notes: tuple[str, ...] = ()
    misprints: tuple[str, ...] = ()
    off_by_rounding: tuple[tuple[str, ...], ...] = ()
    """Averages that their own printed rows miss by one in the last digit, by ROW."""


@dataclass(frozen=True)
class TestSet:
    """A test set as the tables call it; `aliases` are its names on disk."""

    __test__ = False

    benchmark: str
    name: str
    aliases: tuple[str, ...]
    n_images: int | None
    """Images behind the published numbers, where known."""
    kind: str
    collections: tuple[str, ...]

    def is_called(self, name: str) -> bool:
        """Whether a generator or source of this name is the test set."""
        return _plain(name) in {_plain(self.name), *map(_plain, self.aliases)}


@cache
def published_tables() -> Mapping[str, PublishedTable]:
    """Every table by name."""
    found = yaml.safe_load((FOLDER / "tables.yaml").read_text(encoding="utf-8"))
    return {name: PublishedTable(name=name, **_frozen(value)) for name, value in found.items()}


@cache
def test_sets(benchmark: str) -> tuple[TestSet, ...]:
    """The test sets of a benchmark, in the order of the papers."""
    with (FOLDER / "test_sets.csv").open(encoding="utf-8", newline="") as file:
        return tuple(
            TestSet(
                benchmark=benchmark,
                name=line["test_set"],
                aliases=tuple(line["aliases"].split()),
                n_images=int(line["n_images"]) if line["n_images"] else None,
                kind=line["kind"],
                collections=tuple(line["collections"].split()),
            )
            for line in csv.DictReader(file)
            if line["benchmark"] == benchmark
        )


def find_table(name: str) -> PublishedTable:
    """The table of that name. Raises ReportError naming those there are."""
    tables = published_tables()
    if name not in tables:
        raise ReportError(
            f"published table {name}: there is none of that name. Tables: {', '.join(tables)}."
        )
    return tables[name]


def read_table(name: str) -> "pd.DataFrame":
    """The rows of a table: ROW, `printed` (text as printed) and `value` (fraction, or NaN)."""
    import pandas as pd

    table = find_table(name)
    path = FOLDER / f"{name}.csv"
    if path.is_file():
        rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    else:
        rows = read_frame(path.with_suffix(".parquet"))
    rows = rows.rename(columns={"value": "printed"})
    scale = SCALE.get(table.unit)
    numbers = pd.to_numeric(rows["printed"], errors="coerce")
    return rows.assign(value=numbers * scale if scale else float("nan"))


def rows_of(expected: Expectation) -> "pd.DataFrame":
    """The numbers of one published row, one a test set, metric and view.

    Raises ReportError when the table has no such row, naming those it has.
    """
    rows = read_table(expected.table)
    mine = rows[
        (rows["method"] == expected.method)
        & (rows["variant"] == expected.variant)
        & (rows["training"] == expected.training)
        & ((rows["view"] == expected.view) | (expected.view == ""))
    ]
    if mine.empty:
        there = rows[["method", "variant", "training"]].drop_duplicates().to_numpy().tolist()
        named = "; ".join(", ".join(part for part in row if part) for row in there[:30])
        raise ReportError(
            f"published table {expected.table}: expected a row {expected.row}, found {named}."
        )
    return mine


def check_expectations(
    expected: Sequence[Expectation], options: Mapping[str, Mapping[str, Any]]
) -> int:
    """How many rows are expected; raises ReportError listing every table, row and average that is
    not as expected.

    `options` are those of each head that something is expected of, by label.
    """
    faults = []
    wanted = _each_row(expected, options)
    for item in wanted:
        try:
            rows = rows_of(item)
        except ReportError as error:
            faults.append(str(error))
            continue
        for metric, average in item.average.items():
            found = printed_average(item.table, rows, metric)
            if found is None or abs(found - average) > 1e-9:
                faults.append(
                    f"{item.table}: {metric} of {item.row}: expected the printed average {found}, "
                    f"found {average:g}"
                )
    raise_faults(ReportError, "published numbers", faults)
    return len(wanted)


def _each_row(
    expected: Sequence[Expectation], options: Mapping[str, Mapping[str, Any]]
) -> list[Expectation]:
    """The rows that are expected, those of a sweep one for each of its heads."""
    found: dict[str, Expectation] = {}
    for item in expected:
        swept = [options[label] for label in options if item.is_about(label)]
        for row in [item.of_head(each) for each in swept] if "{" in item.variant else [item]:
            found.setdefault(row.model_dump_json(exclude={"heads"}), row)
    return list(found.values())


def printed_average(name: str, rows: "pd.DataFrame", metric: str) -> float | None:
    """A row's printed average in the table's unit, or the mean of its test sets as printed.

    Of the clean pictures where there are several views, over all test sets where there are
    several averages.
    """
    table = find_table(name)
    mine = rows[(rows["metric"] == metric) & rows["value"].notna()]
    if (mine["view"] == "clean").any():
        mine = mine[mine["view"] == "clean"]
    averages = mine[mine["test_set"].isin(list(table.averages))]
    if len(averages):
        printed = averages["printed"].iloc[0]
        return float(printed) if isinstance(printed, str) else round(float(printed), 4)
    if mine.empty:
        return None
    digits = max(len(str(text).partition(".")[2]) for text in mine["printed"])
    return round(float(mine["value"].mean()) / SCALE[table.unit], min(digits, 4))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _frozen(value: Mapping[str, Any]) -> dict[str, Any]:
    """Lists of the YAML as tuples; a key that PublishedTable lacks is a fault of the file."""
    unknown = set(value) - {f.name for f in fields(PublishedTable)}
    if unknown:
        raise ReportError(f"tables.yaml: unknown keys {', '.join(sorted(unknown))}")
    return {
        key: tuple(tuple(x) if isinstance(x, list) else x for x in item)
        if isinstance(item, list)
        else item
        for key, item in value.items()
    }
