"""Somebody's table: a path and a label in each row, other manifest columns taken over."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import pandas as pd

from clare_cache.errors import ManifestError, raise_faults
from clare_cache.manifest.boxes import as_cell
from clare_cache.manifest.layouts.listing import Entry, Listing, Options
from clare_cache.manifest.layouts.places import SPLIT_FOLDERS
from clare_cache.manifest.table import COLUMNS, faulty_rows, path_faults, read_table
from clare_cache.types import FAKE, REAL

LABEL_WORDS = {"0": REAL, "real": REAL, "1": FAKE, "fake": FAKE, "0.0": REAL, "1.0": FAKE}
_TAKEN = ("split", "source", "generator", "family", "group", "frame", "image_id", "boxes")


class Table:
    """A .csv, .parquet, .jsonl or .json file with `path` and `label` (0, 1, real, fake, or words
    that the user explains).

    Paths are relative to the root, or absolute inside it; `./a.png` is `a.png`, and the folders of
    another machine go. Size and format are measured, whatever the table says.
    """

    name = "csv"
    summary = "a table (.csv, .parquet, .jsonl, .json) with path and label columns: --table FILE"
    tree = "the files that the table names"
    takes = frozenset({"tables", "columns", "labels"})

    def survey(self, root: Path, options: Options) -> Listing:
        if len(options.tables) != 1:
            raise ManifestError(
                f"manifest build csv: expected one --table FILE, found {len(options.tables)}. "
                "Name the table that lists the images."
            )
        [path] = options.tables
        asked = f"build a manifest of {path}"
        if not root.is_dir():
            raise ManifestError(f"{asked}: expected its files under {root}, found no such folder.")
        read = _json_records if path.suffix.lower() == ".json" else read_table
        table = renamed(read(path), options.columns, asked=asked)
        ignored = tuple(str(name) for name in table.columns if name not in COLUMNS)
        table = table.drop(columns=[*ignored]).reset_index(drop=True)
        if table.empty:
            raise ManifestError(f"{asked}: expected a row for each image, found no row.")
        return _list_rows(table, root, options.labels, table_name=path.name, ignored=ignored)


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


def _list_rows(
    table: pd.DataFrame,
    root: Path,
    words: Mapping[str, int],
    *,
    table_name: str,
    ignored: tuple[str, ...],
) -> Listing:
    """The entries of a table whose columns are the manifest's, with a fault for each bad row.

    Files that are not there are marked so; a fault only when none is.
    """
    prefix = foreign_prefix([str(value) for value in table["path"]], root)
    labels = labels_of(table["label"], words)
    table = table.assign(path=[relative_path(value, root, prefix) for value in table["path"]])
    bad_labels, bad_paths = label_faults(labels, table["label"]), path_faults(table["path"])
    listing = Listing([], ignored_columns=ignored, keeps_repeats=True)
    if prefix:
        listing.left_out[f"from the paths of {table_name}, the folder {prefix}"] += 1
    if not bad_labels and not bad_paths:
        for row in table.assign(label=labels).to_dict("records"):
            entry = entry_of({str(name): value for name, value in row.items()})
            gone = table_name if _is_absent(root / entry.path) else ""
            split = SPLIT_FOLDERS.get(entry.split.lower(), entry.split)
            listing.entries.append(replace(entry, split=split, absent_from=gone))
    listing.faults = [bad_labels, bad_paths, _none_there(listing.entries, root)]
    advice = ["Rows count from 1."] if bad_labels or bad_paths else []
    if bad_labels:
        advice.append("--label WORD=real and --label WORD=fake say what your words mean.")
    listing.advice = " ".join(advice)
    return listing


def _none_there(entries: Sequence[Entry], root: Path) -> list[str]:
    """A fault when the table names files and the root has none of them."""
    if not entries or not all(entry.absent_from for entry in entries):
        return []
    first = entries[0].path
    near = [root.absolute().parent, *sorted(path for path in root.iterdir() if path.is_dir())]
    there = next((folder for folder in near if (folder / first).is_file()), None)
    hint = f". It lies in {there}: give that folder as ROOT" if there else ""
    n_files = "the one file" if len(entries) == 1 else f"any of the {len(entries)} files"
    return [f"path: expected {n_files} under {root}, found none; the first is {first!r}{hint}"]


def entry_of(row: Mapping[str, Any]) -> Entry:
    """One row of a table as an entry; what is empty or missing is left to the defaults."""
    cells = {name: as_cell(row[name]) for name in _TAKEN if name in row}
    given = {name: value for name, value in cells.items() if not _is_nothing(value)}
    texts = {name: str(value) for name, value in given.items() if name != "frame"}
    return Entry(str(row["path"]), int(row["label"]), **texts, frame=given.get("frame"))


def labels_of(values: pd.Series, words: Mapping[str, int] = MappingProxyType({})) -> pd.Series:
    """0 or 1 for each label word, the user's `words` first, missing for anything else."""
    known = {**LABEL_WORDS, **{word.strip().lower(): label for word, label in words.items()}}
    return values.map(lambda value: known.get(str(value).strip().lower()))


def label_faults(labels: pd.Series, found: pd.Series) -> list[str]:
    """One fault for each word that is no label: where it is first, and how often."""
    bad = found[labels.isna().to_numpy()]
    faults = faulty_rows(labels.isna(), found, "0, 1, real or fake")
    rows: dict[str, list[int]] = {}
    for number, value in enumerate(bad):
        rows.setdefault(str(value), []).append(number)
    return [
        faults[same[0]] + (f" and {len(same) - 1} more" if len(same) > 1 else "")
        for same in rows.values()
    ]


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


def relative_path(path: Any, root: Path, prefix: str = "") -> Any:
    """The path in its one spelling, relative to the root if it lies inside; else as it is.

    `prefix` is cut off first.
    """
    if not isinstance(path, str) or not path:
        return path
    path = path.removeprefix(prefix)
    if Path(path).is_relative_to(root.absolute()):
        return Path(path).relative_to(root.absolute()).as_posix()
    return PurePosixPath(path).as_posix()


def foreign_prefix(names: Sequence[str], root: Path) -> str:
    """The leading folders, of other machines' absolute paths, that the root stands for."""
    for name in names:
        parts = PurePosixPath(name).parts
        if not name.startswith("/") or Path(name).is_relative_to(root.absolute()):
            continue
        # At least a folder and the file must remain: a bare name would prove nothing.
        for n in range(1, len(parts) - 1):
            if (root / PurePosixPath(*parts[n:])).is_file():
                return f"{PurePosixPath(*parts[:n])}/".replace("//", "/")
    return ""


def _is_nothing(value: Any) -> bool:
    return bool(pd.isna(value)) or value == ""


def _is_absent(path: Path) -> bool:
    try:
        return not path.is_file()
    except OSError:
        return False  # it cannot be looked at; reading it will say why
