"""DeepfakeBench's JSON lists, which DF40 uses too.

{DATASET: {LABEL: {SPLIT: {[COMPRESSION:] {VIDEO: {"label": LABEL, "frames": [PATH, …]}}}}}}
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clare_cache.errors import ManifestError, raise_faults

LIST_FOLDERS = ("", "dataset_json", "preprocessing/dataset_json")
"""Where below the root the lists are looked for when none is named."""

_KEY = r'\s*\{\s*"[^"]*"\s*:'
_BEGINNING = re.compile(rf'{_KEY}{_KEY}\s*\{{\s*"(train|val|test)"\s*:')

COMPRESSIONS = ("c23", "c40", "raw")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Video:
    """One entry of a list: a video's frames in the list's order."""

    dataset: str
    label: str
    split: str
    key: str
    frames: tuple[str, ...]


def find_lists(root: Path, tables: tuple[Path, ...]) -> list[Path]:
    """The JSON files to read: those named, or of the folders named, else those below the root that
    begin as such a list does.

    A name may be relative to the folders below the root where lists are looked for. Raises
    ManifestError for names that are nowhere.
    """
    if not tables:
        there = [p for folder in LIST_FOLDERS for p in sorted((root / folder).glob("*.json"))]
        return [path for path in there if _begins_as_list(path)]
    found, nowhere = [], []
    for table in tables:
        places = [table, *(root / folder / table for folder in LIST_FOLDERS)]
        place = next((path for path in places if path.exists()), None)
        if place is None:
            nowhere.append(f"{table}: there is no such list, neither here nor below {root}")
        else:
            found += sorted(place.glob("*.json")) if place.is_dir() else [place]
    raise_faults(
        ManifestError,
        "JSON lists",
        nowhere,
        advice=f"Put them into {root / 'dataset_json'}, or name them with --table.",
    )
    return found


def _begins_as_list(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return _BEGINNING.match(file.read(4096)) is not None


def read_list(path: Path, *, compression: str) -> Iterator[Video]:
    """The videos of one list; of those that have compressions, one. An entry without frames is
    left out. Raises ManifestError for a file that is no such list."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path}: cannot be read as a JSON list: {error}") from error
    for dataset, labels in _level(content, path):
        for label, splits in _level(labels, path, dataset):
            for split, videos in _level(splits, path, dataset, label):
                # A file may bear the compression in its name: FF-DF_c40.json.
                wanted = next((c for c in COMPRESSIONS if path.stem.endswith(f"_{c}")), compression)
                is_compressed = isinstance(videos, Mapping) and any(
                    name in videos and "frames" not in videos[name] for name in COMPRESSIONS
                )
                chosen = videos.get(wanted, {}) if is_compressed else videos
                for key, video in _level(chosen, path, dataset, label, split):
                    if not isinstance(video, Mapping) or "frames" not in video:
                        raise _misshapen(path, dataset, label, split, key)
                    frames = tuple(str(frame) for frame in video["frames"])
                    if frames:
                        named = str(video.get("label", label))
                        yield Video(dataset, named, split, key, frames)


def _level(content: Any, path: Path, *keys: str) -> list[tuple[str, Any]]:
    if not isinstance(content, Mapping):
        raise _misshapen(path, *keys)
    return [(str(key), value) for key, value in content.items()]


def _misshapen(path: Path, *keys: str) -> ManifestError:
    at = " > ".join(keys) or "its top"
    return ManifestError(
        f"{path}: expected DeepfakeBench's list (data set > label > split > video > frames), "
        f"found something else at {at}. Leave the file out with --table."
    )
