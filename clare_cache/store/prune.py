"""Drop arrays or views of a store: commit records first, so that no moment names what is gone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clare_cache.errors import StoreError, raise_faults
from clare_cache.store.lock import setup_lock
from clare_cache.store.place import Place, open_place
from clare_cache.store.reader import Store, read_description
from clare_cache.store.schema import (
    COMMITS_FOLDER,
    FEATURES_FOLDER,
    LEDGER_FOLDER,
    STORE_FILE,
    StoreDescription,
)
from clare_cache.store.seal import sealed
from clare_cache.types import OnProgress, Progress, ignore_progress

FOLDERS = (COMMITS_FOLDER, LEDGER_FOLDER, FEATURES_FOLDER)
"""In the order in which the files of an array go; `store.json` is written before the last."""


@dataclass(frozen=True)
class Pruning:
    """What is dropped: `<view>/<array>` of each, its rows, bytes before compression, and files.

    `leftovers` are those that an interrupted pruning had taken out of `store.json` already.
    """

    keys: tuple[str, ...]
    leftovers: tuple[str, ...]
    n_rows: int
    nbytes: int
    files: tuple[str, ...]


def plan_prune(
    where: str | Path | Place, *, arrays: Sequence[str] = (), views: Sequence[str] = ()
) -> Pruning:
    """What dropping these `arrays` (in `views`, or in all) or whole `views` takes.

    Raises StoreError for names that the store does not have, all at once.
    """
    place = open_place(where)
    description = read_description(place)
    files = {folder: place.names(folder) for folder in FOLDERS}
    named = {_key(name) for folder in FOLDERS for name in files[folder]} - {""}
    there = {*description.arrays, *named}
    if not arrays and not views:
        raise StoreError(f"prune {place}: expected --array or --view, found neither. Name one.")
    faults = [
        f"{what} {name}: expected one of {', '.join(sorted(known)) or 'none'}"
        for what, names, known in (
            ("array", arrays, {key.partition("/")[2] for key in there}),
            ("view", views, {key.partition("/")[0] for key in there}),
        )
        for name in names
        if name not in known
    ]
    raise_faults(StoreError, f"prune {place}", faults)
    chosen = sorted(
        key
        for key in there
        if (not views or key.partition("/")[0] in views)
        and (not arrays or key.partition("/")[2] in arrays)
    )
    kept_views = {key.partition("/")[0] for key in there - set(chosen)}
    gone = [
        name
        for folder in FOLDERS
        for name in files[folder]
        if _key(name) in chosen or _is_empty_view(name, chosen, kept_views)
    ]
    keys = tuple(key for key in chosen if key in description.arrays)
    store = Store(place)
    counts = {key: sum(len(r.rows) for r in store[key].records.values()) for key in keys}
    return Pruning(
        keys=keys,
        leftovers=tuple(key for key in chosen if key not in description.arrays),
        n_rows=sum(counts.values()),
        nbytes=sum(n * description.arrays[key].spec.row_nbytes for key, n in counts.items()),
        files=tuple(gone),
    )


def prune(
    where: str | Path | Place,
    *,
    arrays: Sequence[str] = (),
    views: Sequence[str] = (),
    on_progress: OnProgress = ignore_progress,
) -> Pruning:
    """Drop what `plan_prune` says; what it was.

    Killed at any moment it leaves a store that can be read, and calling again goes on.
    """
    place = open_place(where)
    read_description(place)  # where there is no store there is nothing to lock
    with setup_lock(place):
        plan = plan_prune(place, arrays=arrays, views=views)
        first = [name for name in plan.files if not name.startswith(FEATURES_FOLDER)]
        last = [name for name in plan.files if name.startswith(FEATURES_FOLDER)]
        # A view's own description goes before its arrays, by which the rest of it is found again.
        last.sort(key=lambda name: _key(name) != "")
        _delete(place, first, plan, on_progress, before=0)
        if plan.keys:
            _undeclare(place, plan)
        _delete(place, last, plan, on_progress, before=len(first))
    return plan


def _key(name: str) -> str:
    """`<view>/<array>` of a file below one of the three folders; nothing for a group's own."""
    _, view, array, *rest = [*name.split("/"), "", ""]
    return f"{view}/{array}" if any(rest) else ""


def _is_empty_view(name: str, chosen: Sequence[str], kept: set[str]) -> bool:
    """Whether a file describes a view of which nothing stays."""
    folder, view, file = [*name.split("/"), "", ""][:3]
    views = {key.partition("/")[0] for key in chosen}
    return folder == FEATURES_FOLDER and file == "zarr.json" and view in views - kept


def _undeclare(place: Place, plan: Pruning) -> None:
    description: StoreDescription = read_description(place)
    arrays = {k: entry for k, entry in description.arrays.items() if k not in plan.keys}
    checksums = {n: found for n, found in description.checksums.items() if n not in plan.files}
    told = replace(description, arrays=arrays, checksums=checksums)
    place.write(STORE_FILE, sealed(told.to_json()))


def _delete(
    place: Place, names: Sequence[str], plan: Pruning, on_progress: OnProgress, *, before: int
) -> None:
    for number, name in enumerate(names, start=before + 1):
        place.delete(name)
        on_progress(Progress(what="prune", done=number, total=len(plan.files), unit="file"))
