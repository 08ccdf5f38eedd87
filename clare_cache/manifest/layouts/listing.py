"""What a layout says about a data set on disk, before any file is read.

A layout turns folder names and lists into entries. It opens lists, never pictures; it repairs
nothing and raises nothing about single files: faults are values.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from clare_cache.manifest.walk import walk
from clare_cache.types import Failure


@dataclass(frozen=True)
class Entry:
    """One row to be: everything but what the file's bytes say.

    `path` is relative to the root; `shard.tar#member` lies inside a tar. What is None takes the
    manifest's default. `absent_from` is the list that names the file when the disk has it not.
    """

    path: str
    label: int
    split: str = ""
    source: str = ""
    generator: str | None = None
    family: str | None = None
    group: str | None = None
    frame: int | None = None
    image_id: str | None = None
    boxes: str | None = None
    absent_from: str = ""


@dataclass
class Listing:
    """Everything a layout found.

    `faults` are kinds of sentences that forbid a manifest, `advice` what to do about them;
    `failures` are folders that cannot be read; `left_out` counts what was seen and not taken, by a
    sentence that says why. `keeps_repeats`: rows that repeat a file are wanted.
    """

    entries: list[Entry]
    faults: list[list[str]] = field(default_factory=list)
    advice: str = ""
    failures: list[Failure] = field(default_factory=list)
    other_files: Mapping[str, int] = field(default_factory=dict)
    ignored_columns: tuple[str, ...] = ()
    left_out: Counter[str] = field(default_factory=Counter)
    keeps_repeats: bool = False


@dataclass(frozen=True)
class Options:
    """What a user may add to a layout's name; each layout `takes` some of it.

    `tables`: the lists or tables to read. `columns`: a table's column names → the manifest's.
    `labels`: words in its column label → 0 or 1.
    `group_pattern`: a regular expression whose one group, searched in the path, is the group.
    `split`: the split of rows for which the layout says none. `frames`: at most so many of each
    video, chosen as `pick` says. `compression`: FaceForensics++'s. `keys`: keep videos whose key
    contains one of these.
    """

    tables: tuple[Path, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, int] = field(default_factory=dict)
    group_pattern: str | None = None
    split: str = ""
    frames: int | None = None
    pick: str = "spread"
    compression: str = "c23"
    keys: tuple[str, ...] = ()


class Layout(Protocol):
    """A known way to arrange a data set on disk.

    `tree` is what the root is expected to hold, for messages and docs; `takes` names the fields of
    `Options` that mean something here beside `group_pattern` and `split`.
    """

    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def tree(self) -> str: ...
    @property
    def takes(self) -> frozenset[str]: ...

    def survey(self, root: Path, options: Options) -> Listing: ...


Place = Callable[[PurePosixPath, str], Entry | None]
"""A relative path and the root's own name → its entry, or None when the layout has no place for
it."""

NO_PLACE = "outside the layout"


@dataclass(frozen=True)
class Tree:
    """A layout in which the folders above an image say all of it: `place` reads their names."""

    name: str
    summary: str
    tree: str
    place: Place
    takes: frozenset[str] = frozenset()

    def survey(self, root: Path, options: Options) -> Listing:
        return list_tree(root, self.place, layout=self)


def list_tree(root: Path, place: Place, *, layout: Layout) -> Listing:
    """Every image below `root` that `place` knows; the others are counted.

    A fault when not one has a place: then the root is not such a tree.
    """
    walked, root_name = walk(root), root.resolve().name
    entries, left_out, first = [], Counter[str](), ""
    for path in walked.images:
        entry = place(PurePosixPath(path), root_name)
        if entry is not None:
            entries.append(entry)
        else:
            left_out[NO_PLACE] += 1
            first = first or path
    faults = [list(walked.unnameable)]
    if not entries:
        found = f"found {left_out[NO_PLACE]} images elsewhere, the first is {first}" if first else (
            "found no image at all"
        )  # fmt: skip
        faults.append([f"expected {layout.tree} below it, {found}"])
    return Listing(
        entries,
        faults=faults,
        advice=f"`clare-cache manifest build --list` shows what each layout expects; "
        f"{layout.name} was asked for.",
        failures=list(walked.failures),
        other_files=walked.other_files,
        left_out=left_out,
    )


def count_listed(entries: Sequence[Entry]) -> Counter[tuple[str, int]]:
    """Entries by (split, label)."""
    return Counter((entry.split, entry.label) for entry in entries)
