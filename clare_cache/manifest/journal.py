"""What was read of files before an interruption, so that a second call reads the others only.

A line holds while the file has the size and the time of change that it had. The journal lies
beside the manifest in the making and goes when that is written.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from clare_cache.files import split_member

FLUSH_EVERY = 256
"""Lines between two writes to the disk: what an interruption can cost."""


@dataclass(frozen=True)
class Seen:
    """A file's size in bytes and time of change in nanoseconds."""

    nbytes: int
    changed: int


def look_at(root: Path, path: str) -> Seen | None:
    """Size and time of change of a file, or of the tar that a member lies in; None if there is
    no such file."""
    try:
        status = (root / split_member(path)[0]).stat()
    except OSError:
        return None
    return Seen(status.st_size, status.st_mtime_ns)


class Journal:
    """A file of JSON lines: path, size, time of change, and what was found.

    Use as a context; leaving it by an exception keeps the file, leaving it otherwise too, until
    `discard`. A line that an interruption tore is ignored.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known: dict[str, dict[str, Any]] = {}
        self._file: TextIO | None = None
        self._unflushed = 0

    def __enter__(self) -> "Journal":
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                record = _parsed(line)
                if record is not None:
                    self._known[record["path"]] = record
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a", encoding="utf-8")
        self._file.write("\n")  # after a line that may be torn
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def find(self, path: Path, seen: Seen | None) -> Mapping[str, Any] | None:
        """What was found in the file, if it is still the one that was read."""
        record = self._known.get(str(path))
        if record is None or seen is None:
            return None
        same = (record["nbytes"], record["changed"]) == (seen.nbytes, seen.changed)
        return record["found"] if same else None

    def add(self, path: Path, seen: Seen | None, found: Mapping[str, Any]) -> None:
        """Note what was found in a file."""
        if self._file is None or seen is None:
            return
        record = {"path": str(path), **vars(seen), "found": dict(found)}
        self._file.write(json.dumps(record, ensure_ascii=True) + "\n")
        self._unflushed += 1
        if self._unflushed >= FLUSH_EVERY:
            self._file.flush()
            self._unflushed = 0

    def discard(self) -> None:
        """Remove the file: what it was for is written."""
        self.path.unlink(missing_ok=True)


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "found" in record else None
