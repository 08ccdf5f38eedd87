"""The manifest as a table: its columns, its validation, its three file formats.

Believes what the rows say; whether the files are there is `check`'s business.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clare_cache.errors import ManifestError, raise_faults
from clare_cache.files import read_frame, write_whole
from clare_cache.fingerprint import fingerprint
from clare_cache.manifest import boxes
from clare_cache.types import FAKE, REAL, ImageId

COLUMNS: dict[str, str] = {
    "image_id": "SHA-256 of the file's bytes, 64 lower-case hexadecimal digits",
    "path": "where the file lies, relative to a root given at run time, written with '/'",
    "label": "0 real, 1 fake",
    "split": "train, val, test … or empty",
    "source": "the data set, or the part of it, that the file came with",
    "generator": "what made the picture; 'real' for real ones",
    "family": "gan, diffusion, deepfake … ; 'real' for real ones; empty if unknown",
    "group": "video, identity or scene that must not straddle splits",
    "frame": "number of the frame in its video, or missing",
    "width": "pixels after EXIF orientation, or missing",
    "height": "pixels after EXIF orientation, or missing",
    "format": "PNG, JPEG …, from the header, or missing",
    "bytes": "size of the file, or missing",
    "boxes": "regions of the picture, [[x0, y0, x1, y1], …] in pixels after EXIF orientation",
}
"""Every column of a manifest, in order, with its meaning."""

REQUIRED = ("image_id", "path", "label")
_INTEGERS = ("frame", "width", "height", "bytes")
_TEXTS = tuple(name for name in COLUMNS if name not in (*_INTEGERS, "label"))
_FINGERPRINTED = ("image_id", "label", "split", "group", "generator", "source")
_NO_RELATIVE_PATH = r"^$|^/|^[A-Za-z]:/|\\|[\r\n\x00]|(?:^|/)\.\.(?:/|$)"
N_SHOWN = 20
"""How many faults of one kind a message lists."""


@dataclass(frozen=True, eq=False)
class Manifest:
    """Rows of COLUMNS, in that order, numbered from 0. Treat `rows` as read-only."""

    rows: pd.DataFrame

    @classmethod
    def from_rows(cls, rows: pd.DataFrame) -> "Manifest":
        """A manifest of a copy of these rows, validated, with absent optional columns filled in.

        Defaults: split and source empty, generator `real` or `fake`, family `real` or empty,
        group the image_id, the rest missing. Raises ManifestError listing every fault; row
        numbers count from 1.
        """
        return cls(_tidy(rows, asked="manifest"))

    @classmethod
    def read(cls, path: str | Path) -> "Manifest":
        """The manifest in a .parquet, .csv or .jsonl file, validated as in `from_rows`."""
        advice = "Build one with `clare-cache manifest build`, or correct the path."
        return cls(_tidy(read_table(Path(path), if_absent=advice), asked=f"manifest {path}"))

    def write(self, path: str | Path) -> Path:
        """Replace `path` (.parquet, .csv or .jsonl) in one step; returns it."""
        path = Path(path)
        writer = _WRITERS[_suffix(path)]
        write_whole(path, lambda partial: writer(self.rows, partial))
        return path

    def __len__(self) -> int:
        return len(self.rows)

    def where(self, **wanted: Any) -> "Manifest":
        """The rows whose columns hold the wanted value, or one of a list of them.

        Raises ManifestError for a column that does not exist.
        """
        unknown = [f"{name}: there is no such column" for name in wanted if name not in COLUMNS]
        raise_faults(
            ManifestError, "manifest.where", unknown, advice=f"Columns: {', '.join(COLUMNS)}."
        )
        keep = np.ones(len(self.rows), bool)
        for name, value in wanted.items():
            values = value if isinstance(value, (list, tuple, set, frozenset)) else [value]
            keep &= self.rows[name].isin(list(values)).to_numpy(bool)
        return Manifest(self.rows[keep].reset_index(drop=True))

    @property
    def image_ids(self) -> list[ImageId]:
        """Each image once, in the order of first appearance."""
        return [ImageId(value) for value in self.rows["image_id"].unique()]

    def fingerprint(self) -> str:
        """16 hexadecimal digits, equal when images, labels, splits and origins are.

        Row order and paths do not count: a moved file is the same image.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        has_boxes = self.rows["boxes"].notna().any()
        names = [*_FINGERPRINTED, *(["boxes"] if has_boxes else [])]
        rows = self.rows[names].astype(object)
        rows = rows.where(rows.notna(), None)
        return fingerprint(sorted(rows.itertuples(index=False, name=None)))


def read_table(path: Path, *, if_absent: str = "Correct the path.") -> pd.DataFrame:
    """The unvalidated rows of a .parquet, .csv or .jsonl file; CSV values are all text, separated
    by what its heading has: commas, else semicolons, else tabs.

    Raises ManifestError when there is no such file (with the advice `if_absent`) or it cannot be
    parsed.
    """
    reader = _READERS[_suffix(path)]
    try:
        return reader(path)
    except FileNotFoundError as error:
        raise ManifestError(f"{path}: there is no such file. {if_absent}") from error
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"{path}: expected text in UTF-8, found another encoding. Save it as UTF-8, or convert "
            f"it: `iconv -f LATIN1 -t UTF-8 {path.name}`."
        ) from error
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path}: cannot be read as {path.suffix}: {error}") from error


def refuse(asked: str, *kinds: Sequence[str], advice: str) -> None:
    """Raise ManifestError with the first 20 faults of each kind and the number of all."""
    n_faults = sum(len(faults) for faults in kinds)
    if n_faults == 0:
        return
    lines = [f"{asked}: {n_faults} fault{'s' if n_faults > 1 else ''}"]
    for faults in kinds:
        lines += [f"  - {fault}" for fault in faults[:N_SHOWN]]
        if len(faults) > N_SHOWN:
            lines.append(f"  … and {len(faults) - N_SHOWN} more like these")
    raise ManifestError("\n".join([*lines, advice] if advice else lines))


def faulty_rows(bad: Any, values: pd.Series, expected: str) -> list[str]:
    """One fault for each row where `bad` holds; `values` is the column as found."""
    numbers = np.flatnonzero(np.asarray(bad, bool))
    found = ["nothing" if pd.isna(value) else repr(value) for value in values.iloc[numbers]]
    return [
        f"{values.name}: expected {expected}, found {value} in row {number + 1}"
        for number, value in zip(numbers, found, strict=True)
    ]


def is_misplaced(paths: pd.Series) -> pd.Series:
    """Per row, whether the path is not a relative one that all three formats can hold."""
    return _as_text(paths).str.contains(_NO_RELATIVE_PATH).fillna(True)


def is_misplaced_path(path: str) -> bool:
    """Whether one path is not a relative one that all three formats can hold."""
    return bool(re.search(_NO_RELATIVE_PATH, path))


def path_faults(paths: pd.Series) -> list[str]:
    """One fault for each row whose path `is_misplaced`."""
    expected = "a relative path written with '/', without '..' or line breaks"
    return faulty_rows(is_misplaced(paths), paths, expected)


def _tidy(rows: pd.DataFrame, *, asked: str) -> pd.DataFrame:
    """The rows with every column, in order, of the right type; or ManifestError."""
    names = [str(name) for name in rows.columns]
    misnamed = [f"{name}: there is no such column" for name in names if name not in COLUMNS]
    misnamed += [f"{name}: the column is missing" for name in REQUIRED if name not in names]
    misnamed += [f"{name}: the column is there twice" for name in COLUMNS if names.count(name) > 1]
    found = {name: rows[name].reset_index(drop=True) for name in COLUMNS if names.count(name) == 1}
    if "boxes" in found:
        cells = [boxes.as_cell(value) for value in found["boxes"]]
        found["boxes"] = pd.Series(cells, name="boxes", dtype=object)
    texts = {name: _as_text(found[name]) for name in _TEXTS if name in found}
    numbers = {name: _as_integer(found[name]) for name in (*_INTEGERS, "label") if name in found}
    refuse(
        asked,
        misnamed,
        *(_text_faults(name, values, found[name]) for name, values in texts.items()),
        *(_number_faults(name, values, found[name]) for name, values in numbers.items()),
        advice=f"Columns of a manifest: {', '.join(COLUMNS)}. Rows count from 1.",
    )
    return _filled_in(texts | numbers)


def _as_text(values: pd.Series) -> pd.Series:
    if isinstance(values.dtype, pd.StringDtype):
        return values.astype("string")  # a Python object for each would take ten times the memory
    return values.astype(object).map(str, na_action="ignore").astype("string")


def _as_integer(values: pd.Series) -> pd.Series:
    """Int64; what is no whole number, and what is nothing, becomes missing."""
    if not pd.api.types.is_numeric_dtype(values.dtype):
        values = values.astype(object)
    numbers = pd.to_numeric(values, errors="coerce").astype("Float64")
    is_whole = (numbers == numbers.round()) & (numbers.abs() < 2**53)
    return numbers.where(is_whole.fillna(False)).astype("Int64")


def _text_faults(name: str, values: pd.Series, found: pd.Series) -> list[str]:
    if name == "path":
        return path_faults(found)
    if name == "image_id":
        well_formed = values.str.fullmatch("[0-9a-f]{64}").fillna(False)
        return faulty_rows(~well_formed, found, "64 lower-case hexadecimal digits")
    if name == "boxes":
        given = values.notna() & (values != "")
        bad = given.fillna(False) & values.map(boxes.is_faulty, na_action="ignore").eq(True)
        return faulty_rows(bad, values, boxes.EXPECTED)
    return faulty_rows(values.str.contains(r"[\r\n\x00]").fillna(False), found, "no line break")


def _number_faults(name: str, values: pd.Series, found: pd.Series) -> list[str]:
    if name == "label":
        return faulty_rows(~values.isin([REAL, FAKE]), found, "0 (real) or 1 (fake)")
    given = ~found.isna()
    if not pd.api.types.is_numeric_dtype(found.dtype):
        given &= found.astype(object) != ""
    bad = given & ((values < 0) | values.isna()).fillna(True)
    return faulty_rows(bad, found, "a whole number or nothing")


def _filled_in(columns: dict[str, pd.Series]) -> pd.DataFrame:
    label = columns["label"].astype("int8")
    n_rows = len(label)
    for name in _TEXTS:
        columns.setdefault(name, pd.Series([pd.NA] * n_rows, dtype="string"))
    for name in _INTEGERS:
        columns.setdefault(name, pd.Series([pd.NA] * n_rows, dtype="Int64"))
    is_real = label == REAL
    kind = pd.Series(np.where(is_real, "real", "fake"), dtype="string")
    family = pd.Series(np.where(is_real, "real", ""), dtype="string")
    defaults = {"generator": kind, "family": family, "group": columns["image_id"]}
    for name in ("split", "source", "generator", "family", "group", "format", "boxes"):
        columns[name] = columns[name].replace("", pd.NA)
        if name not in ("format", "boxes"):
            columns[name] = columns[name].fillna(defaults.get(name, ""))
    return pd.DataFrame({**columns, "label": label})[list(COLUMNS)]


def refuse_suffix(path: Path) -> None:
    """Raise ManifestError, before any work, where no manifest can be written under this name."""
    _suffix(path)


def _suffix(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        known = ", ".join(_READERS)
        raise ManifestError(f"{path}: expected a file ending in {known}, found {path.name!r}.")
    return suffix


def _read_csv(path: Path) -> pd.DataFrame:
    # All as text: guessed types would turn a group "007" into 7 and a source "NA" into nothing.
    with path.open(encoding="utf-8-sig") as file:
        heading = file.readline()
    # Spreadsheets write ; where a comma is the decimal point.
    separator = next((c for c in ",;\t" if c in heading), ",")
    return pd.read_csv(
        path, dtype="string", keep_default_na=False, encoding="utf-8-sig", sep=separator
    )


def _read_jsonl(path: Path) -> pd.DataFrame:
    with path.open(encoding="utf-8-sig") as lines:
        records = list(_records(lines))
    # A file without lines has lost its column names; a table without rows is still a table.
    return pd.DataFrame(records, columns=None if records else list(REQUIRED), dtype=object)


def _records(lines: Any) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number}: {error}") from error
        if not isinstance(record, dict):
            raise ValueError(f"line {number}: expected an object, found {line.strip()[:40]!r}")
        yield record


def _write_jsonl(rows: pd.DataFrame, path: Path) -> None:
    values = rows.astype(object).where(rows.notna(), None)
    with path.open("w", encoding="utf-8") as file:
        for record in values.to_dict("records"):
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


_READERS: dict[str, Callable[[Path], pd.DataFrame]] = {
    ".parquet": read_frame,
    ".csv": _read_csv,
    ".jsonl": _read_jsonl,
}
_WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    ".parquet": lambda rows, path: rows.to_parquet(path, index=False),
    ".csv": lambda rows, path: rows.to_csv(path, index=False, lineterminator="\n"),
    ".jsonl": _write_jsonl,
}
