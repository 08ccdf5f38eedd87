"""Manifests as the user builds them: a layout by name, with the headers probed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clare_cache.errors import ManifestError
from clare_cache.images import probe
from clare_cache.manifest import Manifest, build_csv, build_folder
from clare_cache.types import Failure, OnProgress, ignore_progress

LAYOUTS = ("folder", "csv")


@dataclass(frozen=True)
class Built:
    """A manifest, the files that cannot be read as images, and sentences about what was left."""

    manifest: Manifest
    failures: tuple[Failure, ...]
    remarks: tuple[str, ...]


def build_manifest(
    layout: str,
    root: str | Path,
    *,
    table: str | Path | None = None,
    group_pattern: str | None = None,
    columns: Mapping[str, str] | None = None,
    workers: int = 4,
    on_progress: OnProgress = ignore_progress,
) -> Built:
    """The manifest of a data set in a known layout: `folder`, or `csv` with its `table`.

    Raises ManifestError for an unknown layout, options of another layout, and every fault of the
    folder or table at once.
    """
    if layout == "folder" and table is None and not columns:
        result = build_folder(
            root,
            probe=probe,
            group_pattern=group_pattern,
            workers=workers,
            on_progress=on_progress,
        )
    elif layout == "csv" and table is not None and group_pattern is None:
        result = build_csv(
            table,
            root,
            probe=probe,
            columns=columns,
            workers=workers,
            on_progress=on_progress,
        )
    else:
        raise ManifestError(
            f"manifest build {layout}: expected `folder ROOT [--group PATTERN]` or "
            "`csv ROOT --table FILE [--rename THEIRS=OURS]`. Correct the options."
        )
    remarks = [
        f"left out, no image suffix: {count} ending in {suffix or 'nothing'}"
        for suffix, count in sorted(result.other_files.items())
    ]
    remarks += [f"column {name} is not a manifest's, left out" for name in result.ignored_columns]
    return Built(manifest=result.manifest, failures=tuple(result.failures), remarks=tuple(remarks))
