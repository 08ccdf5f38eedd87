"""A relative path → label, split, source and generator, read from its folder names alone.

Holds for ForenSynths and UniversalFakeDetect (`0_real`, `1_fake`), GenImage (`nature`, `ai`) and
any `real`/`fake` tree.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType

from clare_cache.types import FAKE, REAL

LABEL_FOLDERS = {
    "real": REAL,
    "0_real": REAL,
    "nature": REAL,
    "fake": FAKE,
    "1_fake": FAKE,
    "ai": FAKE,
}
SPLIT_FOLDERS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


@dataclass(frozen=True)
class Place:
    """What the folders above a file say about it."""

    label: int
    split: str
    source: str
    generator: str


NO_WORDS: Mapping[str, int] = MappingProxyType({})


def place_of(
    path: PurePosixPath, *, root_name: str, words: Mapping[str, int] = NO_WORDS
) -> Place | None:
    """What the folders of a path say, or None when none of them names a label.

    `words` are the user's own names of label folders, in lower case.

    Label and split come from the folder nearest to the root that names one, in any case; whether
    others agree is for `contradictions_of` to say. The other folders above the label are the
    source (the root's name if there are none). A fake's generator is the first folder below the
    label, else the label folder where the user named it, else the first folder of the source.
    """
    folders = path.parts[:-1]
    splits = [SPLIT_FOLDERS[f.lower()] for f in folders if f.lower() in SPLIT_FOLDERS]
    folders = tuple(f for f in folders if f.lower() not in SPLIT_FOLDERS)
    labels = {**LABEL_FOLDERS, **words}
    at = next((i for i, f in enumerate(folders) if f.lower() in labels), None)
    if at is None:
        return None
    above, below = folders[:at], folders[at + 1 :]
    label = labels[folders[at].lower()]
    own = folders[at : at + 1] if folders[at].lower() in words else ()
    maker = next(iter((*below, *own, *above)), "fake")
    return Place(
        label=label,
        split=splits[0] if splits else "",
        source="/".join(above) or root_name,
        generator="real" if label == REAL else maker,
    )


def contradictions_of(path: PurePosixPath, words: Mapping[str, int] = NO_WORDS) -> list[str]:
    """What the folders of a path say twice and differently, one sentence each."""
    kinds: tuple[tuple[str, Mapping[str, int | str]], ...] = (
        ("both labels", {**LABEL_FOLDERS, **words}),
        ("several splits", SPLIT_FOLDERS),
    )
    found = []
    for what, meanings in kinds:
        naming = [folder for folder in path.parts[:-1] if folder.lower() in meanings]
        if len({meanings[folder.lower()] for folder in naming}) > 1:
            found.append(f"is under folders that name {what}: {', '.join(naming)}")
    return found
