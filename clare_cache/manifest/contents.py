"""Files → what their bytes say: id, size, header. Reads every file once; judges nothing."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from clare_cache.errors import ImageError
from clare_cache.files import read_bytes_at
from clare_cache.types import Failure, ImageId, OnProgress, Progress

# Bounds the results in flight, and how long an interrupt waits.
_BATCH = 1024


class Header(Protocol):
    """What a probe finds in a file's first bytes: upright size in pixels, name of the format."""

    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def format(self) -> str: ...


Probe = Callable[[bytes], Header]
"""A file's bytes → its header; raises ImageError for what cannot be decoded."""


@dataclass(frozen=True)
class Content:
    """One file's bytes, summed up.

    Without `image_id` the file could not be read; without `header` the probe refused it; `stage`
    and `reason` say why.
    """

    path: str
    image_id: ImageId | None = None
    nbytes: int | None = None
    header: Header | None = None
    is_absent: bool = False
    stage: str = ""
    reason: str = ""

    @property
    def failure(self) -> Failure | None:
        """The ledger line of a file that cannot be used, or None."""
        if self.header is not None:
            return None
        return Failure(self.image_id or ImageId(""), self.path, self.stage, self.reason)


def read_contents(
    paths: Sequence[str],
    *,
    root: Path,
    probe: Probe,
    workers: int | None,
    on_progress: OnProgress,
    what: str,
) -> Iterator[Content]:
    """The content of each path under `root`, in the order given, read by `workers` threads."""

    def read(path: str) -> Content:
        return _read(path, root=root, probe=probe)

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(paths), _BATCH):
            batch = paths[start : start + _BATCH]
            for done, content in enumerate(pool.map(read, batch), start=start + 1):
                on_progress(Progress(what=what, done=done, total=len(paths), unit="image"))
                yield content


def _read(path: str, *, root: Path, probe: Probe) -> Content:
    try:
        data = read_bytes_at(root, path)
    except OSError as error:
        reason = error.strerror or str(error)
        is_absent = isinstance(error, (FileNotFoundError, NotADirectoryError))
        return Content(path, is_absent=is_absent, stage="read", reason=reason)
    image_id = ImageId(hashlib.sha256(data).hexdigest())
    try:
        header = probe(data)
    except ImageError as error:
        return Content(path, image_id, len(data), stage=error.stage, reason=error.reason)
    return Content(path, image_id, len(data), header)
