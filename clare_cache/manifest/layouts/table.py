"""Somebody's table: a path and a label in each row, other manifest columns taken over."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from clare_cache.errors import ManifestError, raise_faults
from clare_cache.manifest.boxes import as_cell
from clare_cache.manifest.layouts.listing import Entry, Listing, Options
from clare_cache.manifest.table import COLUMNS, faulty_rows, is_misplaced, path_faults, read_table
from clare_cache.types import FAKE, REAL

LABEL_WORDS = {"0": REAL, "real": REAL, "1": FAKE, "fake": FAKE, "0.0": REAL, "1.0": FAKE}
_TAKEN = ("split", "source", "generator", "family", "group", "frame", "image_id", "boxes")


class Table:
    """A .csv, .parquet, .jsonl or .json file with `path` and `label` (0, 1, real or fake).

    Paths are relative to the root, or absolute inside it; `./a.png` is `a.png`. Size and format
    are measured, whatever the table says.
    """

    name = "csv"
    summary = "a table (.csv, .parquet, .jsonl, .json) with path and label columns: --table FILE"
    tree = "the files that the table names"
    takes = frozenset({"tables", "columns"})

    def survey(self, root: Path, options: Options) -> Listing:
        if len(options.tables) != 1:
            raise ManifestError(
                f"manifest build csv: expected one --table FILE, found {len(options.tables)}. "
                "Name the table that lists the images."
            )
        [path] = options.tables
        asked = f"build a manifest of {path}"
        read = _json_records if path.suffix.lower() == ".json" else read_table
        table = renamed(read(path), options.columns, asked=asked)
        ignored = tuple(str(name) for name in table.columns if name not in COLUMNS)
        return list_rows(table.drop(columns=[*ignored]), root, ignored=ignored)


def _json_records(path: Path) -> pd.DataFrame:
    """A JSON list of objects, as ForensicHub keeps its lists."""
    try:
        records = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ManifestError(f"{path}: there is no such file. Correct the path.") from error
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path}: cannot be read as .json: {error}") from error
    if not isinstance(records, list) or not all(isinstance(r, dict) for r in records):
        raise ManifestError(
            f"{path}: expected a list of objects with path and label, found something else. "
            "JSON lists of face videos are for the layouts df40 and deepfakebench."
        )
    return pd.DataFrame(records, dtype=object)


def list_rows(table: pd.DataFrame, root: Path, *, ignored: tuple[str, ...] = ()) -> Listing:
    """The entries of a table whose columns are the manifest's, with a fault for each bad row."""
    table = table.reset_index(drop=True)
    labels = labels_of(table["label"])
    table = table.assign(path=[relative_path(value, root) for value in table["path"]])
    is_absent = [
        not misplaced and _is_absent(root / str(value))
        for value, misplaced in zip(table["path"], is_misplaced(table["path"]), strict=True)
    ]
    faults = [
        faulty_rows(labels.isna(), table["label"], "0, 1, real or fake"),
        path_faults(table["path"]),
        faulty_rows(is_absent, table["path"], f"a file under {root}"),
    ]
    if any(faults):
        return Listing([], faults=faults, advice="Rows count from 1.")
    rows = table.assign(label=labels).to_dict("records")
    entries = [entry_of({str(name): value for name, value in row.items()}) for row in rows]
    return Listing(entries, ignored_columns=ignored, keeps_repeats=True)


def entry_of(row: Mapping[str, Any]) -> Entry:
    """One row of a table as an entry; what is empty or missing is left to the defaults."""
    cells = {name: as_cell(row[name]) for name in _TAKEN if name in row}
    given = {name: value for name, value in cells.items() if not _is_nothing(value)}
    texts = {name: str(value) for name, value in given.items() if name != "frame"}
    return Entry(str(row["path"]), int(row["label"]), **texts, frame=given.get("frame"))


def labels_of(values: pd.Series) -> pd.Series:
    """0 or 1 for each label word, missing for anything else."""
    return values.map(lambda value: LABEL_WORDS.get(str(value).strip().lower()))


def renamed(table: pd.DataFrame, columns: Mapping[str, str], *, asked: str) -> pd.DataFrame:
    """The table under manifest column names; ManifestError for whatever does not fit."""
    faults = [
        f"columns: the table has no column {old!r}" for old in columns if old not in table.columns
    ]
    faults += [
        f"columns: {new!r} is no manifest column" for new in columns.values() if new not in COLUMNS
    ]
    result = table.rename(columns=dict(columns))
    names = [str(name) for name in result.columns]
    faults += [f"{name}: the column is there twice" for name in COLUMNS if names.count(name) > 1]
    faults += [f"{name}: the column is missing" for name in ("path", "label") if name not in names]
    raise_faults(
        ManifestError, asked, faults, advice=f"Columns found: {', '.join(map(str, table.columns))}."
    )
    return result


def relative_path(path: Any, root: Path) -> Any:
    """The path in its one spelling, relative to the root if it lies inside; else as it is."""
    if not isinstance(path, str) or not path:
        return path
    if Path(path).is_relative_to(root.absolute()):
        return Path(path).relative_to(root.absolute()).as_posix()
    return PurePosixPath(path).as_posix()


def _is_nothing(value: Any) -> bool:
    return bool(pd.isna(value)) or value == ""


def _is_absent(path: Path) -> bool:
    try:
        return not path.is_file()
    except OSError:
        return False  # it cannot be looked at; reading it will say why
