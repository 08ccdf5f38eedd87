"""A manifest beside the disk and beside itself: everything that is wrong, at once.

Repairs nothing and raises nothing about images: a fault is a value.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from clare_cache.manifest.contents import Content, Probe, read_contents
from clare_cache.manifest.table import Manifest
from clare_cache.types import OnProgress, ignore_progress

KINDS: dict[str, str] = {
    "absent": "the file is not there",
    "unreadable": "the file cannot be read",
    "empty": "the file has no bytes",
    "changed": "the file's content is not the row's",
    "refused": "the file is no usable picture",
    "path-twice": "several rows name the file",
    "content-in-splits": "the same content is in several splits",
    "content-with-labels": "the same content has both labels",
    "group-in-splits": "a group (video, identity, scene) is in several splits",
    "near-duplicate": "nearly the same picture is in another split",
    "unnamed": "images lie below the root that no row names",
}
"""Every kind of fault; `unnamed` is a remark, because a manifest may be of a part."""

REMARKS = frozenset({"unnamed"})
LEAKS = ("content-in-splits", "group-in-splits", "near-duplicate")
"""Kinds by which what is tested was trained on."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: its kind, the path concerned, and a sentence about it.

    KINDS lists what there is.
    """

    kind: str
    where: str
    detail: str

    def __str__(self) -> str:
        return f"{self.where}: {self.detail}."


def check(
    manifest: Manifest,
    root: str | Path,
    *,
    probe: Probe,
    workers: int | None = None,
    on_progress: OnProgress = ignore_progress,
) -> list[Fault]:
    """Every fault: first of the files, in the order of the rows, then between rows, by path.

    A row without split is in no split. Each file is read once, however many rows name it.
    """
    root = Path(root)
    rows = manifest.rows
    expected = rows.drop_duplicates("path").set_index("path")["image_id"]
    contents = read_contents(
        [str(path) for path in expected.index],
        root=root,
        probe=probe,
        workers=workers,
        on_progress=on_progress,
        what="check",
    )
    faults: list[Fault] = []
    for content, image_id in zip(contents, expected, strict=True):
        faults += _file_faults(content, image_id=image_id, root=root)
    return faults + sorted(_row_faults(rows), key=lambda fault: (fault.kind, fault.where))


def _file_faults(content: Content, *, image_id: str, root: Path) -> Iterator[Fault]:
    path = content.path
    if content.is_absent:
        yield Fault("absent", path, f"there is no such file under {root}")
        return
    if content.image_id is None:
        yield Fault("unreadable", path, f"cannot be read: {content.reason}")
        return
    if content.image_id != image_id:
        yield Fault(
            "changed",
            path,
            f"the content is {content.image_id[:12]}…, the manifest says {image_id[:12]}…",
        )
    if content.nbytes == 0:
        yield Fault("empty", path, "the file is empty (0 bytes)")
    elif content.header is None:
        yield Fault("refused", path, f"cannot be used: {content.reason}")


def _row_faults(rows: pd.DataFrame) -> Iterator[Fault]:
    for path, n_rows in rows["path"].value_counts().items():
        if n_rows > 1:
            yield Fault("path-twice", str(path), f"is named by {n_rows} rows")
    in_split = rows[rows["split"] != ""]
    for mine in _straddling(in_split, by="image_id", over="split"):
        where, also = _paths(mine)
        detail = f"the same content is in splits {_listed(mine['split'])}{also}"
        yield Fault("content-in-splits", where, detail)
    for mine in _straddling(rows, by="image_id", over="label"):
        where, also = _paths(mine)
        detail = f"the same content has labels {_listed(mine['label'])}{also}"
        yield Fault("content-with-labels", where, detail)
    for mine in _straddling(in_split, by="group", over="split"):
        where, _ = _paths(mine)
        detail = f"its group {mine['group'].iloc[0]!r} is in splits {_listed(mine['split'])}"
        yield Fault("group-in-splits", where, detail)


def _straddling(rows: pd.DataFrame, *, by: str, over: str) -> Iterator[pd.DataFrame]:
    """The rows of each key of `by` that has several values of `over`."""
    pairs = rows[[by, over]].drop_duplicates()
    keys = pairs.loc[pairs[by].duplicated(), by]
    for _, mine in rows[rows[by].isin(keys)].groupby(by):
        yield mine


def _listed(values: pd.Series) -> str:
    return " and ".join(str(value) for value in sorted(values.unique()))


def _paths(rows: pd.DataFrame) -> tuple[str, str]:
    """The first path, and a remark that names the others."""
    first, *others = sorted({str(path) for path in rows["path"]})
    return first, f" (also {', '.join(others)})" if others else ""
