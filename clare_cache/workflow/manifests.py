"""Manifests as the user builds them: a layout by name, with the headers probed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from clare_cache.errors import ManifestError, raise_faults
from clare_cache.images import probe
from clare_cache.manifest import LAYOUTS, BuildResult, Manifest, Options, build
from clare_cache.types import Failure, OnProgress, ignore_progress

ALWAYS_TAKEN = frozenset({"group_pattern", "split"})
_FLAGS = {"tables": "--table", "columns": "--rename", "keys": "--key"}


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
    table: str | Path | Sequence[str | Path] | None = None,
    group_pattern: str | None = None,
    columns: Mapping[str, str] | None = None,
    split: str = "",
    frames: int | None = None,
    pick: str = "spread",
    compression: str = "c23",
    keys: Sequence[str] = (),
    workers: int = 4,
    on_progress: OnProgress = ignore_progress,
) -> Built:
    """The manifest of a data set in a known layout, see `clare-cache manifest build --list`.

    `table` names the list or lists that a layout reads; the other options are those of
    `clare_cache.manifest.Options`. Raises ManifestError for an unknown layout, options that the
    layout does not take, and every fault of the folder or list at once.
    """
    if layout not in LAYOUTS:
        raise ManifestError(
            f"manifest build {layout}: expected one of {', '.join(LAYOUTS)}, found {layout!r}. "
            "`clare-cache manifest build --list` shows what each expects."
        )
    tables = [table] if isinstance(table, str | Path) else (table or [])
    options = Options(
        tables=tuple(map(Path, tables)),
        columns=columns or {},
        group_pattern=group_pattern,
        split=split,
        frames=frames,
        pick=pick,
        compression=compression,
        keys=tuple(keys),
    )
    chosen = LAYOUTS[layout]
    _refuse_foreign(layout, chosen.takes, options)
    result = build(chosen, root, options, probe=probe, workers=workers, on_progress=on_progress)
    return Built(result.manifest, tuple(result.failures), tuple(remarks_of(result)))


def remarks_of(result: BuildResult) -> list[str]:
    """A sentence for everything that is not in the manifest and no failure."""
    remarks = [
        f"left out, no image suffix: {count} ending in {suffix or 'nothing'}"
        for suffix, count in sorted(result.other_files.items())
    ]
    remarks += [f"left out, {why}: {count}" for why, count in (result.left_out or {}).items()]
    remarks += [f"column {name} is not a manifest's, left out" for name in result.ignored_columns]
    return remarks


def _refuse_foreign(layout: str, takes: frozenset[str], options: Options) -> None:
    default = Options()
    foreign = [
        f"{_FLAGS.get(field.name, '--' + field.name)}: this layout has no use for it"
        for field in fields(Options)
        if field.name not in takes | ALWAYS_TAKEN
        and getattr(options, field.name) != getattr(default, field.name)
    ]
    taken = ", ".join(sorted(_FLAGS.get(name, f"--{name}") for name in takes)) or "none"
    raise_faults(
        ManifestError,
        f"manifest build {layout}",
        foreign,
        advice=f"Options of {layout} beside --group and --split: {taken}.",
    )
