"""A data set in a known layout → a manifest. Hashes files; never unpacks a picture.

Nothing is lost in silence: what cannot be used is a failure, what is left out is counted.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from clare_cache.errors import ManifestError
from clare_cache.manifest.contents import Content, Probe, read_contents
from clare_cache.manifest.journal import Journal
from clare_cache.manifest.layouts.folder import Folder
from clare_cache.manifest.layouts.listing import Entry, Layout, Listing, Options, count_listed
from clare_cache.manifest.layouts.table import Table
from clare_cache.manifest.table import COLUMNS, Manifest, faulty_rows, refuse
from clare_cache.types import Failure, ImageId, OnProgress, ignore_progress

Select = Callable[[Sequence[Entry]], list[Entry]]
"""Which of a layout's entries are meant, and what is changed in them."""


@dataclass(frozen=True)
class BuildResult:
    """A manifest and everything that is not in it.

    `failures` lists files whose header is refused (they keep their row, without size and format)
    and files that are absent or cannot be read (they have no row). `other_files` counts files by a
    suffix that is no image's, `left_out` other things that were not taken, by reason;
    `ignored_columns` names a table's columns that a manifest does not have. `listed` counts
    (split, label) as the lists name them, repeated files every time.
    """

    manifest: Manifest
    failures: list[Failure]
    other_files: Mapping[str, int]
    ignored_columns: tuple[str, ...] = ()
    left_out: Mapping[str, int] | None = None
    listed: Mapping[tuple[str, int], int] | None = None


def build(
    layout: Layout,
    root: str | Path,
    options: Options | None = None,
    *,
    probe: Probe,
    listing: Listing | None = None,
    select: Select = list,
    journal: Journal | None = None,
    workers: int | None = None,
    on_progress: OnProgress = ignore_progress,
) -> BuildResult:
    """The manifest of the data set that lies under `root` in this layout.

    `listing` is the layout's survey of this root, if it was made already. `select` says which of
    its entries are meant, before any file is read; `journal` remembers files across interruptions.

    Raises ManifestError for an absent root and, all together, for every fault that the layout
    finds, paths that `group_pattern` does not match, and files listed with two labels or splits.
    """
    root, options = Path(root), options or Options()
    pattern = _compiled(options.group_pattern)
    listing = listing or layout.survey(root, options)
    asked = f"build a manifest of {_what(layout, root, options)}"
    entries = select([replace(e, split=e.split or options.split) for e in listing.entries])
    listed = count_listed(entries)
    ungrouped: list[str] = []
    if pattern is not None:
        entries, ungrouped = _grouped(entries, pattern)
    n_repeated = 0
    contradictory: list[str] = []
    if not listing.keeps_repeats:
        entries, n_repeated, contradictory = _each_once(entries)
    advice = listing.advice
    if ungrouped and not any((*listing.faults, contradictory)):
        advice = "Correct --group: it has to find the group in every path."
    refuse(asked, *listing.faults, ungrouped, contradictory, advice=advice)
    absent = [_absence(entry) for entry in entries if entry.absent_from]
    entries = [entry for entry in entries if not entry.absent_from]
    contents = list(
        read_contents(
            [entry.path for entry in entries],
            root=root,
            probe=probe,
            workers=workers,
            on_progress=on_progress,
            what="hash",
            journal=journal,
        )
    )
    _refuse_other_ids(entries, contents, asked=asked)
    rows = [
        {**_given(entry), **_measured(content)}
        for entry, content in zip(entries, contents, strict=True)
        if content.image_id
    ]
    left_out = listing.left_out + Counter({"listed again": n_repeated})
    return BuildResult(
        manifest=_manifest_of(rows),
        failures=listing.failures + absent + [c.failure for c in contents if c.failure],
        other_files=listing.other_files,
        ignored_columns=listing.ignored_columns,
        left_out=left_out,
        listed=listed,
    )


def build_folder(
    root: str | Path,
    *,
    probe: Probe,
    group_pattern: str | None = None,
    workers: int | None = None,
    on_progress: OnProgress = ignore_progress,
) -> BuildResult:
    """The manifest of all images under `root`, labelled by their folders (see `Folder`)."""
    options = Options(group_pattern=group_pattern)
    return build(Folder(), root, options, probe=probe, workers=workers, on_progress=on_progress)


def build_csv(
    table_path: str | Path,
    root: str | Path,
    *,
    probe: Probe,
    columns: Mapping[str, str] | None = None,
    workers: int | None = None,
    on_progress: OnProgress = ignore_progress,
) -> BuildResult:
    """The manifest of the files that a .csv, .parquet or .jsonl table lists (see `Table`)."""
    options = Options(tables=(Path(table_path),), columns=columns or {})
    return build(Table(), root, options, probe=probe, workers=workers, on_progress=on_progress)


def _absence(entry: Entry) -> Failure:
    reason = f"there is no such file; {entry.absent_from} names it"
    return Failure(ImageId(""), entry.path, "list", reason)


def _given(entry: Entry) -> dict[str, Any]:
    fields = asdict(entry)
    fields.pop("absent_from")
    return fields


def _what(layout: Layout, root: Path, options: Options) -> str:
    return str(options.tables[0]) if layout.name == Table.name else str(root)


def _grouped(entries: Sequence[Entry], pattern: re.Pattern[str]) -> tuple[list[Entry], list[str]]:
    """The entries with the group that the pattern captures, and a fault where it captures none."""
    grouped, others = [], []
    for entry in entries:
        match = pattern.search(entry.path)
        if match and match[1]:
            grouped.append(replace(entry, group=match[1]))
        else:
            others.append(entry.path)
    if not others:
        return grouped, []
    more = f", as in {len(others) - 1} of the other {len(entries) - 1} paths" if others[1:] else ""
    return grouped, [f"{others[0]}: group pattern '{pattern.pattern}' captures nothing{more}"]


def _each_once(entries: Sequence[Entry]) -> tuple[list[Entry], int, list[str]]:
    """Each path once, how many were there again, and a fault where they contradict each other.

    Benchmarks whose validation list is their test list again are common: such a file is in test.
    """
    first: dict[str, Entry] = {}
    n_repeated, faults = 0, []
    for entry in entries:
        known = first.get(entry.path)
        if known is None:
            first[entry.path] = entry
        elif entry.label != known.label:
            faults.append(f"{entry.path}: is listed with labels {known.label} and {entry.label}")
        elif entry.split != known.split and {entry.split, known.split} != {"val", "test"}:
            faults.append(f"{entry.path}: is listed in splits {known.split} and {entry.split}")
        else:
            n_repeated += 1
            first[entry.path] = replace(known, split=min(entry.split, known.split))
    return list(first.values()), n_repeated, faults


def _refuse_other_ids(entries: Sequence[Entry], contents: Sequence[Content], *, asked: str) -> None:
    given = pd.Series([entry.image_id for entry in entries], dtype="string", name="image_id")
    found = pd.Series([content.image_id for content in contents], dtype="string")
    refuse(
        asked,
        faulty_rows((given != found).fillna(False), given, "the file's SHA-256"),
        advice="Rows count from 1. Leave the column out to have it computed.",
    )


def _manifest_of(rows: list[dict[str, Any]]) -> Manifest:
    return Manifest.from_rows(pd.DataFrame(rows, columns=list(COLUMNS), dtype=object))


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
        raise ManifestError(f"group pattern '{group_pattern}': {error}.") from error
    if pattern.groups != 1:
        raise ManifestError(
            f"group pattern '{group_pattern}': expected one capturing group, found "
            f"{pattern.groups}. Write '(…)' around the part of the path that names the video, and "
            "'(?:…)' for any other bracket."
        )
    return pattern
