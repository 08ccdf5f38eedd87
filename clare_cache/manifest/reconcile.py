"""Files that a manifest names under another name than the disk does: found again, by content.

A proposal is made only when the file's SHA-256 is the row's: equal names prove nothing in data sets
whose frames are all called 000.png.
"""

import hashlib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from clare_cache.files import read_bytes_at
from clare_cache.manifest.table import Manifest
from clare_cache.manifest.walk import walk

MOST_TRIED = 8
"""So many files of a row's name are read before its row is given up."""

MOST_ALIKE = 1000
"""Of a name that more files have, only the place where the file before was found is tried."""


@dataclass(frozen=True)
class Move:
    """Folders of the manifest that are called otherwise on disk, and for how many files."""

    named: str
    found: str
    n_files: int

    def __str__(self) -> str:
        kind = "only in case" if self.named.casefold() == self.found.casefold() else "in name"
        files = "1 file" if self.n_files == 1 else f"{self.n_files} files"
        return (
            f"{self.named or '(the root)'} is {self.found or '(the root)'} on disk, different "
            f"{kind}: {files} there, equal in content"
            + ("" if self.named else f"; add {self.found.rstrip('/')} to --root")
        )


@dataclass(frozen=True)
class Reconciled:
    """`moved`: path in the manifest → path on disk, every one proved by content; `moves` sums
    them up by folder. `unnamed`: folder → images in it that no row names and no move explains."""

    moved: Mapping[str, str]
    moves: tuple[Move, ...]
    unnamed: Mapping[str, tuple[str, ...]]


def reconcile(manifest: Manifest, root: str | Path, absent: Sequence[str]) -> Reconciled:
    """What became of the absent paths, and what lies below the root beside the manifest's files."""
    root = Path(root)
    rows = manifest.rows
    ids = dict(zip(rows["path"], rows["image_id"], strict=True))
    free = [path for path in walk(root).images if path not in ids]
    moved: dict[str, str] = {}
    search = _Search(root, free)
    for path in absent:
        found = search.find(path, ids[path])
        if found is not None:
            moved[path] = found
    taken = set(moved.values())
    unnamed: dict[str, list[str]] = defaultdict(list)
    for path in free:
        if path not in taken:
            folder, _, name = path.rpartition("/")
            unnamed[folder].append(name)
    moves = Counter(_changed(named, found) for named, found in moved.items())
    return Reconciled(
        moved=moved,
        moves=tuple(Move(*names, n) for names, n in sorted(moves.items())),
        unnamed={folder: tuple(names) for folder, names in unnamed.items()},
    )


def apply_moves(manifest: Manifest, moved: Mapping[str, str]) -> Manifest:
    """The manifest with the paths that the disk has."""
    paths = manifest.rows["path"].map(lambda path: moved.get(path, path)).astype("string")
    return Manifest(manifest.rows.assign(path=paths))


class _Search:
    """Files on disk by the end of their path, tried in the order of how much of it agrees."""

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        self._root = root
        self._paths = frozenset(paths)
        self._by_end: dict[str, list[str]] = defaultdict(list)
        self._ids: dict[str, str] = {}
        self._last: tuple[str, str] | None = None
        for path in paths:
            for n_parts in (1, 2):
                self._by_end[_end(path, n_parts)].append(path)

    def find(self, path: str, image_id: str) -> str | None:
        for other in self._candidates(path):
            if self._id_of(other) == image_id:
                self._last = _changed(path, other)
                return other
        return None

    def _candidates(self, path: str) -> list[str]:
        """At most MOST_TRIED + 1 files, the likeliest first."""
        likely = []
        # Most files of a data set moved the same way as the one before.
        if self._last and path.startswith(self._last[0]):
            moved = self._last[1] + path.removeprefix(self._last[0])
            likely = [moved] if moved in self._paths else []
        alike = self._by_end.get(_end(path, 2)) or self._by_end.get(_end(path, 1), [])
        # Every video has a frame 000.png: beyond some, a name alone is no lead.
        if len(alike) > MOST_ALIKE:
            return likely
        ranked = sorted(alike, key=lambda other: (-_agreement(path, other), other))
        return [*likely, *ranked[:MOST_TRIED]]

    def _id_of(self, path: str) -> str:
        if path not in self._ids:
            try:
                data = read_bytes_at(self._root, path)
            except OSError:
                return ""
            self._ids[path] = hashlib.sha256(data).hexdigest()
        return self._ids[path]


def _end(path: str, n_parts: int) -> str:
    return "/".join(_plain(path).split("/")[-n_parts:])


def _plain(path: str) -> str:
    """Without what file systems disagree about: case, and how accents are written."""
    return unicodedata.normalize("NFC", path).casefold()


def _agreement(one: str, other: str) -> int:
    """How many folders agree, from the file upwards, but for case."""
    pairs = zip(reversed(_plain(one).split("/")), reversed(_plain(other).split("/")), strict=False)
    n = 0
    for mine, theirs in pairs:
        if mine != theirs:
            break
        n += 1
    return n


def _changed(named: str, found: str) -> tuple[str, str]:
    """The two paths without the tail they share exactly; what is left of folders ends in '/'."""
    ours, theirs = named.split("/"), found.split("/")
    n = 0
    while n < min(len(ours), len(theirs)) and ours[-1 - n] == theirs[-1 - n]:
        n += 1
    return _head(ours, n), _head(theirs, n)


def _head(parts: list[str], n_shared: int) -> str:
    head = "/".join(parts[: len(parts) - n_shared])
    return f"{head}/" if head and n_shared else head
