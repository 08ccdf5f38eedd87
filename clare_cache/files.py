"""Files that appear whole or not at all, and files inside tars. Knows no meaning of any."""

import errno
import json
import os
import tarfile
import uuid
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame
    from pyarrow import Table

ATTEMPTS = 5
"""So often a file is written whose partial another process sweeps away before it is renamed."""

TARS_KEPT = 1024
"""Tars whose lists of files stay in memory: images are read in the order of their ids, from any of
a data set's tars, and listing one again for each would take longer than reading all of it."""

ARCHIVE_MARK = "#"
"""Between a tar and its member in a path: `train-000.tar#a/b.png`."""


def make_folder(folder: Path) -> None:
    """Make the folder, and a file in it to see that it can be: before long work, not after it.

    Raises OSError where it cannot.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trial = folder / f".{uuid.uuid4().hex[:8]}.partial"
    trial.touch()
    trial.unlink()


def write_whole(path: Path, write: Callable[[Path], None], *, durable: bool = False) -> None:
    """Let `write` fill a file of another name beside `path`, then rename it over `path`.

    A reader sees the old file or the new one, never a part. `durable` flushes the data and the
    folder entry to the disk before returning, so that a power cut cannot undo or tear it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last because writers such as pandas choose a format by it.
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.partial{path.suffix}")

    def write_and_rename() -> None:
        write(partial)
        if durable:
            flush(partial)
        partial.replace(path)

    try:
        write_again_if_swept(write_and_rename)
    finally:
        partial.unlink(missing_ok=True)
    if durable:
        flush(path.parent)


def write_again_if_swept(write: Callable[[], None]) -> None:
    """Call `write`, and again where its partial file was swept away: see `sweep`."""
    for _ in range(ATTEMPTS - 1):
        try:
            return write()
        except FileNotFoundError:
            continue
    return write()


def is_partial(path: Path) -> bool:
    """Whether a name is that of a file in the making, here or in Zarr: it is nobody's result."""
    return ".partial" in path.suffixes


def partial_files(folder: Path) -> list[Path]:
    """The partial files in a folder, of processes at work and of those that were killed."""
    return [path for path in folder.glob("*.partial*") if is_partial(path)]


def sweep(folder: Path) -> None:
    """Remove the partial files in a folder, which killed processes leave.

    There is no telling whether a process elsewhere is alive. Those who write to this folder use
    `write_again_if_swept`, so that it does not matter.
    """
    for path in partial_files(folder):
        path.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Replace a file in one step."""
    write_whole(path, lambda partial: _write(partial, data), durable=durable)


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Replace a UTF-8 text file in one step."""
    write_bytes(path, text.encode(), durable=durable)


def write_json(path: Path, value: Any, *, durable: bool = False) -> None:
    """Replace a JSON file in one step; NaN is refused because JSON has none."""
    write_bytes(path, json_bytes(value), durable=durable)


def json_bytes(value: Any) -> bytes:
    """A JSON file's content; NaN is refused because JSON has none."""
    return (json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def read_json(path: Path) -> Any:
    """The value that a JSON file holds."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_parquet(
    file: Any, *, columns: list[str] | None = None, rows: tuple[int, int] | None = None
) -> "Table":
    """The table of a Parquet file, a path or opened for reading; with `rows`, of those alone whose
    column `row` is within first..stop-1, reading only the groups that may hold them.

    In this thread alone. Arrow's own let go of what Python owns after the answer is there: a
    process that ends then is aborted, status 134, with its work done (apache/arrow#34314).
    """
    from pyarrow.compute import and_, greater_equal, less
    from pyarrow.parquet import ParquetFile

    with ParquetFile(file, pre_buffer=False) as parquet:
        if rows is None:
            return parquet.read(columns=columns, use_threads=False)
        first, stop = rows
        number = parquet.schema_arrow.get_field_index("row")
        found = []
        for group in range(parquet.num_row_groups):
            known = parquet.metadata.row_group(group).column(number).statistics
            if not known or not known.has_min_max or (known.min < stop and known.max >= first):
                found.append(group)
        table = parquet.read_row_groups(found, columns=columns, use_threads=False)
    return table.filter(and_(greater_equal(table["row"], first), less(table["row"], stop)))


def read_frame(path: Path) -> "DataFrame":
    """The rows of a Parquet file."""
    return read_parquet(path).to_pandas(use_threads=False)


def flush(path: Path) -> None:
    """Force a file's or folder's data from the operating system's cache to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def read_bytes_at(root: Path, path: str) -> bytes:
    """The bytes of a file below `root`, or of a tar's member, written `shard.tar#member`.

    Raises OSError when there is no such file or member.
    """
    tar, member = split_member(path)
    if not member:
        return (root / path).read_bytes()
    places = _members(str(root / tar), (root / tar).stat().st_mtime_ns)
    if member not in places:
        raise FileNotFoundError(errno.ENOENT, "No such member of the tar", path)
    offset, size = places[member]
    with (root / tar).open("rb") as file:
        file.seek(offset)
        return file.read(size)


def split_member(path: str) -> tuple[str, str]:
    """`a/b.tar#c/d.png` → the tar and the member; any other path → itself and nothing."""
    tar, mark, member = path.partition(f".tar{ARCHIVE_MARK}")
    return (f"{tar}.tar", member) if mark and member else (path, "")


def member_names(tar: Path) -> list[str]:
    """The files in a tar, in its order. Raises OSError for what is no plain tar."""
    return list(_members(str(tar), tar.stat().st_mtime_ns))


@lru_cache(maxsize=TARS_KEPT)
def _members(tar: str, changed: int) -> dict[str, tuple[int, int]]:
    """Name → (offset, size) of each file in a tar; `changed` makes a new file a new entry."""
    try:
        with tarfile.open(tar, "r:") as archive:
            found = {m.name: (m.offset_data, m.size) for m in archive if m.isfile()}
    except tarfile.ReadError as error:
        reason = f"expected a plain tar, not compressed, found something else ({error})"
        raise OSError(errno.EINVAL, reason, tar) from error
    return found
