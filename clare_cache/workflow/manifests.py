"""Manifests as the user builds them: a layout by name, with the headers probed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from clare_cache.errors import ManifestError, raise_faults
from clare_cache.images import probe
from clare_cache.manifest import LAYOUTS, BuildResult, Count, Manifest, Options, assemble, build
from clare_cache.manifest.catalogue import read_data_set
from clare_cache.manifest.journal import Journal
from clare_cache.types import Failure, OnProgress, ignore_progress

ALWAYS_TAKEN = frozenset({"group_pattern", "split"})
_FLAGS = {
    "tables": "--table",
    "columns": "--rename",
    "labels": "--label",
    "keys": "--key",
    "group_pattern": "--group",
}


@dataclass(frozen=True)
class Built:
    """A manifest, the files that cannot be read as images, sentences about what was left, and
    the counts that a described data set expects."""

    manifest: Manifest
    failures: tuple[Failure, ...]
    remarks: tuple[str, ...]
    counts: tuple[Count, ...] = ()


def build_manifest(
    layout: str,
    root: str | Path,
    *,
    table: str | Path | Sequence[str | Path] | None = None,
    group_pattern: str | None = None,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[str, int] | None = None,
    split: str = "",
    frames: int | None = None,
    pick: str = "spread",
    compression: str = "c23",
    keys: Sequence[str] = (),
    journal: Journal | None = None,
    workers: int = 4,
    on_progress: OnProgress = ignore_progress,
) -> Built:
    """The manifest of a data set in a known layout, or of one that `manifests/` describes.

    `layout` is a name of `clare-cache manifest build --list`, or a YAML file as those of
    `manifests/`. `table` names the list or lists that a layout reads; the other options are those
    of `clare_cache.manifest.Options`; a described data set has its own and takes none. An opened
    `journal` lets a second call after an interruption read only what is left. Raises
    ManifestError for an unknown name, options that are not taken, and every fault of the folder or
    list at once.
    """
    tables = [table] if isinstance(table, str | Path) else (table or [])
    options = Options(
        tables=tuple(map(Path, tables)),
        columns=columns or {},
        labels=labels or {},
        group_pattern=group_pattern,
        split=split,
        frames=frames,
        pick=pick,
        compression=compression,
        keys=tuple(keys),
    )
    if layout not in LAYOUTS:
        data_set = read_data_set(layout)
        _refuse_foreign(layout, frozenset(), options, always=frozenset())
        result, counts = assemble(
            data_set, root, probe=probe, journal=journal, workers=workers, on_progress=on_progress
        )
    else:
        chosen, counts = LAYOUTS[layout], []
        _refuse_foreign(layout, chosen.takes, options)
        result = build(
            chosen,
            root,
            options,
            probe=probe,
            journal=journal,
            workers=workers,
            on_progress=on_progress,
        )
    remarks = tuple(remarks_of(result))
    return Built(result.manifest, tuple(result.failures), remarks, tuple(counts))


def remarks_of(result: BuildResult) -> list[str]:
    """A sentence for everything that is not in the manifest and no failure."""
    remarks = [
        f"left out, no image suffix: {count} ending in {suffix or 'nothing'}"
        for suffix, count in sorted(result.other_files.items())
    ]
    remarks += [f"left out, {why}: {count}" for why, count in (result.left_out or {}).items()]
    remarks += [f"column {name} is not a manifest's, left out" for name in result.ignored_columns]
    return remarks


def _refuse_foreign(
    name: str,
    takes: frozenset[str],
    options: Options,
    *,
    always: frozenset[str] = ALWAYS_TAKEN,
) -> None:
    default = Options()
    foreign = [
        f"{_FLAGS.get(field.name, '--' + field.name)}: {name} has no use for it"
        for field in fields(Options)
        if field.name not in takes | always
        and getattr(options, field.name) != getattr(default, field.name)
    ]
    taken = sorted(_FLAGS.get(option, f"--{option}") for option in takes | always)
    advice = f"Options of {name}: {', '.join(taken)}." if taken else (
        "The data set's own file says all of it; copy the file to change it."
    )  # fmt: skip
    raise_faults(ManifestError, f"manifest build {name}", foreign, advice=advice)
