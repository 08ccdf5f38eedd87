"""Listed path → the same file on this disk, when the two spell its folders differently.

Only differences that are known are bridged: a prefix that the root already contains, other names
of a data set's folder, and DF40's own renamings. A tail that merely looks alike is never taken.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

_FOLDER_NAMES: dict[str, tuple[str, ...]] = {
    "DF40_train": ("DF40_train", "df40_train", "DF40/train", "df40/train", "train"),
    "DF40": ("DF40", "DF40_test", "df40_test", "DF40/test", "df40/test", "df40", "test"),
    "FaceForensics++": ("FaceForensics++", "FaceForensics", "FF++", "ff++", "face_forensics"),
    "Celeb-DF-v2": ("Celeb-DF-v2", "Celeb-DF", "celeb_df", "celeb-df-v2", "CelebDFv2"),
}
"""A data set's folder in the lists → what it is called on disks."""


class DiskNames:
    """The image files below a root (relative paths), ready to be asked for by listed names."""

    def __init__(self, images: Iterable[str]) -> None:
        self._images = frozenset(images)
        folders = {
            "/".join(parts[:n])
            for path in self._images
            for parts in [PurePosixPath(path).parts]
            for n in range(1, min(len(parts), 5))
        }
        self._homes: dict[str, list[str]] = defaultdict(list)
        for name, spellings in _FOLDER_NAMES.items():
            for spelling in spellings:
                self._homes[name] += sorted(
                    folder for folder in folders if f"/{folder}".endswith(f"/{spelling}")
                )

    def find(self, listed: str, *, split: str = "") -> str | None:
        """The path below the root of the file that a list names, or None.

        Tried in order: the path itself; without leading folders down to its data set's folder, or
        below it (the root is that folder); below every folder on disk that bears one of the data
        set's other names. In training DF40's archives have no `ff` level, in testing Celeb-DF
        fakes are called otherwise than the lists say; each of these is tried too.
        """
        path = PurePosixPath(listed.replace("\\", "/").lstrip("./"))
        at = next((i for i, part in enumerate(path.parts) if part in _FOLDER_NAMES), None)
        if at is None:
            return str(path) if str(path) in self._images else None
        home, inside = path.parts[at], "/".join(path.parts[at + 1 :])
        for tail in _spellings(inside, home=home, split=split):
            prefixes = ("/".join(path.parts[: at + 1]), home, "", *self._homes[home])
            for prefix in prefixes:
                candidate = f"{prefix}/{tail}" if prefix else tail
                if candidate in self._images:
                    return candidate
        return None


def _spellings(inside: str, *, home: str, split: str) -> Iterator[str]:
    """A path below its data set's folder, then as DF40's archives spell it."""
    parts = inside.split("/")
    if home in ("DF40_train", "DF40") and (split == "train" or home == "DF40_train"):
        yield "/".join(part for part in parts if part != "ff")
    yield inside
    if home == "DF40" and "sd2.1" not in inside:
        yield _celeb_renamed(inside)


def _celeb_renamed(inside: str) -> str:
    """A Celeb-DF fake as the test archives spell it: another folder, `YouTube` in the file name."""
    renamed = inside.replace("Celeb-real", "Fake_from_Celeb-real", 1)
    renamed = renamed.replace("YouTube-real", "Fake_from_Youtube-real", 1)
    name = renamed.rpartition("/")[2]
    plain = name.replace("Fake_from_", "").replace("Youtube", "YouTube")
    return renamed.replace(name, plain)
