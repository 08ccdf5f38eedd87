"""A folder, or somebody's table, → a manifest. Hashes files; never unpacks a picture.

Nothing is lost in silence: what cannot be used is a failure, what is no image is counted.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from clare_cache.errors import ManifestError, raise_faults
from clare_cache.manifest.contents import Content, Probe, read_contents
from clare_cache.manifest.layout import LABEL_FOLDERS, Place, contradictions_of, place_of
from clare_cache.manifest.table import (
    COLUMNS,
    Manifest,
    faulty_rows,
    is_misplaced,
    path_faults,
    read_table,
    refuse,
)
from clare_cache.types import FAKE, REAL, Failure, ImageId, OnProgress, ignore_progress

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"}
)
_LABEL_WORDS = {"0": REAL, "real": REAL, "1": FAKE, "fake": FAKE, "0.0": REAL, "1.0": FAKE}


@dataclass(frozen=True)
class BuildResult:
    """A manifest and everything that is not in it.

    `failures` lists files whose header is refused (they keep their row, without size and format)
    and files that cannot be read (they have no row). `other_files` counts files by a suffix that
    is no image's, `ignored_columns` names a table's columns that a manifest does not have.
    """

    manifest: Manifest
    failures: list[Failure]
    other_files: Mapping[str, int]
    ignored_columns: tuple[str, ...] = ()


def build_folder(
    root: str | Path,
    *,
    probe: Probe,
    group_pattern: str | None = None,
    workers: int | None = None,
    on_progress: OnProgress = ignore_progress,
) -> BuildResult:
    """The manifest of all images under `root`, labelled by their folders (see `layout`).

    Hidden files are left out, links are followed but never in a circle. `group_pattern` is a
    regular expression with one capturing group, searched in the relative path: what it captures
    is the group; without it every image is its own group.

    Raises ManifestError for an absent or empty root, a bad pattern, and, all together, for files
    under no label folder, under folders that name both labels or two splits, or that the pattern
    does not match.
    """
    root = Path(root)
    pattern = _compiled(group_pattern)
    paths, other_files, failures = _listed(root)
    places: list[Place] = []
    groups: list[str | None] = []
    unlabelled, contradictory, ungrouped, unnameable = [], [], [], []
    for path in paths:
        if not _is_portable(path):
            unnameable.append(f"{path!r}: the name has a backslash, a line break or no UTF-8")
            continue
        place = place_of(PurePosixPath(path), root_name=root.resolve().name)
        contradictory += [f"{path}: {fault}" for fault in contradictions_of(PurePosixPath(path))]
        match = pattern.search(path) if pattern else None
        if place is None:
            unlabelled.append(f"{path}: is under no folder named {', '.join(LABEL_FOLDERS)}")
        else:
            places.append(place)
        if pattern and not (match and match[1]):
            ungrouped.append(f"{path}: group_pattern {group_pattern!r} captures nothing")
        groups.append(match[1] if match else None)
    nothing = [] if paths else [f"no file ends in {', '.join(sorted(IMAGE_SUFFIXES))}"]
    refuse(
        f"build a manifest of {root}",
        nothing,
        unlabelled,
        contradictory,
        ungrouped,
        unnameable,
        advice="Rename or move the files, or list them with their labels in a table instead.",
    )

    contents = read_contents(
        paths, root=root, probe=probe, workers=workers, on_progress=on_progress, what="hash"
    )
    rows = []
    for content, place, group in zip(contents, places, groups, strict=True):
        if content.failure:
            failures.append(content.failure)
        if content.image_id:
            rows.append({**vars(place), "group": group, **_measured(content)})
    return BuildResult(_manifest_of(rows), failures, other_files)


def build_csv(
    table_path: str | Path,
    root: str | Path,
    *,
    probe: Probe,
    columns: Mapping[str, str] | None = None,
    workers: int | None = None,
    on_progress: OnProgress = ignore_progress,
) -> BuildResult:
    """The manifest of the files that a .csv, .parquet or .jsonl table lists.

    The table needs `path` (relative to `root`, or absolute inside it; `./a.png` is `a.png`) and
    `label` (0, 1, real or fake); other manifest columns are taken over, size and format are
    measured. `columns` renames first, e.g. `{"file_name": "path"}`.

    Raises ManifestError, all faults together, for missing columns, bad labels, absent files and
    an `image_id` that is not the file's.
    """
    root = Path(root)
    asked = f"build a manifest of {table_path}"
    table = _renamed(read_table(Path(table_path)), columns or {}, asked=asked)
    ignored = tuple(str(name) for name in table.columns if name not in COLUMNS)
    table = table.drop(columns=[*ignored]).reset_index(drop=True)
    labels = table["label"].map(lambda value: _LABEL_WORDS.get(str(value).strip().lower()))
    table = table.assign(path=[_relative(value, root) for value in table["path"]])
    absent = [
        not misplaced and _is_absent(root / str(value))
        for value, misplaced in zip(table["path"], is_misplaced(table["path"]), strict=True)
    ]
    refuse(
        asked,
        faulty_rows(labels.isna(), table["label"], "0, 1, real or fake"),
        path_faults(table["path"]),
        faulty_rows(absent, table["path"], f"a file under {root}"),
        advice="Rows count from 1.",
    )
    contents = list(
        read_contents(
            [str(path) for path in table["path"]],
            root=root,
            probe=probe,
            workers=workers,
            on_progress=on_progress,
            what="hash",
        )
    )
    if "image_id" in table.columns:
        known = table["image_id"].replace("", pd.NA).astype("string")
        found = pd.Series([content.image_id for content in contents], dtype="string")
        refuse(
            asked,
            faulty_rows((known != found).fillna(False), table["image_id"], "the file's SHA-256"),
            advice="Rows count from 1. Leave the column out to have it computed.",
        )

    given = table.assign(label=labels).to_dict("records")
    rows = [
        {**{str(key): value for key, value in row.items()}, **_measured(content)}
        for row, content in zip(given, contents, strict=True)
        if content.image_id
    ]
    failures = [content.failure for content in contents if content.failure]
    return BuildResult(_manifest_of(rows), failures, {}, ignored)


def _manifest_of(rows: list[dict[str, Any]]) -> Manifest:
    present = {name for row in rows for name in row}
    names = [name for name in COLUMNS if name in present or name in ("image_id", "path", "label")]
    return Manifest.from_rows(pd.DataFrame(rows, columns=names, dtype=object))


def _measured(content: Content) -> dict[str, Any]:
    header = content.header
    return {
        "image_id": content.image_id,
        "path": content.path,
        "width": header.width if header else None,
        "height": header.height if header else None,
        "format": header.format if header else None,
        "bytes": content.nbytes,
    }


def _compiled(group_pattern: str | None) -> re.Pattern[str] | None:
    if group_pattern is None:
        return None
    try:
        pattern = re.compile(group_pattern)
    except re.error as error:
        raise ManifestError(f"group_pattern {group_pattern!r}: {error}.") from error
    if pattern.groups != 1:
        raise ManifestError(
            f"group_pattern {group_pattern!r}: expected one capturing group, found "
            f"{pattern.groups}. Write '(…)' around the part of the path that names the video."
        )
    return pattern


def _renamed(table: pd.DataFrame, columns: Mapping[str, str], *, asked: str) -> pd.DataFrame:
    """The table under manifest column names; ManifestError for whatever does not fit."""
    faults = [
        f"columns: the table has no column {old!r}" for old in columns if old not in table.columns
    ]
    faults += [
        f"columns: {new!r} is no manifest column" for new in columns.values() if new not in COLUMNS
    ]
    renamed = table.rename(columns=dict(columns))
    names = [str(name) for name in renamed.columns]
    faults += [f"{name}: the column is there twice" for name in COLUMNS if names.count(name) > 1]
    faults += [f"{name}: the column is missing" for name in ("path", "label") if name not in names]
    raise_faults(
        ManifestError, asked, faults, advice=f"Columns found: {', '.join(map(str, table.columns))}."
    )
    return renamed


def _relative(path: Any, root: Path) -> Any:
    """The path in its one spelling, relative to the root if it lies inside; else as it is."""
    if not isinstance(path, str) or not path:
        return path
    if Path(path).is_relative_to(root.absolute()):
        return Path(path).relative_to(root.absolute()).as_posix()
    return PurePosixPath(path).as_posix()


def _is_absent(path: Path) -> bool:
    try:
        return not path.is_file()
    except OSError:
        return False  # it cannot be looked at; reading it will say why


def _is_portable(path: str) -> bool:
    """Whether a manifest can hold the name; Linux file names may be any bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return not set(path) & set("\\\r\n")


def _listed(root: Path) -> tuple[list[str], dict[str, int], list[Failure]]:
    """Sorted relative paths of the images, counts of other suffixes, unreadable folders."""
    if not root.is_dir():
        raise ManifestError(f"build a manifest of {root}: there is no such folder.")
    paths, others, failures = [], Counter[str](), []
    for found in _walk(root, inside=(os.path.realpath(root),)):
        if isinstance(found, OSError):
            where = Path(found.filename).relative_to(root).as_posix()
            failures.append(Failure(ImageId(""), where, "read", found.strerror or str(found)))
        elif found.suffix.lower() in IMAGE_SUFFIXES:
            paths.append(found.relative_to(root).as_posix())
        else:
            others[found.suffix.lower() or "(no suffix)"] += 1
    return sorted(paths), dict(sorted(others.items())), failures


def _walk(folder: Path, *, inside: tuple[str, ...]) -> Iterator[Path | OSError]:
    """Every file below that is not hidden; `inside` are the real paths of the folders above."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield error
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = Path(entry.path)
        try:
            is_folder, is_file = path.is_dir(), path.is_file()
        except OSError as error:
            yield error
            continue
        if is_folder:
            real = os.path.realpath(path)
            if real not in inside:
                yield from _walk(path, inside=(*inside, real))
        # A pipe or a device would be read for ever; a broken link is left to fail in reading.
        elif is_file or entry.is_symlink():
            yield path
