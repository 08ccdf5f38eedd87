"""Folders as Hugging Face's `imagefolder` reads them: metadata files beside the pictures."""

from pathlib import Path, PurePosixPath

from clare_cache.errors import ManifestError
from clare_cache.manifest.layouts.families import family_of
from clare_cache.manifest.layouts.listing import (
    Entry,
    Listing,
    Options,
    list_tree,
)
from clare_cache.manifest.layouts.places import SPLIT_FOLDERS, place_of
from clare_cache.manifest.layouts.table import entry_of, label_faults, labels_of, renamed
from clare_cache.manifest.table import COLUMNS, read_table
from clare_cache.manifest.walk import Walked, walk

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME = "file_name"


class HfImageFolder:
    """`metadata.csv`, `.jsonl` or `.parquet` with `file_name` and `label`, in any folder.

    A file name is relative to the folder of its metadata file. Other columns of a manifest are
    taken over, `--rename` renames first. Without a label column, as without any metadata file, the
    folders must say real and fake. The split is the column's, else the folder's.
    """

    name = "hf-imagefolder"
    summary = "Hugging Face imagefolder: metadata.csv, .jsonl or .parquet with file_name and label"
    tree = (
        "[SPLIT/]metadata.{csv,jsonl,parquet} beside the files it names, or [SPLIT/]{real,fake}/*"
    )
    takes = frozenset({"columns", "labels"})

    def survey(self, root: Path, options: Options) -> Listing:
        walked = walk(root)
        tables = [name for name in walked.others if PurePosixPath(name).name in METADATA]
        root_name = root.resolve().name
        if not tables:
            return list_tree(root, _by_folder, layout=self)
        listing = Listing([], advice="Rows count from 1.", failures=list(walked.failures))
        images = set(walked.images)
        for name in tables:
            self._read(root, name, images, options, listing, root_name=root_name)
        others = [name for name in walked.others if name not in tables]
        listing.other_files = Walked((), tuple(others), (), ()).other_files
        if unused := len(images - {entry.path for entry in listing.entries}):
            listing.left_out["named by no metadata file"] = unused
        return listing

    def _read(
        self,
        root: Path,
        name: str,
        images: set[str],
        options: Options,
        listing: Listing,
        *,
        root_name: str,
    ) -> None:
        folder = PurePosixPath(name).parent
        table = read_table(root / name)
        columns = dict(options.columns)
        if "path" not in columns.values():
            columns[FILE_NAME] = "path"
        named = next(old for old, new in columns.items() if new == "path")
        if named not in table.columns:
            raise ManifestError(
                f"build a manifest of {root / name}: the column {named} is missing. "
                f"Columns found: {', '.join(map(str, table.columns))}."
            )
        if not any(columns.get(str(column), str(column)) == "label" for column in table.columns):
            labels = [_folder_label(folder / str(path)) for path in table[named]]
            table = table.assign(label=labels)
        table = renamed(table, columns, asked=f"build a manifest of {root / name}")
        ignored = [str(column) for column in table.columns if column not in COLUMNS]
        listing.ignored_columns += tuple(c for c in ignored if c not in listing.ignored_columns)
        table = table.drop(columns=ignored).reset_index(drop=True)
        known = labels_of(table["label"], options.labels)
        bad = label_faults(known, table["label"])
        listing.faults += [[f"{name}: {fault}" for fault in bad]]
        split = _split_of(folder, root_name)
        for row in table.assign(label=known)[known.notna()].to_dict("records"):
            path = (folder / str(row["path"])).as_posix()
            given = {str(key): value for key, value in row.items()} | {"path": path}
            entry = entry_of(given)
            fields = {**vars(entry), "split": _word(entry.split) or split}
            fields["source"] = entry.source or root_name
            fields["absent_from"] = "" if path in images else name
            fields["family"] = entry.family or family_of(entry.generator)
            listing.entries.append(Entry(**fields))


def _folder_label(path: PurePosixPath) -> str:
    place = place_of(path, root_name="")
    return "" if place is None else str(place.label)


def _split_of(folder: PurePosixPath, root_name: str) -> str:
    names = [*reversed(folder.parts), root_name]
    return next((SPLIT_FOLDERS[n.lower()] for n in names if n.lower() in SPLIT_FOLDERS), "")


def _word(split: str) -> str:
    return SPLIT_FOLDERS.get(split.lower(), split)


def _by_folder(path: PurePosixPath, root_name: str) -> Entry | None:
    place = place_of(path, root_name=root_name)
    if place is None:
        return None
    return Entry(str(path), **vars(place), family=family_of(place.generator))
