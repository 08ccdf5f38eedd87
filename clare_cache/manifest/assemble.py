"""A described data set (see `catalogue`) on this disk → a manifest, and its counts held against
the expected ones."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from clare_cache.errors import ManifestError
from clare_cache.manifest.build import BuildResult, build
from clare_cache.manifest.catalogue import LABELS, DataSet, Expected, Part
from clare_cache.manifest.contents import Probe
from clare_cache.manifest.journal import Journal
from clare_cache.manifest.layouts import LAYOUTS, Entry, Listing
from clare_cache.manifest.table import Manifest
from clare_cache.types import OnProgress, ignore_progress


@dataclass(frozen=True)
class Count:
    """One expected number beside the one found."""

    what: str
    expected: int
    found: int
    agrees: bool
    according_to: str


def assemble(
    data_set: DataSet,
    root: str | Path,
    *,
    probe: Probe,
    journal: Journal | None = None,
    workers: int | None = None,
    on_progress: OnProgress = ignore_progress,
) -> tuple[BuildResult, list[Count]]:
    """The manifest of all parts of a data set below `root`, and every count.

    Only images that are meant are read. Raises ManifestError for the faults of a part, and when
    none of its images is there.
    """
    root = Path(root)
    results = []
    surveys: dict[tuple[Any, ...], Listing] = {}
    for part in data_set.parts:
        layout, options = LAYOUTS[part.layout], part.options(root)
        # Parts of one tree differ in what they keep of it; it is walked once.
        key = (part.layout, part.under, repr(options))
        if key not in surveys:
            surveys[key] = layout.survey(root / part.under, options)
        result = build(
            layout,
            root / part.under,
            options,
            probe=probe,
            listing=surveys[key],
            select=partial(_selected, part=part),
            journal=journal,
            workers=workers,
            on_progress=on_progress,
        )
        results.append(_below(result, part.under))
    joined = _joined(results, n_unmeant=_unmeant(data_set, surveys))
    if not len(joined.manifest):
        raise ManifestError(
            f"build {data_set.title} from {root}: none of its images is there. Expected "
            f"{data_set.tree}"
        )
    return joined, [_counted(expected, joined) for expected in data_set.expected]


def join(manifests: Sequence[Manifest]) -> Manifest:
    """All rows of several manifests, in order. They must share a root for their paths to hold."""
    return Manifest.from_rows(pd.concat([m.rows for m in manifests], ignore_index=True))


def _selected(entries: Sequence[Entry], *, part: Part) -> list[Entry]:
    return [replace(entry, split=part.split_of(entry)) for entry in entries if part.takes(entry)]


def _unmeant(data_set: DataSet, surveys: Mapping[tuple[Any, ...], Listing]) -> int:
    """How many files that the layouts found are of no part."""
    found, meant = set(), set()
    for (_, under, _), listing in surveys.items():
        found |= {(under, entry.path) for entry in listing.entries}
        for part in data_set.parts:
            if part.under == under:
                meant |= {(under, entry.path) for entry in listing.entries if part.takes(entry)}
    return len(found - meant)


def _below(result: BuildResult, under: str) -> BuildResult:
    """The same with paths from the root instead of from the part's folder."""
    if not under:
        return result
    rows = result.manifest.rows
    moved = Manifest(rows.assign(path=(under.rstrip("/") + "/" + rows["path"]).astype("string")))
    failures = [replace(f, path=f"{under.rstrip('/')}/{f.path}") for f in result.failures]
    return replace(result, manifest=moved, failures=failures)


def _joined(results: Sequence[BuildResult], *, n_unmeant: int) -> BuildResult:
    left_out, listed = Counter[str](), Counter[tuple[str, int]]()
    for result in results:
        # Parts of one tree leave out the same.
        left_out |= Counter(result.left_out)
        listed.update(result.listed or {})
    left_out += Counter({"not of this data set": n_unmeant})
    return BuildResult(
        manifest=join([result.manifest for result in results]),
        failures=list(dict.fromkeys(f for result in results for f in result.failures)),
        other_files=results[0].other_files,
        ignored_columns=results[0].ignored_columns,
        left_out=left_out,
        listed=listed,
    )


def _counted(expected: Expected, result: BuildResult) -> Count:
    label = None if expected.label is None else LABELS[expected.label]
    if expected.counted == "listed":
        found = sum(
            n
            for (split, kind), n in (result.listed or {}).items()
            if expected.split in (None, split) and label in (None, kind)
        )
    else:
        rows = result.manifest.rows
        keep = pd.Series([True] * len(rows))
        for column in ("split", "source", "generator"):
            wanted = getattr(expected, column)
            if wanted is not None:
                keep &= rows[column] == wanted
        if label is not None:
            keep &= rows["label"] == label
        found = int(keep.sum())
    return Count(
        expected.what, expected.images, found, expected.agrees(found), expected.according_to
    )
