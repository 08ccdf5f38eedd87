"""The files below a folder, sorted, each once. Looks at names alone."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clare_cache.errors import ManifestError
from clare_cache.types import Failure, ImageId

IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif"}
)


@dataclass(frozen=True)
class Walked:
    """Sorted relative paths of images and of other files, folders that cannot be read, and a
    sentence for each image whose name no table can hold (it is not among `images`)."""

    images: tuple[str, ...]
    others: tuple[str, ...]
    failures: tuple[Failure, ...]
    unnameable: tuple[str, ...]

    @property
    def other_files(self) -> dict[str, int]:
        """How many of the others end in each suffix."""
        suffixes = Counter(Path(name).suffix.lower() or "(no suffix)" for name in self.others)
        return dict(sorted(suffixes.items()))


def walk(root: Path) -> Walked:
    """Every file below `root` that is not hidden; links are followed but never in a circle.

    Raises ManifestError when there is no such folder.
    """
    if not root.is_dir():
        raise ManifestError(f"build a manifest of {root}: there is no such folder.")
    images, others, failures, unnameable = [], [], [], []
    for found in files_below(root):
        if isinstance(found, OSError):
            where = Path(found.filename).relative_to(root).as_posix()
            failures.append(Failure(ImageId(""), where, "read", found.strerror or str(found)))
            continue
        name = found.relative_to(root).as_posix()
        if found.suffix.lower() not in IMAGE_SUFFIXES:
            others.append(name)
        elif not _is_portable(name):
            unnameable.append(f"{name!r}: the name has a backslash, a line break or no UTF-8")
        else:
            images.append(name)
    return Walked(tuple(sorted(images)), tuple(sorted(others)), tuple(failures), tuple(unnameable))


def files_below(root: Path) -> Iterator[Path | OSError]:
    """Every file below `root` that is not hidden, by name, and why a folder cannot be read; links
    are followed but never in a circle."""
    yield from _files(root, inside=(os.path.realpath(root),))


def _is_portable(path: str) -> bool:
    """Whether a manifest can hold the name; Linux file names may be any bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return not set(path) & set("\\\r\n")


def _files(folder: Path, *, inside: tuple[str, ...]) -> Iterator[Path | OSError]:
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
                yield from _files(path, inside=(*inside, real))
        # A pipe or a device would be read for ever; a broken link is left to fail in reading.
        elif is_file or entry.is_symlink():
            yield path
