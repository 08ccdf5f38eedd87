"""Where a store's bytes lie: a local folder or an object store. Knows nothing of the format.

A *name* is a path below the store, its parts joined by `/`. Everything that the store does with
bytes goes through the methods here; only features are read by Zarr itself, from `zarr_store`.
"""

import errno
import fcntl
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Protocol

from zarr.abc.store import Store as ZarrStore
from zarr.storage import LocalStore

from clare_cache.errors import StoreError
from clare_cache.files import flush, partial_files, write_again_if_swept, write_bytes

NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What file systems answer that give a file one name only."""

URL = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.DOTALL)


class Place(Protocol):
    """One folder of files, by name. Small, picklable, hashable; `str(place)` opens it anywhere.

    Reading what is not there raises FileNotFoundError. What cannot be reached at all (a wrong
    bucket, refused credentials) raises StoreError.
    """

    def __hash__(self) -> int: ...

    def resolve(self) -> "Place":
        """The same place, named so that it does not depend on the current folder."""

    def read(self, name: str) -> bytes:
        """The whole content of a file."""

    def open(self, name: str) -> BinaryIO:
        """A file to read and seek in, without reading it whole."""

    def write(self, name: str, data: bytes) -> None:
        """Make or replace a file in one step; when this returns, a power cut cannot undo it."""

    def make(self, name: str, data: bytes) -> bool:
        """Write a file unless it is there, in one step; whether this call made it."""

    def swap(self, name: str, old: bytes, new: bytes) -> bool:
        """Replace a file that still holds `old`, in one step; whether this call did so."""

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""

    def names(self, folder: str = "") -> list[str]:
        """Every file below a folder, at any depth, sorted; leftovers of killed writers too."""

    def children(self, folder: str = "") -> list[str]:
        """Last parts of the files and folders directly in a folder, sorted."""

    def partials(self, folder: str = "") -> list[str]:
        """Names of the files in the making directly in a folder, and of what the killed left."""

    def delete(self, name: str) -> None:
        """Remove a file, or do nothing when it is not there."""

    def flush(self, name: str) -> None:
        """Make durable what Zarr wrote under this name."""

    def local(self, name: str) -> Path | None:
        """The file in this machine's file system, where it can be mapped; else None."""

    def zarr_store(self, folder: str, *, read_only: bool) -> ZarrStore:
        """The folder as Zarr's own kind of store. Use inside `speaking`."""

    def speaking(self) -> AbstractContextManager[None]:
        """Turns what this place raises when it cannot be reached into StoreError."""


def open_place(where: "str | Path | Place") -> Place:
    """The place that a user names: a folder, or a URL. Opens no connection.

    Raises StoreError for URLs of an unknown kind, or whose library is not installed.
    """
    if isinstance(where, Path):
        return LocalPlace(where)
    if not isinstance(where, str):
        return where
    match = URL.fullmatch(where)
    if not match:
        return LocalPlace(Path(where))
    if match[1] == "file":
        return LocalPlace(Path(match[2]))
    from clare_cache.store.object_place import SCHEMES, open_object_place

    if match[1] not in SCHEMES:
        raise StoreError(
            f"store {where}: expected a folder or a URL that begins with s3://, gs:// or az://, "
            f"found {match[1]}://."
        )
    return open_object_place(where)


def sweep(place: Place, folder: str) -> None:
    """Remove the files in the making from a folder; who is at work there writes them again."""
    for name in place.partials(folder):
        place.delete(name)


@dataclass(frozen=True)
class LocalPlace:
    """A folder of this machine or of a shared file system."""

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def resolve(self) -> "LocalPlace":
        return LocalPlace(self.root.resolve())

    def read(self, name: str) -> bytes:
        return (self.root / name).read_bytes()

    def open(self, name: str) -> BinaryIO:
        return (self.root / name).open("rb")

    def write(self, name: str, data: bytes) -> None:
        path = self.root / name
        write_bytes(path, data, durable=True)
        self._flush_folders(path.parent)

    def make(self, name: str, data: bytes) -> bool:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write_again_if_swept(partial(_link_whole, path, data))
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return _create(path, data)
        return True

    def swap(self, name: str, old: bytes, new: bytes) -> bool:
        # flock on the very file that is to change lets one process of this machine at a time look
        # again and change it. False on file systems without flock, and for others' files.
        path = self.root / name
        try:
            with path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return False
                if file.read() != old:
                    return False
                file.seek(0)
                file.write(new)
                file.truncate()
        except OSError:
            return False
        return True

    def exists(self, name: str) -> bool:
        return (self.root / name).is_file()

    def names(self, folder: str = "") -> list[str]:
        return sorted(
            path.relative_to(self.root).as_posix()
            for path in (self.root / folder).rglob("*")
            if path.is_file()
        )

    def children(self, folder: str = "") -> list[str]:
        try:
            return sorted(path.name for path in (self.root / folder).iterdir())
        except FileNotFoundError:
            return []

    def partials(self, folder: str = "") -> list[str]:
        found = partial_files(self.root / folder)
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    def delete(self, name: str) -> None:
        (self.root / name).unlink(missing_ok=True)

    def flush(self, name: str) -> None:
        path = self.root / name
        flush(path)
        self._flush_folders(path)

    def _flush_folders(self, path: Path) -> None:
        """Each folder may be new, and its name is kept in the one above."""
        for folder in self._above(path):
            flush(folder)

    def _above(self, path: Path) -> Iterator[Path]:
        while path != self.root:
            path = path.parent
            yield path

    def local(self, name: str) -> Path | None:
        return self.root / name

    def zarr_store(self, folder: str, *, read_only: bool) -> ZarrStore:
        return LocalStore(self.root / folder, read_only=read_only)

    def speaking(self) -> AbstractContextManager[None]:
        return nullcontext()


def _link_whole(path: Path, data: bytes) -> None:
    """Give a file that is whole its name. Created there, it would be empty for a moment, and for
    ever if its maker were killed then."""
    whole = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        whole.write_bytes(data)
        os.link(whole, path)
    finally:
        whole.unlink(missing_ok=True)


def _create(path: Path, data: bytes) -> bool:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    return True
